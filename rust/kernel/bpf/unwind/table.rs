// SPDX-License-Identifier: GPL-2.0

//! What the verifier says of a program that may throw.

use super::Deadline;
use crate::{
    bindings,
    prelude::*,
    str::BStr,
    types::Opaque, //
};
use core::{
    ops::Range,
    slice, //
};

/// The functions and slots of a program.
///
/// # Invariants
///
/// As the verifier has made it: `funcs` has `nr_funcs` elements, which are sorted by their
/// addresses and do not overlap, `slots` has `nr_slots`, and no function has others. It does not
/// change.
#[repr(transparent)]
pub struct Table(Opaque<bindings::bpf_unwind_table>);

impl Table {
    /// # Safety
    ///
    /// `table` points to a table that meets the invariants for `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(table: *const bindings::bpf_unwind_table) -> &'a Self {
        // SAFETY: By the safety requirements; the type is transparent.
        // INVARIANT: By the safety requirements.
        unsafe { &*table.cast() }
    }

    /// Returns the functions in the order of their addresses.
    #[inline]
    pub fn functions(&self) -> &[Function] {
        let table = self.0.get();

        // SAFETY: By the type invariants. `Function` is transparent.
        unsafe { slice::from_raw_parts((*table).funcs.cast(), (*table).nr_funcs as usize) }
    }

    /// Returns the deadline of the program, if it has one.
    #[inline]
    pub fn deadline(&self) -> Option<&Deadline> {
        // SAFETY: By the type invariants; the deadline lives as long as the table, and the type is
        // transparent.
        unsafe { (*self.0.get()).deadline.cast::<Deadline>().as_ref() }
    }

    /// Returns whether the program itself says what a run that is ended returns.
    #[inline]
    pub(super) fn has_exception_callback(&self) -> bool {
        self.deadline()
            .is_some_and(|deadline| deadline.has_exception_callback())
    }

    /// Returns the slots in the order of their release.
    #[inline]
    pub fn slots(&self) -> &[Slot] {
        let table = self.0.get();

        // SAFETY: By the type invariants. `Slot` is transparent.
        unsafe {
            slice::from_raw_parts(
                (&raw const (*table).slots).cast::<Slot>(),
                (*table).nr_slots as usize,
            )
        }
    }

    /// Returns the function which the call belongs to that returns to `address`.
    #[inline]
    pub fn caller(&self, address: usize) -> Option<&Function> {
        // The call may be the last instruction of its function.
        let behind = self
            .functions()
            .partition_point(|function| function.code().start < address);
        let function = self.functions().get(behind.wrapping_sub(1))?;

        (address <= function.code().end).then_some(function)
    }
}

/// Where unwinding stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The main program: its exception callback finishes the run.
    Main,
    /// A function that a helper calls back: it ends, and the throw goes on behind the helper.
    Callback,
    /// A function that is called back later: it ends.
    Async,
    /// The exception callback: what it calls is not unwound, the run has ended.
    Exception,
}

/// A function of a program.
#[repr(transparent)]
pub struct Function(bindings::bpf_unwind_func);

impl Function {
    /// Returns the addresses of its code.
    #[inline]
    pub fn code(&self) -> Range<usize> {
        self.0.start..self.0.end
    }

    /// Returns its number in the program.
    pub fn number(&self) -> u16 {
        self.0.subprog
    }

    /// Returns why unwinding stops at it, if it does.
    #[inline]
    pub fn boundary(&self) -> Option<Boundary> {
        match self.0.boundary.into() {
            bindings::bpf_unwind_boundary_BPF_UNWIND_MAIN => Some(Boundary::Main),
            bindings::bpf_unwind_boundary_BPF_UNWIND_CALLBACK => Some(Boundary::Callback),
            bindings::bpf_unwind_boundary_BPF_UNWIND_ASYNC => Some(Boundary::Async),
            bindings::bpf_unwind_boundary_BPF_UNWIND_EXCEPTION => Some(Boundary::Exception),
            _ => None,
        }
    }

    /// Returns what the code of the architecture and the frames know.
    #[inline]
    pub(super) fn raw(&self) -> &bindings::bpf_unwind_func {
        &self.0
    }
}

/// What is released by no [function](Slot::function) of the [`Slot`] that it is in.
#[derive(Clone, Copy, Debug)]
pub enum Builtin {
    /// `struct bpf_spin_lock *`
    SpinLock,
    /// `struct bpf_res_spin_lock *`; interrupts are left as they are.
    ResLock,
    /// `unsigned long *`: the flags of the outermost IRQ-saved region.
    Irq,
    /// The number of preempt-disabled regions.
    Preempt,
    /// The record behind a dynptr.
    RingbufDynptr,
    /// The file behind a dynptr.
    FileDynptr,
    /// A record of a ring buffer.
    Ringbuf,
    /// From `bpf_obj_new()`: `struct btf_struct_meta *`.
    Obj(*const bindings::btf_struct_meta),
    /// From `bpf_percpu_obj_new()`.
    PercpuObj,
    /// `struct sock *` from a helper.
    Sock,
    /// The number of RCU read sections.
    Rcu,
}

/// A function that releases the object it is given.
pub type Release = unsafe extern "C" fn(object: *mut c_void);

/// A place in the frame of a boundary for something that is to be released.
#[repr(transparent)]
pub struct Slot(bindings::bpf_unwind_slot);

impl Slot {
    /// Returns what releases the content, if it is an iterator on the program's stack or a pointer
    /// to a kernel type.
    #[inline]
    pub fn function(&self) -> Option<Release> {
        match self.0.kind {
            bindings::bpf_unwind_kind_BPF_UNWIND_ITER
            | bindings::bpf_unwind_kind_BPF_UNWIND_KFUNC => {
                // SAFETY: The field of the union belongs to the kind of the slot.
                unsafe { self.0.__bindgen_anon_1.release }
            }
            _ => None,
        }
    }

    /// Returns what else the content is, or [`None`] if this is no kind that is known.
    #[inline]
    pub fn builtin(&self) -> Option<Builtin> {
        Some(match self.0.kind {
            bindings::bpf_unwind_kind_BPF_UNWIND_SPIN_LOCK => Builtin::SpinLock,
            bindings::bpf_unwind_kind_BPF_UNWIND_RES_LOCK => Builtin::ResLock,
            bindings::bpf_unwind_kind_BPF_UNWIND_IRQ => Builtin::Irq,
            bindings::bpf_unwind_kind_BPF_UNWIND_PREEMPT => Builtin::Preempt,
            bindings::bpf_unwind_kind_BPF_UNWIND_RINGBUF_DYNPTR => Builtin::RingbufDynptr,
            bindings::bpf_unwind_kind_BPF_UNWIND_FILE_DYNPTR => Builtin::FileDynptr,
            bindings::bpf_unwind_kind_BPF_UNWIND_RINGBUF => Builtin::Ringbuf,
            bindings::bpf_unwind_kind_BPF_UNWIND_OBJ => {
                // SAFETY: The field of the union belongs to the kind of the slot.
                Builtin::Obj(unsafe { self.0.__bindgen_anon_1.meta })
            }
            bindings::bpf_unwind_kind_BPF_UNWIND_PERCPU_OBJ => Builtin::PercpuObj,
            bindings::bpf_unwind_kind_BPF_UNWIND_SOCK => Builtin::Sock,
            bindings::bpf_unwind_kind_BPF_UNWIND_RCU => Builtin::Rcu,
            _ => return None,
        })
    }

    /// Returns the name of the type, or of the function that acquires it.
    // Not inlined, since it can panic in theory.
    #[inline(never)]
    pub fn name(&self) -> &BStr {
        // SAFETY: The verifier has given it a name that lives as long as the table.
        let name = unsafe { CStr::from_char_ptr(self.0.name) };

        BStr::from_bytes(name.to_bytes())
    }

    /// Returns the number of the instruction that acquires it, unless several do.
    pub fn acquired_by(&self) -> Option<u32> {
        self.0.insn_idx.try_into().ok()
    }
}
