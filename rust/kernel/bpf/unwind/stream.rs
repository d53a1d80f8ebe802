// SPDX-License-Identifier: GPL-2.0

//! The streams of a program, from which user space reads what it and the kernel have to say.
//!
//! C source: [`kernel/bpf/stream.c`](srctree/kernel/bpf/stream.c)

use crate::{
    bindings,
    bpf::Program,
    error::to_result,
    fmt,
    prelude::*,
    types::Opaque, //
};

/// A stream of a program.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// What the program prints.
    Stdout,
    /// What is wrong with it.
    Stderr,
}

/// Text that appears in a stream at once when it is complete.
///
/// Works in any context, NMI included, where memory may be short: then nothing appears.
pub struct Stage(Opaque<bindings::bpf_stream_stage>);

impl Stage {
    /// Begins a text.
    pub fn new() -> Self {
        let stage = Self(Opaque::uninit());

        // SAFETY: It is valid for writes. Nothing points to it, so that it may be moved.
        unsafe { bindings::bpf_stream_stage_init(stage.0.get()) };
        stage
    }

    /// Adds text, at most 512 bytes.
    pub fn print(&mut self, text: fmt::Arguments<'_>) -> Result {
        // SAFETY: It is initialized; `%pA` takes a pointer to `fmt::Arguments`.
        to_result(unsafe {
            bindings::bpf_stream_stage_printk(
                self.0.get(),
                c"%pA".as_char_ptr(),
                (&raw const text).cast::<c_void>(),
            )
        })
    }

    /// Adds who runs on this CPU, and a call trace.
    pub fn dump_stack(&mut self) -> Result {
        // SAFETY: It is initialized.
        to_result(unsafe { bindings::bpf_stream_stage_dump_stack(self.0.get()) })
    }

    /// Moves the text to a stream of a program.
    ///
    /// Returns `ENOSPC` if nobody has read what is there.
    pub fn commit(self, program: &Program, stream: Stream) -> Result {
        let stream = match stream {
            Stream::Stdout => bindings::bpf_stream_id_BPF_STDOUT,
            Stream::Stderr => bindings::bpf_stream_id_BPF_STDERR,
        };

        // SAFETY: It is initialized, and `program` has been loaded.
        to_result(unsafe {
            bindings::bpf_stream_stage_commit(self.0.get(), (*program.as_ptr()).prog, stream)
        })
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: It is initialized.
        unsafe { bindings::bpf_stream_stage_free(self.0.get()) };
    }
}
