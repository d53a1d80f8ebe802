// SPDX-License-Identifier: GPL-2.0

//! Kfuncs for tests: one for each kind of argument and of what is returned, and one that does
//! nothing, to measure what a call costs. `c_kfunc_test.c` has the same in C.

use kernel::{
    bpf::{
        kfunc,
        kfunc_set,
        Mem,
        MemMut,
        Program, //
    },
    prelude::*,
    task::Task, //
};

module! {
    type: RustKfuncTest,
    name: "bpf_rust_kfunc_test",
    authors: ["Backstop"],
    description: "Kfuncs in Rust, for tests",
    license: "GPL",
}

/// Returns `value`.
#[kfunc]
fn bpf_rust_noop(value: u64) -> u64 {
    value
}

/// Adds integers of each size, which shows how they are cut and extended.
#[kfunc]
fn bpf_rust_add(a: u8, b: i8, c: u16, d: i32, e: i64) -> i64 {
    i64::from(a)
        .wrapping_add(i64::from(b))
        .wrapping_add(i64::from(c))
        .wrapping_add(i64::from(d))
        .wrapping_add(e)
}

/// Returns the opposite.
#[kfunc]
fn bpf_rust_not(value: bool) -> bool {
    !value
}

/// Returns the length of the string.
#[kfunc]
fn bpf_rust_strlen(string: &CStr) -> u32 {
    // CAST: A string is part of the value of a map.
    string.to_bytes().len() as u32
}

/// Adds the bytes.
#[kfunc]
fn bpf_rust_sum(#[size(len)] bytes: Mem<'_>) -> u32 {
    let mut sum = 0u32;
    let mut copy = [0; 64];

    let len = bytes.copy_to(&mut copy);
    for byte in copy.iter().take(len) {
        sum = sum.wrapping_add(u32::from(*byte));
    }
    sum
}

/// Writes the name of the calling program, and says whether it fits.
#[kfunc]
fn bpf_rust_caller(#[size(len)] mut name: MemMut<'_>, caller: &Program) -> Result {
    let mut bytes = [0; 16];

    for (to, from) in bytes.iter_mut().zip(caller.name().bytes()) {
        *to = from;
    }
    if name.copy_from(&bytes) == bytes.len() {
        Ok(())
    } else {
        Err(ENOSPC)
    }
}

/// Returns the id of the calling program.
#[kfunc]
fn bpf_rust_caller_id(caller: &Program) -> u32 {
    caller.id()
}

/// Returns the pid of the task.
#[kfunc]
fn bpf_rust_pid(task: &Task) -> i32 {
    task.pid()
}

/// Returns the pid of the task, or `ESRCH` if there is none.
#[kfunc]
fn bpf_rust_pid_nullable(task: Option<&Task>) -> i32 {
    task.map_or(ESRCH.to_errno(), Task::pid)
}

/// Only for those who may restart the machine.
#[kfunc(destructive)]
fn bpf_rust_destructive() {}

kfunc_set! {
    /// Where tests run programs.
    static KFUNCS: [Xdp, Tracing, Syscall] = [
        bpf_rust_noop,
        bpf_rust_add,
        bpf_rust_not,
        bpf_rust_strlen,
        bpf_rust_sum,
        bpf_rust_caller,
        bpf_rust_caller_id,
        bpf_rust_pid,
        bpf_rust_pid_nullable,
        bpf_rust_destructive,
    ];
}

struct RustKfuncTest;

impl kernel::Module for RustKfuncTest {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        KFUNCS.register()?;
        Ok(Self)
    }
}
