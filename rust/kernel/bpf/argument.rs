// SPDX-License-Identifier: GPL-2.0

//! What a kfunc takes and returns: how each type is spelled in C and read from registers.
//!
//! The verifier checks a call against the C prototype in BTF alone. So a type states that
//! prototype ([`Argument::TYPE`], [`Argument::SUFFIX`]), and converts only what the verifier
//! guarantees for it.
//!
//! C documentation: [`Documentation/bpf/kfuncs.rst`](srctree/Documentation/bpf/kfuncs.rst)

use crate::{
    bindings,
    prelude::*,
    task::Task, //
};

/// One call of a kfunc by a BPF program.
///
/// Arguments are borrowed for as long as the call lasts, no longer.
///
/// # Invariants
///
/// The value lives on the stack of a kfunc that a BPF program called.
pub struct Call(());

impl Call {
    /// Begins a call.
    ///
    /// # Safety
    ///
    /// The caller is the entry of a kfunc, called by a BPF program, and drops the value before it
    /// returns.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn begin() -> Self {
        // INVARIANT: By the safety requirements.
        Self(())
    }
}

/// A type that a BPF program can pass to a kfunc in one register.
///
/// # Safety
///
/// For a parameter declared in C as [`TYPE`](Self::TYPE) with a name ending in
/// [`SUFFIX`](Self::SUFFIX), of a kfunc with [`FLAGS`](Self::FLAGS) and without `KF_RCU`, what the
/// verifier lets through meets the requirements of [`from_abi`](Self::from_abi), and
/// [`Abi`](Self::Abi) is passed like `TYPE`.
#[diagnostic::on_unimplemented(
    message = "a BPF program cannot pass `{Self}` to a kfunc",
    label = "not an argument of a kfunc",
    note = "a kfunc takes integers, `bool`, `&CStr`, `&Task` and other `bpf::Struct`s, `&Program`, \
            and `#[size(name)]` memory of type `Mem` or `MemMut`"
)]
pub unsafe trait Argument<'call>: Sized {
    /// The type as the entry of the kfunc receives it.
    type Abi;

    /// The type in C, in names that vmlinux's BTF knows.
    const TYPE: &'static str;

    /// What the name of the parameter ends in to tell the verifier what to check.
    const SUFFIX: &'static str = "";

    /// The kfunc flags that such a parameter needs.
    const FLAGS: u32 = 0;

    /// Makes the argument of what was passed.
    ///
    /// # Safety
    ///
    /// The verifier let `abi` through for a parameter of this type, in the call `call`.
    unsafe fn from_abi(abi: Self::Abi, call: &'call Call) -> Self;
}

/// A type that a BPF program can pass to a kfunc as a pointer and a size.
///
/// # Safety
///
/// For a parameter declared in C as [`TYPE`](Self::TYPE) that a `u32` parameter with a name ending
/// in `__sz` follows, what the verifier lets through meets the requirements of
/// [`from_abi`](Self::from_abi).
#[diagnostic::on_unimplemented(
    message = "a BPF program cannot pass `{Self}` to a kfunc as a pointer and a size",
    label = "not memory",
    note = "`#[size(name)]` is for parameters of type `Mem` and `MemMut`"
)]
pub unsafe trait SizedArgument<'call>: Sized {
    /// The pointer's type in C, in names that vmlinux's BTF knows.
    const TYPE: &'static str;

    /// Makes the argument of what was passed.
    ///
    /// # Safety
    ///
    /// The verifier let `ptr` and `size` through for parameters of this type, in the call `call`.
    unsafe fn from_abi(ptr: *mut c_void, size: u32, call: &'call Call) -> Self;
}

/// A type that a kfunc can return to a BPF program.
///
/// # Safety
///
/// [`Abi`](Self::Abi) is returned like the C type [`TYPE`](Self::TYPE), which is `void` or an
/// integer.
#[diagnostic::on_unimplemented(
    message = "a kfunc cannot return `{Self}` to a BPF program",
    label = "not a return type of a kfunc",
    note = "a kfunc returns nothing, an integer, a `bool` or a `Result`"
)]
pub unsafe trait Return {
    /// The type as the entry of the kfunc returns it.
    type Abi;

    /// The type in C, in names that vmlinux's BTF knows.
    const TYPE: &'static str;

    /// Makes what is returned of the value.
    fn into_abi(self) -> Self::Abi;
}

/// A kernel structure to which a BPF program can pass a pointer.
///
/// # Safety
///
/// `Self` has the layout of the C type that [`TYPE`](Self::TYPE) points to, which is a structure
/// that does not consist of scalars only (to those, the verifier lets any memory pass). A pointer
/// to it that the verifier trusts can be used as a `&Self` for the length of the call.
#[diagnostic::on_unimplemented(
    message = "a BPF program cannot pass a pointer to `{Self}` to a kfunc",
    label = "not a structure of the kernel",
    note = "a kfunc takes pointers to structures that implement `bpf::Struct`, such as `Task`, and \
            strings as `&CStr`"
)]
pub unsafe trait Struct {
    /// The type of the pointer in C, in names that vmlinux's BTF knows.
    const TYPE: &'static str;
}

// SAFETY: `Task` is a transparent wrapper of `struct task_struct`. A trusted pointer is the
// current task, a parameter of a tracepoint or holds a reference: the task cannot be freed during
// the call.
unsafe impl Struct for Task {
    const TYPE: &'static str = "struct task_struct *";
}

// SAFETY: The verifier lets pass only non-null pointers to the type that it trusts: other kfuncs
// than those with `KF_RCU` take no others.
unsafe impl<'call, T: Struct> Argument<'call> for &'call T {
    type Abi = *const T;

    const TYPE: &'static str = T::TYPE;

    #[inline]
    unsafe fn from_abi(abi: Self::Abi, _call: &'call Call) -> Self {
        // SAFETY: The verifier trusts `abi`, so by the safety requirements of `Struct` it is a
        // valid reference for the call.
        unsafe { &*abi }
    }
}

// SAFETY: As for `&T`, and the suffix lets null pass, too.
unsafe impl<'call, T: Struct> Argument<'call> for Option<&'call T> {
    type Abi = *const T;

    const TYPE: &'static str = T::TYPE;
    const SUFFIX: &'static str = "__nullable";

    #[inline]
    unsafe fn from_abi(abi: Self::Abi, _call: &'call Call) -> Self {
        // SAFETY: `abi` is null, or the verifier trusts it, so by the safety requirements of
        // `Struct` it is a valid reference for the call.
        unsafe { abi.as_ref() }
    }
}

// SAFETY: By the suffix the verifier lets pass only pointers into the value of a map that is
// read-only for programs and frozen, so nobody changes it, and that has a NUL behind the pointer.
// The program holds the map.
unsafe impl<'call> Argument<'call> for &'call CStr {
    type Abi = *const c_char;

    const TYPE: &'static str = "const char *";
    const SUFFIX: &'static str = "__str";

    #[inline]
    unsafe fn from_abi(abi: Self::Abi, _call: &'call Call) -> Self {
        // SAFETY: `abi` points to a NUL-terminated string that nobody changes during the call. So
        // it is valid for reads up to that NUL, which is the only one, and shorter than memory.
        unsafe {
            // `CStr::from_ptr()` would do, were it not for a check that adding 1 does not
            // overflow: kfuncs must not bring panics into modules.
            let len = bindings::strlen(abi).unchecked_add(1);
            CStr::from_bytes_with_nul_unchecked(core::slice::from_raw_parts(abi.cast(), len))
        }
    }
}

/// Scalars: BPF passes 64 bits and the verifier checks none of them. `$abi` is at least as wide as
/// an `int`, so that no compiler trusts the bits above the value's own to be zero or its sign.
macro_rules! scalars {
    ($($ty:ty, $abi:ty, $c:literal;)*) => {$(
        // SAFETY: Any value may be passed. `$abi` is the integer of the size and sign of the C
        // type, or as C promotes it.
        unsafe impl<'call> Argument<'call> for $ty {
            type Abi = $abi;

            const TYPE: &'static str = $c;

            #[inline]
            unsafe fn from_abi(abi: $abi, _call: &'call Call) -> Self {
                // CAST: The bits above the value's own mean nothing.
                abi as $ty
            }
        }

        // SAFETY: An integer is returned as the C type of its size and sign.
        unsafe impl Return for $ty {
            type Abi = $ty;

            const TYPE: &'static str = $c;

            #[inline]
            fn into_abi(self) -> $ty {
                self
            }
        }
    )*}
}

scalars! {
    u8, u32, "u8";
    u16, u32, "u16";
    u32, u32, "u32";
    u64, u64, "u64";
    usize, usize, "size_t";
    i8, i32, "s8";
    i16, i32, "s16";
    i32, i32, "s32";
    i64, i64, "s64";
    isize, isize, "ssize_t";
}

// SAFETY: Any value may be passed.
unsafe impl<'call> Argument<'call> for bool {
    type Abi = u32;

    const TYPE: &'static str = "bool";

    #[inline]
    unsafe fn from_abi(abi: u32, _call: &'call Call) -> Self {
        // CAST: C passes a `bool` in one byte. A program may put anything there.
        abi as u8 != 0
    }
}

// SAFETY: A `bool` is returned as in C.
unsafe impl Return for bool {
    type Abi = bool;

    const TYPE: &'static str = "bool";

    #[inline]
    fn into_abi(self) -> bool {
        self
    }
}

// SAFETY: Nothing is returned.
unsafe impl Return for () {
    type Abi = ();

    const TYPE: &'static str = "void";

    #[inline]
    fn into_abi(self) {}
}

// SAFETY: `c_int` is C's `int`: zero or the negative error number.
unsafe impl Return for Result {
    type Abi = c_int;

    const TYPE: &'static str = "int";

    #[inline]
    fn into_abi(self) -> c_int {
        match self {
            Ok(()) => 0,
            Err(err) => err.to_errno(),
        }
    }
}
