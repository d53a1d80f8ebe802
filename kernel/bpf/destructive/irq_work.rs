// SPDX-License-Identifier: GPL-2.0

//! Leaving NMI context: a function that the current CPU calls in hard interrupt context soon.
//!
//! C header: [`include/linux/irq_work.h`](srctree/include/linux/irq_work.h)

use kernel::{
    bindings,
    types::Opaque, //
};

/// A function to be called in hard interrupt context.
pub(crate) trait Item {
    fn run();
}

/// Calls an [`Item`] when queued.
///
/// # Invariants
///
/// `work` is initialised, and its function is that of one [`Item`].
pub(crate) struct IrqWork {
    work: Opaque<bindings::irq_work>,
}

// SAFETY: irq_work_queue() claims the work atomically; it may be called from any CPU and context.
unsafe impl Sync for IrqWork {}

impl IrqWork {
    pub(crate) const fn new<T: Item>() -> Self {
        // SAFETY: An irq_work with no flags, no waiter and no neighbour is all zeroes but for its
        // function; see `IRQ_WORK_INIT()`.
        let mut work: bindings::irq_work = unsafe { core::mem::zeroed() };
        work.func = Some(Self::call::<T>);
        // INVARIANT: Initialised above.
        Self {
            work: Opaque::new(work),
        }
    }

    /// Queues the call on this CPU, from any context. Nothing happens if it is already queued.
    pub(crate) fn queue(&'static self) {
        // SAFETY: By the type invariant the work is initialised, and it lives as long as the
        // module.
        unsafe { bindings::irq_work_queue(self.work.get()) };
    }

    /// # Safety
    ///
    /// To be called by the irq_work code only.
    unsafe extern "C" fn call<T: Item>(_work: *mut bindings::irq_work) {
        T::run();
    }
}
