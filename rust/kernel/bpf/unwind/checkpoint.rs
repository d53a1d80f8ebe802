// SPDX-License-Identifier: GPL-2.0

//! Checkpoints, at which runs that take too long are ended.
//!
//! C header: [`include/linux/bpf_deadline.h`](srctree/include/linux/bpf_deadline.h)

use super::{
    Cause,
    Table,
    Throw, //
};
use crate::{
    bindings,
    bpf::Program,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque,
    ThisModule, //
};
use core::time::Duration;

/// Decides at checkpoints whether a run goes on.
pub trait Supervise {
    /// Returns the fuel for what follows, or [`None`] if it has ended the run.
    ///
    /// Called in any context, NMI included.
    fn supervise(checkpoint: Checkpoint<'_>) -> Option<u32>;
}

/// A checkpoint that a run has come to.
pub struct Checkpoint<'a> {
    throw: Throw<'a>,
    deadline: &'a Deadline,
}

impl<'a> Checkpoint<'a> {
    /// Returns the program that runs.
    #[inline]
    pub fn program(&self) -> &'a Program {
        self.throw.program()
    }

    /// Returns the deadline of the program.
    #[inline]
    pub fn deadline(&self) -> &'a Deadline {
        self.deadline
    }

    /// Returns whether the program may sleep.
    #[inline]
    pub fn may_sleep(&self) -> bool {
        // SAFETY: The program runs.
        unsafe { (*(*self.program().as_ptr()).prog).sleepable() != 0 }
    }

    /// Returns what is kept of the run, or [`None`] if it cannot be found here: in an exception
    /// callback.
    #[inline]
    pub fn run(&self) -> Option<Run<'a>> {
        let run = self.throw.run()?;

        // SAFETY: It lies in the frame where the run ends, which lives longer than this checkpoint.
        // Nobody else uses it: callbacks run one after the other.
        Some(Run(unsafe { &mut *run }))
    }

    /// Has the functions of the run leave the loops that they can leave by `may_goto`.
    pub fn leave_loops(&self) {
        self.throw.leave_loops()
    }

    /// Returns what ends the run, or [`None`] if it cannot be ended here.
    pub fn ending(self) -> Option<Ending<'a>> {
        let walk = self.throw.walk_slowly()?;

        // INVARIANT: By the check.
        walk.can_end(&self.throw).then_some(Ending(self.throw))
    }
}

/// The end of a run that waits at a checkpoint.
///
/// # Invariants
///
/// The run can be ended: its frames are as the table says, and the registers of its caller are
/// known.
pub struct Ending<'a>(Throw<'a>);

impl Ending<'_> {
    /// Ends the run, which has taken `spent` ns and has `exceeded` that many, if any.
    pub fn end(self, cause: Cause, spent: u64, exceeded: Option<u64>) {
        self.0.end(cause, spent, exceeded)
    }
}

/// What is kept of a run.
pub struct Run<'a>(&'a mut bindings::bpf_run);

impl Run<'_> {
    /// A gap between checkpoints that is longer is not the program's: its task was preempted, or
    /// its machine, or it has waited in a helper.
    const GAP: u64 = 10_000_000;

    /// Takes the time. Returns how long it has been since the checkpoint before, or [`None`] if
    /// this is the first one.
    ///
    /// What has taken time here has taken it from the run outside, too: that is looked at as soon
    /// as it goes on.
    #[inline]
    pub fn advance(&mut self, now: u64) -> Option<u64> {
        let last = core::mem::replace(&mut self.0.last, now);
        self.0.fuel = bindings::BPF_NO_FUEL;
        if last == 0 {
            self.0.spent = Self::spent_before(self.0.spent, now);
            self.0.handed = self.0.spent;
            // Of a chain of tail calls, each program has a section of its own.
            self.0.section = self.0.spent & !3;
            return None;
        }

        let gap = now.saturating_sub(last);
        self.0.spent = self.0.spent.saturating_add(gap.min(Self::GAP));
        Some(gap)
    }

    /// Returns the time, in ns, that has been spent by programs which have come before by tail
    /// calls, and since then, from what the run was handed.
    #[cold]
    fn spent_before(handed: u64, now: u64) -> u64 {
        const SHIFT: u32 = bindings::BPF_RUN_HANDED_SHIFT;
        const LAST: u32 = bindings::BPF_RUN_HANDED_LAST;
        let handed = handed ^ bindings::BPF_RUN_HANDED;

        if handed >> bindings::BPF_RUN_HANDED_BITS != 0 {
            return 0;
        }
        let gap = (now >> SHIFT).wrapping_sub(handed) & ((1 << LAST) - 1);
        // The clock may go back a little where NMIs read it.
        let gap = if gap < 1 << (LAST - 1) { gap } else { 0 };
        ((handed >> LAST) << SHIFT).saturating_add((gap << SHIFT).min(Self::GAP))
    }

    /// Returns the time that the run has taken, in ns, without what was not the program's.
    #[inline]
    pub fn spent(&self) -> u64 {
        self.0.spent
    }

    /// Returns what of that programs have taken which came before by tail calls, in ns.
    #[inline]
    pub fn handed(&self) -> u64 {
        self.0.handed
    }

    /// Returns for how long, in ns, the run has been in a context of the class, a number from 0 to
    /// 3, that it is in now.
    #[inline]
    pub fn in_class(&mut self, class: u8) -> u64 {
        let class = u64::from(class & 3);

        if self.0.section & 3 != class {
            self.0.section = (self.0.spent & !3) | class;
        }
        self.0.spent.saturating_sub(self.0.section & !3)
    }
}

/// The deadline of a program, and what became of its runs.
///
/// # Invariants
///
/// As the verifier has made it; the fields that change are written by relaxed atomic accesses.
#[repr(transparent)]
pub struct Deadline(Opaque<bindings::bpf_deadline>);

// SAFETY: By the type invariants.
unsafe impl Sync for Deadline {}

macro_rules! changing {
    ($($field:ident: $type:ty;)*) => {$(
        #[inline]
        fn $field(&self) -> &Atomic<$type> {
            // SAFETY: By the type invariants; the field lives as long as `self`.
            unsafe { Atomic::from_ptr((&raw mut (*self.0.get()).$field).cast()) }
        }
    )*}
}

impl Deadline {
    changing! {
        stopped: u32;
        refill: u32;
        looked_at: u64;
        row: u32;
        longest: u64;
        deadlines: u64;
        kills: u64;
        ended_at: u64;
        spent: u64;
        exceeded: u64;
        held: u64;
    }

    /// Calls `f` with the deadline of a program, or returns [`None`] if it has none.
    ///
    /// Returns `ENOENT` if there is no program with the id. Task context.
    pub fn of_program<R>(id: u32, f: impl FnOnce(&Self) -> R) -> Result<Option<R>> {
        // SAFETY: Safe for any number.
        let prog = from_err_ptr(unsafe { bindings::bpf_prog_by_id(id) })?;
        // SAFETY: It does not go, nor does its table, which may be missing, until it is put.
        let deadline = unsafe {
            (*(*prog).aux)
                .unwind
                .cast::<Table>()
                .as_ref()
                .and_then(|table| table.deadline())
        };
        let result = deadline.map(f);

        // SAFETY: The reference is that of above.
        unsafe { bindings::bpf_prog_put(prog) };
        Ok(result)
    }

    /// Returns the deadline that the program brings along, in ns.
    #[inline]
    pub fn limit(&self) -> Option<u64> {
        // SAFETY: By the type invariants.
        match unsafe { (*self.0.get()).limit } {
            0 => None,
            limit => Some(limit),
        }
    }

    #[inline]
    pub(super) fn has_exception_callback(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { (*self.0.get()).callback }
    }

    /// Returns the fuel that lasts about a millisecond.
    #[inline]
    pub fn fuel(&self) -> u32 {
        self.refill().load(Relaxed)
    }

    /// Sets the fuel.
    #[inline]
    pub fn set_fuel(&self, fuel: u32) {
        self.refill().store(fuel, Relaxed)
    }

    /// Notes that a run is looked at. Returns for how long, in ns, none has been.
    #[inline]
    pub fn note_look(&self, now: u64) -> u64 {
        now.saturating_sub(self.looked_at().xchg(now, Relaxed))
    }

    /// Returns whether the program is not to run.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.stopped().load(Relaxed) != 0
    }

    /// Stops the program: runs end at their next checkpoint, and none begins. `why` is one of `enum
    /// bpf_stopped`. Returns `EALREADY`, and changes nothing, if it is stopped.
    pub fn stop(&self, why: u32) -> Result {
        self.stopped()
            .cmpxchg(bindings::bpf_stopped_BPF_STOPPED_NOT, why, Relaxed)
            .map_err(|_| EALREADY)?;
        Ok(())
    }

    /// Lets the program run again. Returns `EALREADY` if it is not stopped.
    pub fn resume(&self) -> Result {
        self.row().store(0, Relaxed);
        match self
            .stopped()
            .xchg(bindings::bpf_stopped_BPF_STOPPED_NOT, Relaxed)
        {
            bindings::bpf_stopped_BPF_STOPPED_NOT => Err(EALREADY),
            _ => Ok(()),
        }
    }

    /// Notes how long a run has taken until now.
    #[inline]
    pub fn note_run(&self, spent: u64) {
        // Who comes between is as good.
        if spent > self.longest().load(Relaxed) {
            self.longest().store(spent, Relaxed);
        }
    }

    /// Notes that a run is ended, `guilty` if it is the program that has taken the time. Returns how
    /// many were in succession for which it was, each less than `apart` after the one before.
    pub fn note_end(
        &self,
        now: u64,
        spent: u64,
        exceeded: Option<u64>,
        guilty: bool,
        apart: Duration,
    ) -> u32 {
        let before = self.ended_at().xchg(now, Relaxed);
        self.spent().store(spent, Relaxed);
        self.exceeded().store(exceeded.unwrap_or(0), Relaxed);
        if exceeded.is_none() {
            if self.stopped().load(Relaxed) == bindings::bpf_stopped_BPF_STOPPED_OPERATOR {
                self.kills().fetch_add(1, Relaxed);
            }
            return 0;
        }
        self.deadlines().fetch_add(1, Relaxed);
        if !guilty {
            return 0;
        }
        if u128::from(now.saturating_sub(before)) >= apart.as_nanos() {
            self.row().store(0, Relaxed);
        }
        self.row().fetch_add(1, Relaxed).saturating_add(1)
    }

    /// Notes the slots that were released when the last run was ended, or a further part of it.
    pub(super) fn note_held(&self, slots: u64, further: bool) {
        let before = if further {
            self.held().load(Relaxed)
        } else {
            0
        };

        self.held().store(before | slots, Relaxed)
    }

    /// Returns how long the run that was ended last had taken, and what it exceeded, in ns.
    pub fn last_end(&self) -> (u64, Option<u64>) {
        let exceeded = self.exceeded().load(Relaxed);

        (
            self.spent().load(Relaxed),
            (exceeded != 0).then_some(exceeded),
        )
    }
}

/// A module's [`Supervise`].
pub struct Checkpoints(Opaque<bindings::bpf_deadline_ops>);

// SAFETY: Nothing is written after `new`.
unsafe impl Sync for Checkpoints {}

impl Checkpoints {
    /// Describes what a module does.
    pub const fn new<T: Supervise>(module: &'static ThisModule) -> Self {
        Self(Opaque::new(bindings::bpf_deadline_ops {
            owner: module.as_ptr(),
            checkpoint: Some(Self::checkpoint::<T>),
        }))
    }

    /// Registers it: programs that are loaded from now on have checkpoints, and keep the module
    /// loaded.
    ///
    /// Returns `EBUSY` if there is one already.
    pub fn register(&'static self) -> Result<Registered> {
        // SAFETY: The operations live as long as the module, which programs that use them pin.
        to_result(unsafe { bindings::bpf_deadline_register(self.0.get()) })?;
        // INVARIANT: Registered just now.
        Ok(Registered(self))
    }

    /// # Safety
    ///
    /// To be called by `bpf_checkpoint()` only.
    unsafe extern "C" fn checkpoint<T: Supervise>(regs: *mut bindings::bpf_unwind_regs) -> c_int {
        // SAFETY: The registers of a program at a checkpoint, which waits; it has a table.
        let throw = unsafe { Throw::from_raw(regs) };
        let Some(deadline) = throw.table().deadline() else {
            return c_int::MAX;
        };

        match T::supervise(Checkpoint { throw, deadline }) {
            Some(fuel) => fuel.try_into().unwrap_or(c_int::MAX),
            None => -1,
        }
    }
}

/// [`Checkpoints`] that programs are loaded with until this is dropped.
///
/// # Invariants
///
/// They are registered.
pub struct Registered(&'static Checkpoints);

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::bpf_deadline_unregister(self.0 .0.get()) };
    }
}
