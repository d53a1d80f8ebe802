// SPDX-License-Identifier: GPL-2.0

//! Kernel functions that BPF programs call (kfuncs).
//!
//! A kfunc is a safe function marked with [`#[kfunc]`](kfunc). Its signature decides what a BPF
//! program may pass: every parameter type implements [`Argument`] (or [`SizedArgument`]), which
//! says how the type is spelled in C, what the verifier checks and how the registers of the call
//! become a value. A type that BPF cannot pass does not compile.
//!
//! [`kfunc_set!`] lists kfuncs together with the [hooks](hook) that may call them, and makes a
//! [`KfuncSet`] which the module registers when it is initialised.
//!
//! C headers: [`include/linux/btf.h`](srctree/include/linux/btf.h),
//! [`include/linux/btf_ids.h`](srctree/include/linux/btf_ids.h),
//! [`include/linux/bpf.h`](srctree/include/linux/bpf.h)
//!
//! Documentation: [`Documentation/bpf/rust_kfuncs.rst`](srctree/Documentation/bpf/rust_kfuncs.rst)
//!
//! # Examples
//!
//! A set is an item of a module of the crate, not of a function.
//!
//! ```
//! # mod example {
//! use kernel::{
//!     bpf::{
//!         kfunc,
//!         kfunc_set,
//!         Mem,
//!         Program, //
//!     },
//!     prelude::*,
//!     task::Task, //
//! };
//!
//! /// C: `u64 bpf_doc_add(u64 a, u32 b)`.
//! #[kfunc]
//! pub fn bpf_doc_add(a: u64, b: u32) -> u64 {
//!     a.wrapping_add(u64::from(b))
//! }
//!
//! /// C: `int bpf_doc_match(struct task_struct *task__nullable, const char *comm__str)`.
//! #[kfunc(perfmon)]
//! pub fn bpf_doc_match(task: Option<&Task>, comm: &CStr) -> Result {
//!     match task {
//!         Some(task) if task.comm() == comm => Ok(()),
//!         _ => Err(ESRCH),
//!     }
//! }
//!
//! /// C: `void bpf_doc_log(const void *data, u32 len__sz)`.
//! ///
//! /// The verifier passes the caller, which is no part of what the program passes.
//! #[kfunc(sleepable)]
//! pub fn bpf_doc_log(#[size(len)] data: Mem<'_>, caller: &Program) {
//!     pr_info!("{} passes {} bytes\n", caller.name(), data.len());
//! }
//!
//! kfunc_set! {
//!     /// What programs run by the `BPF_PROG_RUN` command may call.
//!     pub static SYSCALL_KFUNCS: [Syscall] = [bpf_doc_add, bpf_doc_log];
//! }
//!
//! kfunc_set! {
//!     pub static TRACING_KFUNCS: [Tracing, Kprobe] = [bpf_doc_add, bpf_doc_match];
//! }
//! # }
//! # use example::*;
//! # use kernel::bpf::Kfunc;
//! # assert_eq!(
//! #     bpf_doc_log::FLAGS,
//! #     kernel::bindings::KF_SLEEPABLE | kernel::bindings::KF_IMPLICIT_ARGS
//! # );
//!
//! // They are ordinary functions, too.
//! assert_eq!(bpf_doc_add(40, 2), 42);
//! assert_eq!(bpf_doc_match(None, c"init"), Err(ESRCH));
//! assert_eq!(bpf_doc_match(Some(current!()), c"init"), Err(ESRCH));
//!
//! # #[cfg(CONFIG_DEBUG_INFO_BTF)]
//! # {
//! # if !SYSCALL_KFUNCS.is_registered() {
//! SYSCALL_KFUNCS.register()?;
//! TRACING_KFUNCS.register()?;
//! # }
//!
//! // There is no undo, and a second time is an error.
//! assert_eq!(SYSCALL_KFUNCS.register(), Err(EEXIST));
//! # }
//! # Ok::<(), Error>(())
//! ```

mod argument;
pub mod hook;
mod mem;
mod program;
pub mod prototype;
mod set;
#[cfg(CONFIG_HAVE_BPF_UNWIND)]
pub mod unwind;

pub use self::{
    argument::{
        Argument,
        Call,
        Return,
        SizedArgument,
        Struct, //
    },
    hook::Hook,
    mem::{
        Mem,
        MemMut, //
    },
    program::{
        Program,
        Tag, //
    },
    set::KfuncSet, //
};
pub use macros::{
    kfunc,
    kfunc_set, //
};

/// What [`#[kfunc]`](kfunc) knows of a kfunc beside its function.
///
/// The attribute makes a type of the kfunc's name that implements this trait, so that
/// [`kfunc_set!`] takes kfuncs and nothing else.
///
/// # Safety
///
/// Implemented by [`#[kfunc]`](kfunc) only: `FLAGS` are those of the function that is called for
/// `NAME`, and say all that its arguments need.
pub unsafe trait Kfunc {
    /// The name by which programs call the kfunc.
    const NAME: &'static str;

    /// The `KF_*` flags: those given to the attribute and those that follow from the signature.
    const FLAGS: u32;
}
