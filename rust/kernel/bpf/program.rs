// SPDX-License-Identifier: GPL-2.0

//! The BPF program that calls a kfunc.

use super::{
    Argument,
    Call, //
};
use crate::{
    bindings,
    fmt,
    str::CharArray,
    types::Opaque, //
};
use core::ptr;

/// A loaded BPF program, as `struct bpf_prog_aux` describes it.
///
/// A kfunc that has a last parameter of type `&Program` is passed the program that calls it (the
/// main program, if a subprogram does). It is an implicit argument: programs do not see it.
///
/// Every method works in any context, NMI included.
///
/// # Invariants
///
/// The program is loaded, so what it is made of does not change any more.
#[repr(transparent)]
pub struct Program(Opaque<bindings::bpf_prog_aux>);

// SAFETY: The methods only read what does not change, or reads of what does are atomic.
unsafe impl Sync for Program {}

impl Program {
    /// Returns the name, which is empty if the program was loaded without one.
    pub fn name(&self) -> CharArray<{ bindings::BPF_OBJ_NAME_LEN as usize }> {
        // SAFETY: `self` points to a valid `bpf_prog_aux`, whose `name` is valid for reads.
        unsafe { CharArray::read(&raw const (*self.as_ptr()).name) }
    }

    /// Returns the id by which user space finds the program, or 0 once it has been unloaded.
    pub fn id(&self) -> u32 {
        // SAFETY: `self` points to a valid `bpf_prog_aux`. A volatile read, since unloading the
        // program clears the id.
        unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).id) }
    }

    /// Returns the tag, a hash of the program's instructions.
    pub fn tag(&self) -> Tag {
        // SAFETY: `self` points to a valid `bpf_prog_aux`, and its `prog` to the program that it
        // belongs to. The bytes of both fields of the union are initialized.
        Tag(unsafe { (*(*self.as_ptr()).prog).__bindgen_anon_1.tag })
    }

    /// Returns a raw pointer to the C structure.
    #[inline]
    pub fn as_ptr(&self) -> *mut bindings::bpf_prog_aux {
        self.0.get()
    }
}

// SAFETY: The verifier passes the program that it loads, which is there as long as it runs. The
// flag makes the argument implicit.
unsafe impl<'call> Argument<'call> for &'call Program {
    type Abi = *const Program;

    const TYPE: &'static str = "struct bpf_prog_aux *";
    const FLAGS: u32 = bindings::KF_IMPLICIT_ARGS;

    #[inline]
    unsafe fn from_abi(abi: Self::Abi, _call: &'call Call) -> Self {
        // SAFETY: By the safety requirements, `abi` points to the program that calls.
        // INVARIANT: A program that runs has been loaded.
        unsafe { &*abi }
    }
}

/// The tag of a [`Program`], shown as `bpftool` does: as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; bindings::BPF_TAG_SIZE as usize]);

impl Tag {
    /// Returns the bytes of the tag.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
