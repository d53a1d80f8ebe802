// SPDX-License-Identifier: GPL-2.0

//! Unwinding BPF programs that throw.
//!
//! The verifier says in the [`Table`] of a program which [functions](Function) it consists of and
//! what is held in the [slots](Slot) of their frames. A program that throws calls the module that
//! has registered an [`Unwinder`], with a [`Throw`]: that [walks](Throw::walk) the frames to where
//! unwinding stops, takes what they hold, and says that the program [goes on](Throw::go_on) there.
//!
//! C header: [`include/linux/bpf_unwind.h`](srctree/include/linux/bpf_unwind.h)

#[cfg(CONFIG_X86_64)]
#[path = "unwind/x86.rs"]
mod arch;
mod checkpoint;
mod event;
mod frame;
pub mod stream;
mod table;
mod test;
mod throw;
mod unwinder;

pub use self::{
    checkpoint::{
        Checkpoint,
        Checkpoints,
        Deadline,
        Ending,
        Registered,
        Run,
        Supervise, //
    },
    frame::{
        Frame,
        Held, //
    },
    table::{
        Boundary,
        Builtin,
        Function,
        Release,
        Slot,
        Table, //
    },
    throw::{
        Cause,
        Pending,
        Stop,
        Throw,
        Traced,
        Walk, //
    },
    unwinder::{
        Registration,
        Unwind,
        Unwinder, //
    },
};
