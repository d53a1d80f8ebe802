// SPDX-License-Identifier: GPL-2.0

//! Execution contexts.
//!
//! C header: [`include/linux/preempt.h`](srctree/include/linux/preempt.h)

use crate::{
    bindings,
    fmt, //
};

/// Returns whether interrupts are off on this CPU.
#[inline]
pub fn interrupts_off() -> bool {
    // SAFETY: Always safe to call.
    unsafe { bindings::irqs_disabled() }
}

/// Returns whether preemption is off on this CPU, for whatever reason.
#[inline]
pub fn preemption_off() -> bool {
    // SAFETY: Always safe to call.
    unsafe { bindings::preempt_count() != 0 }
}

/// A context in which a CPU executes.
///
/// # Examples
///
/// ```
/// use kernel::preempt::Context;
///
/// assert_eq!(Context::current(), Context::Task);
/// pr_info!("in {} context\n", Context::current());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A task, whether or not it may be preempted.
    Task,
    /// A software interrupt handler.
    Softirq,
    /// A hardware interrupt handler.
    Hardirq,
    /// A non-maskable interrupt handler.
    Nmi,
}

impl Context {
    /// Returns the context that this is called in, the innermost if they are nested.
    #[inline]
    pub fn current() -> Self {
        // SAFETY: Always safe to call.
        if unsafe { bindings::in_nmi() } {
            Self::Nmi
        // SAFETY: Always safe to call.
        } else if unsafe { bindings::in_hardirq() } {
            Self::Hardirq
        // SAFETY: Always safe to call.
        } else if unsafe { bindings::in_serving_softirq() } {
            Self::Softirq
        } else {
            Self::Task
        }
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task => "task",
            Self::Softirq => "softirq",
            Self::Hardirq => "hardirq",
            Self::Nmi => "NMI",
        })
    }
}
