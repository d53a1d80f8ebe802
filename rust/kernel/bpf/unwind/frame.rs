// SPDX-License-Identifier: GPL-2.0

//! The frames of a program on the kernel's stack.

use super::{
    arch::{
        self,
        Caller, //
    },
    Boundary,
    Function,
    Slot,
    Table, //
};
use crate::bindings;
use core::ptr;

/// The frame of a function of a program.
///
/// # Invariants
///
/// `function` is executing, and `fp` is its frame pointer: the frame is as the JIT lays it out,
/// valid for reads and writes, and nothing but the unwinding of its program uses it.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub(super) function: &'a Function,
    pub(super) fp: usize,
}

impl<'a> Frame<'a> {
    /// # Safety
    ///
    /// The frame meets the invariants for `'a`.
    #[inline]
    pub(super) unsafe fn new(function: &'a Function, fp: usize) -> Self {
        // INVARIANT: By the safety requirements.
        Self { function, fp }
    }

    /// Returns the function.
    #[inline]
    pub fn function(&self) -> &'a Function {
        self.function
    }

    /// Returns why unwinding stops here, if it does.
    #[inline]
    pub fn boundary(&self) -> Option<Boundary> {
        self.function.boundary()
    }

    /// Returns what the program sees as r10.
    #[inline]
    fn r10(&self) -> usize {
        let stack = self.function.raw().private_stack;

        if stack.is_null() {
            self.fp
        } else {
            // SAFETY: It is an address in memory of each CPU, and BPF programs do not migrate.
            unsafe { bindings::this_cpu_ptr(stack) as usize }
        }
    }

    /// Takes what is in the slots, in the order of release.
    ///
    /// What the iterator returns is in no slot any more.
    #[inline(always)]
    pub fn take_held(self, table: &'a Table) -> Held<'a> {
        Held {
            slots: table.slots(),
            left: self.function.raw().slots,
            area: self.r10().wrapping_sub(self.function.raw().area.into()) as *mut usize,
        }
    }

    /// Returns what is kept of the run that ends with the frame.
    #[inline]
    pub(super) fn run(&self) -> Option<*mut bindings::bpf_run> {
        let run = usize::from(self.function.raw().run);

        (run != 0).then(|| self.r10().wrapping_sub(run) as *mut _)
    }

    /// Has the function leave its loops at their next `may_goto`, as if they had taken too long
    /// for that.
    pub(super) fn leave_loops(&self) {
        const ONE_MORE_ROUND: bindings::bpf_timed_may_goto = bindings::bpf_timed_may_goto {
            count: 1,
            timestamp: 1,
        };
        let may_goto = usize::from(self.function.raw().may_goto);
        if may_goto == 0 {
            return;
        }

        let state = self.r10().wrapping_sub(may_goto) as *mut bindings::bpf_timed_may_goto;
        // SAFETY: By the type invariants. It is written when the function begins, and not in use:
        // the function is not at a `may_goto`.
        unsafe {
            if (*state).count != 0 {
                *state = ONE_MORE_ROUND;
            }
        }
    }

    /// Returns whether the registers of the caller are known when unwinding from another frame,
    /// or from this one, stops here.
    #[inline]
    pub(super) fn can_end(&self, from: &Frame<'_>) -> bool {
        self.fp == from.fp || arch::Saved::of(self.function).is_all()
    }

    /// Returns where to note that a throw goes on behind the helper that the function has called.
    #[inline]
    pub(super) fn pending(&self) -> Option<*mut bindings::bpf_unwind_pending> {
        let pending = usize::from(self.function.raw().pending);

        (pending != 0).then(|| self.r10().wrapping_sub(pending) as *mut _)
    }

    /// Returns what the function returns to.
    #[inline]
    pub(super) fn returns_to(&self) -> Caller {
        // SAFETY: By the type invariants.
        unsafe { Caller::of(self.fp) }
    }

    /// Returns the frame of the caller, if that is a function of the program, too.
    #[inline]
    pub(super) fn caller(&self, table: &'a Table) -> Option<Frame<'a>> {
        let caller = self.returns_to();
        let function = table.caller(caller.ip)?;

        // SAFETY: By the type invariants, `function` has called and waits for the return.
        Some(unsafe { Self::new(function, caller.fp) })
    }

    /// Returns how far below the frame pointer a boundary saves registers.
    #[inline]
    pub(super) fn saved(&self) -> usize {
        self.function.raw().saved.into()
    }

    /// Ends a boundary.
    #[inline]
    pub(super) fn end(&self, regs: &mut bindings::bpf_unwind_regs) {
        arch::return_to(regs, self.returns_to(), self.function.raw().stop);
        // SAFETY: By the type invariants.
        unsafe { arch::restore(regs, self.fp, self.saved(), arch::Saved::of(self.function)) };
    }

    /// Ends a boundary, and the run with it.
    pub(super) fn end_run(&self, regs: &mut bindings::bpf_unwind_regs) {
        self.leave_run();
        self.end(regs);
    }

    /// Notes that what is left of the function does not belong to the run.
    #[inline]
    pub(super) fn leave_run(&self) {
        if let Some(run) = self.run() {
            Self::give_back_fuel(run);
        }
    }

    #[cold]
    fn give_back_fuel(run: *mut bindings::bpf_run) {
        // SAFETY: By the type invariants: the frame where the run ends still exists.
        unsafe { bindings::bpf_run_ended(run) }
    }
}

/// What a frame holds: an iterator over slots that were filled, with what was in them.
pub struct Held<'a> {
    slots: &'a [Slot],
    /// Slots that are still to be looked at.
    left: u64,
    area: *mut usize,
}

impl<'a> Iterator for Held<'a> {
    /// The number of the slot, the slot, and what is to be released.
    type Item = (u32, &'a Slot, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        while self.left != 0 {
            let i = self.left.trailing_zeros();
            self.left &= self.left.wrapping_sub(1);

            let slot = self.slots.get(i as usize)?;
            let content = self.area.wrapping_add(i as usize);
            // SAFETY: The invariants of `Frame` and of `Table`: the function has this slot.
            let held = unsafe { ptr::replace(content, 0) };
            if held != 0 {
                return Some((i, slot, held));
            }
        }
        None
    }
}
