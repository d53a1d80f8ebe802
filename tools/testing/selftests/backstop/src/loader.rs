// SPDX-License-Identifier: GPL-2.0
//! Loads programs of an object and keeps what loader and verifier say about it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use libbpf_rs::{
    AsRawLibbpf, Object as LoadedObject, ObjectBuilder, OpenObject, OpenProgramMut, PrintLevel,
    ProgramType, libbpf_sys,
};

use crate::catalogue::{Object, kfunc_modules};
use crate::expectation::Errno;
use crate::machine::module_is_loaded;

/// BPF_LOG_STATS: what the verifier says of the whole program, and no trace of what it did.
pub const LOG_STATS: u32 = 4;

/// What libbpf has said since the last load began. It takes a plain function as its printer.
static LOG: Mutex<String> = Mutex::new(String::new());

/// A refusal, with all that was said about it.
#[derive(Debug)]
pub struct Refusal {
    pub errno: Errno,
    pub log: String,
}

impl Refusal {
    /// The kfunc that libbpf did not find, if that is the reason.
    pub fn missing_kfunc(&self) -> Option<&str> {
        let (before, _) = self
            .log
            .split_once("': not found in kernel or module BTFs")?;
        before.rsplit_once('\'').map(|(_, name)| name)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not loaded: {}\n{}", self.errno, self.log.trim_end())
    }
}

impl std::error::Error for Refusal {}

/// Loads these programs of the object and no others. The outer error is one of the test itself.
pub fn load(object: &Object, programs: &[&str]) -> Result<Result<LoadedObject, Refusal>> {
    load_with(object, programs, |_| Ok(()))
}

/// The same, with a last word about each program.
pub fn load_with(
    object: &Object,
    programs: &[&str],
    prepare: impl Fn(&mut OpenProgramMut<'_>) -> Result<()>,
) -> Result<Result<LoadedObject, Refusal>> {
    let print: fn(PrintLevel, String) = |_, text| append(&text);
    libbpf_rs::set_print(Some((PrintLevel::Info, print)));
    take_log();
    let mut unloaded = open(object)?;
    let mut found = 0;
    for mut program in unloaded.progs_mut() {
        let wanted = program
            .name()
            .to_str()
            .is_some_and(|name| programs.contains(&name));
        program.set_autoload(wanted);
        if wanted {
            found += 1;
            prepare(&mut program)?;
        }
    }
    ensure!(
        found == programs.len(),
        "{} lacks one of {programs:?}",
        object.name
    );

    // OpenObject::load() keeps only a rough kind of the error.
    // SAFETY: `unloaded` owns a bpf_object that was opened and not loaded.
    let error = unsafe { libbpf_sys::bpf_object__load(unloaded.as_libbpf_object().as_ptr()) };
    let log = take_log();
    if error < 0 {
        let log = log + &missing_modules(object)?;
        return Ok(Err(Refusal {
            errno: Errno(-error),
            log,
        }));
    }
    // SAFETY: the object was loaded just now, and `take_ptr` gives up what `unloaded` owned.
    Ok(Ok(unsafe { LoadedObject::from_ptr(unloaded.take_ptr()) }))
}

/// What its section makes of a program.
pub fn program_type(object: &Object, name: &str) -> Result<ProgramType> {
    let unloaded = open(object)?;
    let program = unloaded.progs().find(|program| program.name() == name);
    Ok(program.with_context(|| format!("no {name}"))?.prog_type())
}

fn open(object: &Object) -> Result<OpenObject> {
    ObjectBuilder::default()
        .name(object.name)?
        .open_memory(object.elf)
        .with_context(|| format!("opening {}", object.name))
}

/// libbpf names only the kfunc that it does not find: the modules that are not loaded, by name.
fn missing_modules(object: &Object) -> Result<String> {
    let modules: BTreeSet<_> = kfunc_modules(object)?.into_values().collect();
    let mut text = String::new();
    for module in modules.iter().filter(|module| !module_is_loaded(module)) {
        text.push_str(&format!(
            "module {module}, which has kfuncs of this program, is not loaded: modprobe {module}\n"
        ));
    }
    Ok(text)
}

fn append(text: &str) {
    LOG.lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .push_str(text);
}

fn take_log() -> String {
    std::mem::take(&mut *LOG.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kfunc_is_named() {
        let refusal = |log: &str| Refusal {
            errno: Errno(libc::ESRCH),
            log: log.into(),
        };
        let log = "libbpf: a 'b'\nlibbpf: extern (func ksym) 'bpf_x': not found in kernel or module BTFs\n";
        assert_eq!(refusal(log).missing_kfunc(), Some("bpf_x"));
        assert_eq!(refusal("libbpf: 'bpf_x': else").missing_kfunc(), None);
    }
}
