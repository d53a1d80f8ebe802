// SPDX-License-Identifier: GPL-2.0

//! What releases each kind of resource: the function that the program would have called.

use core::ptr;
use kernel::{
    bindings,
    bpf::unwind::{
        Builtin,
        Slot, //
    },
    do_once_lite,
    prelude::*,
    warn_on, //
};

// Kfuncs and helpers, which no header of the kernel declares.
extern "C" {
    fn bpf_spin_unlock(lock: u64, _: u64, _: u64, _: u64, _: u64) -> u64;
    fn bpf_res_spin_unlock(lock: *mut c_void);
    fn bpf_local_irq_restore(flags: *mut c_ulong);
    fn bpf_preempt_enable();
    fn bpf_rcu_read_unlock();
    fn bpf_obj_drop(object: *mut c_void, meta: *const c_void);
    fn bpf_percpu_obj_drop(object: *mut c_void, meta: *const c_void);
    fn bpf_dynptr_file_discard(dynptr: *mut bindings::bpf_dynptr_kern) -> c_int;
    fn bpf_ringbuf_discard(record: u64, flags: u64, _: u64, _: u64, _: u64) -> u64;
    #[cfg(CONFIG_INET)]
    fn bpf_sk_release(sk: u64, _: u64, _: u64, _: u64, _: u64) -> u64;
}

/// Releases what was in a slot.
#[inline(always)]
pub(crate) fn release(slot: &Slot, content: usize) {
    let object = content as *mut c_void;

    match slot.function() {
        // SAFETY: As in `release_builtin`.
        Some(function) => unsafe { bindings::bpf_call_release(Some(function), object) },
        None => release_builtin(slot, content, object),
    }
}

/// Releases what no function in the slot does.
// Not inlined, so that the most frequent kinds are told apart from all others at once.
#[inline(never)]
fn release_builtin(slot: &Slot, content: usize, object: *mut c_void) {
    let Some(kind) = slot.builtin() else {
        return unknown();
    };

    // SAFETY: The program has put into the slot what is of its kind and what it holds, and has
    // nothing of it any more: the verifier has made it do so, and `release` is called once for it.
    unsafe {
        match kind {
            Builtin::SpinLock => {
                bpf_spin_unlock(content as u64, 0, 0, 0, 0);
            }
            Builtin::ResLock => bpf_res_spin_unlock(object),
            Builtin::Irq => bpf_local_irq_restore(object.cast()),
            Builtin::Preempt => (0..content).for_each(|_| bpf_preempt_enable()),
            Builtin::RingbufDynptr | Builtin::Ringbuf => {
                bpf_ringbuf_discard(content as u64, 0, 0, 0, 0);
            }
            Builtin::FileDynptr => {
                let mut dynptr = bindings::bpf_dynptr_kern {
                    data: object,
                    size: 0,
                    offset: 0,
                };

                bpf_dynptr_file_discard(&raw mut dynptr);
            }
            Builtin::Obj(meta) => bpf_obj_drop(object, meta.cast()),
            Builtin::PercpuObj => bpf_percpu_obj_drop(object, ptr::null()),
            #[cfg(CONFIG_INET)]
            Builtin::Sock => {
                bpf_sk_release(content as u64, 0, 0, 0, 0);
            }
            #[cfg(not(CONFIG_INET))]
            Builtin::Sock => unknown(),
            Builtin::Rcu => (0..content).for_each(|_| bpf_rcu_read_unlock()),
        }
    }
}

/// Leaves alone what cannot be released, which the verifier does not let programs hold.
#[cold]
fn unknown() {
    do_once_lite! {
        warn_on!(true);
    }
}
