// SPDX-License-Identifier: GPL-2.0
//! Lists the programs there are, by an iterator in the kernel.

use std::ffi::CStr;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ErrorKind, Iter, Link, OpenObject, libbpf_sys};

use crate::program::{Class, Program};
use crate::record::{self, Context};
use crate::refusal::Refusal;

#[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/list.skel.rs"));
}

const WHAT: &str = "listing programs";

/// An iterator that can be read again and again.
pub struct List<'storage> {
    link: Link,
    /// Of the iterator itself, which is not listed.
    id: u32,
    _skeleton: skeleton::ListSkel<'storage>,
}

impl<'storage> List<'storage> {
    pub fn open(storage: &'storage mut MaybeUninit<OpenObject>) -> Result<Self, Refusal> {
        let open = skeleton::ListSkelBuilder::default()
            .open(storage)
            .map_err(Refusal::bpf(WHAT))?;
        let skeleton = open.load().map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => Refusal::Permission {
                what: WHAT,
                needs: "CAP_BPF and CAP_PERFMON",
            },
            _ => Refusal::bpf(WHAT)(error),
        })?;
        let program = &skeleton.progs.list;
        let id = libbpf_rs::Program::id_from_fd(program.as_fd()).map_err(Refusal::bpf(WHAT))?;
        let link = program.attach().map_err(Refusal::bpf(WHAT))?;
        Ok(Self {
            link,
            id,
            _skeleton: skeleton,
        })
    }

    /// All programs there are now. `default` is how long those may take that bring no limit along.
    pub fn read(&self, default: &dyn Fn(Class) -> Option<u64>) -> Result<Vec<Program>, Refusal> {
        let mut iterator = Iter::new(&self.link).map_err(Refusal::bpf(WHAT))?;
        let mut bytes = Vec::new();
        iterator
            .read_to_end(&mut bytes)
            .map_err(Refusal::io(WHAT))?;
        let context = Context {
            type_name: &type_name,
            default,
        };
        let records = record::read(&bytes, &context).ok_or(Refusal::Io {
            what: WHAT,
            source: std::io::ErrorKind::InvalidData.into(),
        })?;
        if records.iter().any(|record| !record.known) {
            return Err(Refusal::Kernel);
        }
        let programs = records.into_iter().map(|record| record.program);
        Ok(programs.filter(|program| program.id != self.id).collect())
    }
}

/// libbpf's name of a type, which is that of its constant without the prefix.
fn type_name(kind: u32) -> String {
    // SAFETY: it takes any number, and returns NULL or a string that stays.
    let name = unsafe {
        let name = libbpf_sys::libbpf_bpf_prog_type_str(kind);
        (!name.is_null()).then(|| CStr::from_ptr(name))
    };
    name.map_or_else(
        || format!("type {kind}"),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_names() {
        assert_eq!(type_name(libbpf_sys::BPF_PROG_TYPE_XDP), "xdp");
        assert_eq!(
            type_name(libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT),
            "raw_tracepoint"
        );
        assert_eq!(type_name(4711), "type 4711");
    }
}
