// SPDX-License-Identifier: GPL-2.0

//! x86: frames as `arch/x86/net/bpf_jit_comp.c` makes them.
//!
//! ```text
//!   fp + 8      return address
//!   fp          frame pointer of the caller
//!   fp - saved  those of r15, r14, r13, rbx, r12, upwards, that the function saves
//! ```
//!
//! The trampoline of a traced function lies between that and its caller:
//!
//! ```text
//!   fp + 16     return address in the caller
//!   fp + 8      return address in the traced function, which the trampoline skips
//!   fp          frame pointer of the caller
//! ```
//!
//! If the traced function has jumped to the trampoline, the second is missing.

use super::Function;
use crate::{
    bindings,
    prelude::*, //
};
use core::mem::size_of;

const WORD: usize = size_of::<usize>();

/// What a function finds when the one that it has called returns.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) ip: usize,
    pub(super) sp: usize,
    pub(super) fp: usize,
}

impl Caller {
    /// Returns the caller of a function.
    ///
    /// # Safety
    ///
    /// `fp` is the frame pointer of a function of a program, which is executing.
    #[inline]
    pub(super) unsafe fn of(fp: usize) -> Self {
        // SAFETY: By the safety requirements.
        let [caller_fp, ip] = unsafe { *(fp as *const [usize; 2]) };

        Self {
            ip,
            sp: fp.wrapping_add(2 * WORD),
            fp: caller_fp,
        }
    }

    /// Returns the caller of a traced function, which `trampoline` has called in between.
    ///
    /// Returns [`None`] if there is no trampoline.
    pub(super) fn behind(trampoline: Self, traced: &Function) -> Option<Self> {
        let fp = trampoline.fp;
        let address = read(fp.wrapping_add(WORD))?;
        let end = if traced.code().contains(&address) {
            fp.wrapping_add(3 * WORD)
        } else {
            fp.wrapping_add(2 * WORD)
        };

        Some(Self {
            ip: read(end.wrapping_sub(WORD))?,
            sp: end,
            fp: read(fp)?,
        })
    }

    /// Returns where the return address that leads to it is.
    pub(super) fn return_address(&self) -> *mut usize {
        self.sp.wrapping_sub(WORD) as *mut usize
    }
}

/// Reads from an address of which nothing is known.
fn read(address: usize) -> Option<usize> {
    let mut word = 0usize;

    // SAFETY: `word` is valid for writes. An address that cannot be read is an error.
    let err = unsafe {
        bindings::copy_from_kernel_nofault((&raw mut word).cast(), address as *const c_void, WORD)
    };
    (err == 0).then_some(word)
}

/// Returns to `caller` with `value`.
#[inline]
pub(super) fn return_to(regs: &mut bindings::bpf_unwind_regs, caller: Caller, value: u64) {
    regs.ip = caller.ip as u64;
    regs.sp = caller.sp as u64;
    regs.bp = caller.fp as u64;
    regs.ret = value;
}

/// Registers that a function saves, `BIT(0)` the lowest one on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Saved(u8);

impl Saved {
    pub(super) fn of(function: &Function) -> Self {
        Self(function.raw().saved_regs)
    }

    /// Whether those are all that a function has to preserve for its caller.
    #[inline]
    pub(super) fn is_all(self) -> bool {
        self.0 == 0b11111
    }
}

/// Restores the registers of the caller: those that the function has saved. The others are in
/// `regs` already, unless they are all saved.
///
/// # Safety
///
/// `fp` is the frame pointer of a function that has saved registers `saved` bytes below.
#[inline]
pub(super) unsafe fn restore(
    regs: &mut bindings::bpf_unwind_regs,
    fp: usize,
    saved: usize,
    which: Saved,
) {
    let mut from = fp.wrapping_sub(saved) as *const u64;
    let mut which = which.0;

    let [rbx, r12, r13, r14, r15] = &mut regs.saved;
    for register in [r15, r14, r13, rbx, r12] {
        if which & 1 != 0 {
            // SAFETY: By the safety requirements.
            *register = unsafe { *from };
            from = from.wrapping_add(1);
        }
        which >>= 1;
    }
}

/// Goes on in an exception callback, which takes over the frame.
#[inline]
pub(super) fn finish(regs: &mut bindings::bpf_unwind_regs, fp: usize, saved: usize, callback: u64) {
    regs.ip = callback;
    regs.sp = fp.wrapping_sub(saved) as u64;
    regs.bp = fp as u64;
    regs.args = [regs.cookie, regs.sp, regs.bp];
}

/// Has `bpf_throw_resume()`, returned to instead of to `address`, throw again with `state`.
#[inline]
pub(super) fn resume(regs: &mut bindings::bpf_unwind_regs, address: usize, state: u64) {
    regs.saved = [0, regs.cookie, regs.aux as u64, address as u64, state];
}

/// Calls `bpf_throw()` where the program has called `bpf_throw_stub()`.
pub(super) fn give_up(regs: &mut bindings::bpf_unwind_regs, bpf_throw: u64) {
    // The return address is still where that call has put it.
    regs.sp = regs.sp.wrapping_sub(WORD as u64);
    regs.ip = bpf_throw;
    regs.args[0] = regs.cookie;
}
