// SPDX-License-Identifier: GPL-2.0

//! How long a run may take.

use core::time::Duration;
use kernel::{
    bindings,
    preempt::{
        self,
        Context, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

/// Runs that are ended less than that apart are ended in succession.
pub(crate) const APART: Duration = Duration::from_secs(10);

/// What a run keeps others from, from least to most.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// Its task sleeps and is preempted as any other.
    Sleepable = 0,
    /// It is preempted, but cannot sleep.
    Task = 1,
    /// Its CPU runs nothing else but interrupts: preemption is off, a resilient spin lock is held,
    /// a softirq is served.
    Atomic = 2,
    /// Its CPU runs nothing else: interrupts are off, a spin lock is held, in hardirq and NMI.
    Irq = 3,
}

impl Class {
    /// Returns the class of a run that executes now.
    pub(crate) fn now(may_sleep: bool) -> Self {
        match Context::current() {
            Context::Nmi | Context::Hardirq => Self::Irq,
            _ if preempt::interrupts_off() => Self::Irq,
            Context::Softirq => Self::Atomic,
            Context::Task if preempt::preemption_off() => Self::Atomic,
            Context::Task if may_sleep => Self::Sleepable,
            Context::Task => Self::Task,
        }
    }

    fn limit(self) -> u64 {
        Setting::Limit(self).get().saturating_mul(1000)
    }
}

/// How much of the time that it may take a run has taken.
pub(crate) enum Taken {
    Little,
    /// Half of a default.
    Half,
    /// More than the deadline, in ns.
    All(u64),
}

/// Returns what a run has taken of its time which has taken `spent`, in ns, and `section` since it
/// came to be in `class`. `own` is the deadline that the program has brought along.
pub(crate) fn taken(
    spent: u64,
    section: u64,
    class: Class,
    may_sleep: bool,
    own: Option<u64>,
) -> Taken {
    let least = if may_sleep {
        Class::Sleepable
    } else {
        Class::Task
    };
    let whole = own.unwrap_or_else(|| least.limit());
    let here = match class {
        Class::Atomic | Class::Irq => class.limit(),
        Class::Sleepable | Class::Task => u64::MAX,
    };

    if spent > whole {
        Taken::All(whole)
    } else if section > here {
        Taken::All(here)
    } else if own.is_none() && (spent > whole / 2 || section > here / 2) {
        Taken::Half
    } else {
        Taken::Little
    }
}

/// What can be set, for all programs.
#[derive(Clone, Copy)]
pub(crate) enum Setting {
    /// The deadline of a class, in us.
    Limit(Class),
    /// So many runs that are ended in succession stop a program.
    Row,
}

/// In the order of the classes.
static LIMITS: [Atomic<u64>; 4] = [
    Atomic::new(2_000_000),
    Atomic::new(250_000),
    Atomic::new(100_000),
    Atomic::new(50_000),
];
static ROW: Atomic<u64> = Atomic::new(10);

impl Setting {
    fn value(self) -> &'static Atomic<u64> {
        let [sleepable, task, atomic, irq] = &LIMITS;

        match self {
            Self::Limit(Class::Sleepable) => sleepable,
            Self::Limit(Class::Task) => task,
            Self::Limit(Class::Atomic) => atomic,
            Self::Limit(Class::Irq) => irq,
            Self::Row => &ROW,
        }
    }

    pub(crate) fn get(self) -> u64 {
        self.value().load(Relaxed)
    }

    /// Sets the value, `ERANGE` if it is out of bounds.
    pub(crate) fn set(self, value: u64) -> Result {
        let bounds = match self {
            Self::Limit(_) => {
                bindings::BPF_DEADLINE_MIN_US.into()..=bindings::BPF_DEADLINE_MAX_US.into()
            }
            Self::Row => 1..=1_000_000,
        };

        if !bounds.contains(&value) {
            return Err(ERANGE);
        }
        self.value().store(value, Relaxed);
        Ok(())
    }
}

/// By the number that `bpf_deadline_set()` and `bpf_deadline_get()` are given.
impl TryFrom<u32> for Setting {
    type Error = Error;

    fn try_from(setting: u32) -> Result<Self> {
        Ok(match setting {
            0 => Self::Limit(Class::Sleepable),
            1 => Self::Limit(Class::Task),
            2 => Self::Limit(Class::Atomic),
            3 => Self::Limit(Class::Irq),
            4 => Self::Row,
            _ => return Err(EINVAL),
        })
    }
}
