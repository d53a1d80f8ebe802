// SPDX-License-Identifier: GPL-2.0
//! Asks the module bpf_deadline through its kfuncs, which programs call that user space runs.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ErrorKind, OpenObject, Program, ProgramInput, ProgramMut};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::refusal::Refusal;

#[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/control.skel.rs"));
}

const MODULE: &str = "/sys/module/bpf_deadline";

pub struct Control<'storage> {
    skeleton: skeleton::ControlSkel<'storage>,
}

/// What a kfunc says: done, or why not.
pub type Answer<T> = Result<Result<T, Errno>, Refusal>;

impl<'storage> Control<'storage> {
    pub fn open(storage: &'storage mut MaybeUninit<OpenObject>) -> Result<Self, Refusal> {
        let permission = || Refusal::Permission {
            what: "ending programs or changing limits",
            needs: "CAP_SYS_ADMIN and CAP_SYS_BOOT",
        };
        let capabilities = rustix::thread::capabilities(None);
        let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_BOOT;
        if !capabilities.is_ok_and(|have| have.effective.contains(needed)) {
            return Err(permission());
        }
        if !Path::new(MODULE).exists() {
            return Err(Refusal::Module);
        }
        let what = "loading the programs that call bpf_deadline";
        let open = skeleton::ControlSkelBuilder::default()
            .open(storage)
            .map_err(Refusal::bpf(what))?;
        let skeleton = open.load().map_err(|error| match error.kind() {
            // Root of a user namespace.
            ErrorKind::PermissionDenied => permission(),
            _ => Refusal::bpf(what)(error),
        })?;
        Ok(Self { skeleton })
    }

    /// Of the programs that make the calls.
    pub fn ids(&self) -> Result<Vec<u32>, Refusal> {
        let programs = &self.skeleton.progs;
        [&programs.stop, &programs.get, &programs.set]
            .map(|program| Program::id_from_fd(program.as_fd()))
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(Refusal::bpf("asking for ids"))
    }

    /// Ends the runs of a program and stops it, or lets it run again.
    pub fn stop(&self, id: u32, stop: bool) -> Answer<()> {
        let context = [id, stop.into()].map(u32::to_ne_bytes).concat();
        call(&self.skeleton.progs.stop, context).map(|answer| answer.map(drop))
    }

    pub fn get(&self, setting: u32) -> Answer<u32> {
        call(&self.skeleton.progs.get, context_of(setting, 0))
    }

    pub fn set(&self, setting: u32, value: u64) -> Answer<()> {
        let context = context_of(setting, value);
        call(&self.skeleton.progs.set, context).map(|answer| answer.map(drop))
    }
}

/// struct setting of src/bpf/control.bpf.c
fn context_of(setting: u32, value: u64) -> Vec<u8> {
    let [value, setting] = [&value.to_ne_bytes()[..], &setting.to_ne_bytes()];
    [value, setting, &[0; 4]].concat()
}

fn call(program: &ProgramMut<'_>, mut context: Vec<u8>) -> Answer<u32> {
    let input = ProgramInput {
        context_in: Some(&mut context),
        ..ProgramInput::default()
    };
    let output = program.test_run(input);
    let value = output
        .map_err(Refusal::bpf("calling bpf_deadline"))?
        .return_value;
    Ok(match value as i32 {
        error @ ..0 => Err(Errno::from_raw_os_error(error.saturating_neg())),
        _ => Ok(value),
    })
}
