// SPDX-License-Identifier: GPL-2.0

//! Who hears of a throw.

use super::{
    Throw,
    Walk, //
};
use crate::{
    bindings,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    tracepoint::declare_trace, //
};
use core::ptr;

impl Throw<'_> {
    /// Counts the throw in the program's fdinfo.
    #[inline]
    pub fn count(&self) {
        // SAFETY: The program runs.
        unsafe { bindings::bpf_prog_inc_throws_counter(self.prog()) };
    }

    /// Fires the tracepoint `bpf_prog_throw`.
    #[inline]
    pub fn trace(&self, walk: &Walk<'_>, released: u32) {
        // SAFETY: The program runs.
        unsafe {
            bpf_prog_throw(
                self.prog(),
                self.cookie(),
                self.address(),
                walk.frames(),
                released,
                self.goes_on().is_some(),
            )
        };
    }

    /// Notes what was released when a run was ended, and fires the tracepoint `bpf_prog_terminate`.
    pub fn trace_end(&self, walk: &Walk<'_>, released: u64) {
        let (Some(deadline), Some((spent, exceeded))) = (self.table().deadline(), self.ended())
        else {
            return;
        };
        let resumed = self.goes_on().is_some();

        deadline.note_held(released, resumed);
        // SAFETY: The program runs.
        unsafe {
            bpf_prog_terminate(
                self.prog(),
                exceeded.unwrap_or(0),
                spent,
                self.address(),
                walk.frames(),
                released.count_ones(),
                resumed,
            )
        };
    }

    /// Returns whether a report to the program's stderr stream is due: the first, then at most one
    /// a second. It is left to whoever is told so.
    #[inline]
    pub fn take_report(&self) -> bool {
        // SAFETY: The program runs. Volatile reads, since both change.
        let (next, now) = unsafe {
            (
                ptr::read_volatile(self.next_report()),
                ptr::read_volatile(&raw const bindings::jiffies),
            )
        };

        // As time_after_eq() does.
        now.wrapping_sub(next) as isize >= 0 && self.set_next_report(next, now)
    }

    #[cold]
    fn set_next_report(&self, next: usize, now: usize) -> bool {
        // `HZ` of the bindings is that of user space.
        let a_second = bindings::CONFIG_HZ as usize;
        // SAFETY: The program runs, and the field is written here only.
        let report = unsafe { Atomic::from_ptr(self.next_report()) };

        report
            .cmpxchg(next, now.wrapping_add(a_second), Relaxed)
            .is_ok()
    }

    fn next_report(&self) -> *mut usize {
        // SAFETY: The program runs.
        unsafe { &raw mut (*self.program().as_ptr()).next_throw_report }
    }

    fn prog(&self) -> *mut bindings::bpf_prog {
        // SAFETY: The program runs.
        unsafe { (*self.program().as_ptr()).prog }
    }
}

declare_trace! {
    /// # Safety
    ///
    /// `prog` points to a program that is loaded.
    unsafe fn bpf_prog_throw(
        prog: *const bindings::bpf_prog,
        cookie: u64,
        ip: usize,
        frames: u32,
        released: u32,
        resumed: bool,
    );
}

declare_trace! {
    /// # Safety
    ///
    /// `prog` points to a program that is loaded.
    unsafe fn bpf_prog_terminate(
        prog: *const bindings::bpf_prog,
        deadline: u64,
        spent: u64,
        ip: usize,
        frames: u32,
        released: u32,
        resumed: bool,
    );
}
