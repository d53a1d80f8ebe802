// SPDX-License-Identifier: GPL-2.0
//! Runs programs by BPF_PROG_TEST_RUN, with a packet where one is due.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use anyhow::{Context, Result, ensure};
use libbpf_rs::libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};
use libbpf_rs::{Object as LoadedObject, ProgramInput, ProgramType};

use crate::loaded::program;

/// The shortest packet that programs of the network take.
pub const PACKET: [u8; 64] = [0; 64];

/// Returns what the program returns.
pub fn run(object: &LoadedObject, name: &str) -> Result<i32> {
    let program = program(object, name)?;
    let input = ProgramInput {
        data_in: takes_packet(program.prog_type()).then_some(&PACKET),
        ..ProgramInput::default()
    };
    let output = program
        .test_run(input)
        .with_context(|| format!("running {name}"))?;
    Ok(output.return_value as i32)
}

fn takes_packet(kind: ProgramType) -> bool {
    matches!(
        kind,
        ProgramType::Xdp
            | ProgramType::SchedCls
            | ProgramType::SchedAct
            | ProgramType::CgroupSkb
            | ProgramType::SocketFilter
            | ProgramType::FlowDissector
            | ProgramType::LwtXmit
    )
}

/// The same without a packet: libbpf-rs runs programs of an object only, which is not for two threads.
pub fn run_fd(fd: BorrowedFd<'_>) -> Result<i32> {
    run_fd_with(fd, &[], 0)
}

/// Runs a program so often, with a packet unless it is empty.
pub fn run_fd_with(fd: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> Result<i32> {
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as _,
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len() as u32,
        repeat: repeat as i32,
        ..Default::default()
    };
    if packet.is_empty() {
        options.data_in = ptr::null();
    }
    // SAFETY: `options` is whole, has the size that it names, and outlives the call; so does the packet.
    let error = unsafe { bpf_prog_test_run_opts(fd.as_raw_fd(), &mut options) };
    ensure_done(error).context("test run")?;
    Ok(options.retval as i32)
}

/// What libbpf returns: 0, or an error that is negative.
pub fn ensure_done(error: i32) -> Result<()> {
    ensure!(error == 0, io::Error::from_raw_os_error(-error));
    Ok(())
}
