// SPDX-License-Identifier: GPL-2.0
//! What is in a loaded object, by name: programs, what is said of them, and maps.

use std::io::Read;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapHandle, Object as LoadedObject, Program, ProgramMut};

pub fn program<'a>(object: &'a LoadedObject, name: &str) -> Result<ProgramMut<'a>> {
    object
        .progs_mut()
        .find(|program| program.name() == name)
        .with_context(|| format!("no {name}"))
}

pub fn program_id(object: &LoadedObject, name: &str) -> Result<u32> {
    Ok(Program::id_from_fd(program(object, name)?.as_fd())?)
}

/// What is in the stderr stream of a program, which is empty then.
pub fn stderr(object: &LoadedObject, name: &str) -> Result<String> {
    let mut text = String::new();
    program(object, name)?
        .stderr()
        .read_to_string(&mut text)
        .with_context(|| format!("reading the stream of {name}"))?;
    Ok(text)
}

pub fn map(object: &LoadedObject, name: &str) -> Result<MapHandle> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .with_context(|| format!("no map {name}"))?;
    Ok(MapHandle::try_from(&map)?)
}
