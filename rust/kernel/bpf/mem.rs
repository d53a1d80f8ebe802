// SPDX-License-Identifier: GPL-2.0

//! Memory that a BPF program passes to a kfunc as a pointer and a size.

use super::{
    Call,
    SizedArgument, //
};
use crate::prelude::*;
use core::{
    marker::PhantomData,
    ptr, //
};

/// Memory that a kfunc reads.
///
/// Not a slice: it may be the value of a map, which user space and programs on other CPUs write
/// at any time. So what is read twice may differ; [`copy_to`](Self::copy_to) reads once.
///
/// The verifier wants memory that can be read *and* written, as for [`MemMut`]: a program can pass
/// its stack or the value of a map, but not read-only memory such as a `static const` array, nor
/// null, even with a size of 0.
///
/// # Invariants
///
/// `ptr` is valid for reads of `len` bytes for `'call`.
#[derive(Clone, Copy)]
pub struct Mem<'call> {
    ptr: *const u8,
    len: u32,
    _call: PhantomData<&'call Call>,
}

impl Mem<'_> {
    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        // CAST: `u32` fits wherever BPF runs.
        self.len as usize
    }

    /// Returns whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies as many bytes as both hold, and returns how many those are.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let len = self.len().min(to.len());

        for (i, byte) in to.iter_mut().take(len).enumerate() {
            // SAFETY: By the type invariants, as `i < len <= self.len`. A volatile read, since the
            // byte may change at any time.
            *byte = unsafe { ptr::read_volatile(self.ptr.add(i)) };
        }
        len
    }

    /// Returns a pointer for C functions that read the memory.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }
}

/// Memory that a kfunc reads and writes.
///
/// See [`Mem`] for why it is not a slice.
///
/// # Invariants
///
/// `mem.ptr` is valid for writes, too, and was made from a `*mut`.
pub struct MemMut<'call> {
    mem: Mem<'call>,
}

impl<'call> MemMut<'call> {
    /// Returns the memory for reading.
    #[inline]
    pub fn as_mem(&self) -> Mem<'call> {
        self.mem
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.mem.len()
    }

    /// Returns whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.mem.is_empty()
    }

    /// Copies as many bytes as both hold, and returns how many those are.
    pub fn copy_from(&mut self, from: &[u8]) -> usize {
        let len = self.len().min(from.len());
        let ptr = self.as_mut_ptr();

        for (i, byte) in from.iter().take(len).enumerate() {
            // SAFETY: By the type invariants, as `i < len <= self.len`. A volatile write, since
            // others may read the byte at any time.
            unsafe { ptr::write_volatile(ptr.add(i), *byte) };
        }
        len
    }

    /// Returns a pointer for C functions that write the memory.
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.mem.ptr.cast_mut()
    }
}

// SAFETY: Without `__nullable`, the verifier refuses null, and lets pass only memory that can be
// read and written for `size` bytes as long as the program runs: of its stack, of a map that it
// holds, of a packet, of what a helper or a kfunc gave it, and for syscall programs of the
// context.
unsafe impl<'call> SizedArgument<'call> for Mem<'call> {
    const TYPE: &'static str = "const void *";

    #[inline]
    unsafe fn from_abi(ptr: *mut c_void, size: u32, _call: &'call Call) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            ptr: ptr.cast(),
            len: size,
            _call: PhantomData,
        }
    }
}

// SAFETY: See above.
unsafe impl<'call> SizedArgument<'call> for MemMut<'call> {
    const TYPE: &'static str = "void *";

    #[inline]
    unsafe fn from_abi(ptr: *mut c_void, size: u32, call: &'call Call) -> Self {
        // INVARIANT: By the safety requirements, which are those of `Mem`.
        Self {
            // SAFETY: The requirements are the same.
            mem: unsafe { Mem::from_abi(ptr, size, call) },
        }
    }
}
