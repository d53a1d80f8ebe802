// SPDX-License-Identifier: GPL-2.0
//! What must be true of the machine before the program is loaded, and what to do where it is not.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::thread::CapabilitySet;

const CGROUPS: &str = "/sys/fs/cgroup";
const MODULE: &str = "/sys/module/bpf_destructive";
const CRASH_LOADED: &str = "/sys/kernel/kexec/crash_loaded";
const CRASH_SIZE: &str = "/sys/kernel/kexec/crash_size";

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("CAP_SYS_BOOT, CAP_BPF and CAP_PERFMON are needed: run it as root")]
    Capabilities,

    #[error("the module bpf_destructive is not loaded: modprobe bpf_destructive")]
    Module,

    #[error(
        "this kernel has no crash kernel support: build it with CONFIG_KEXEC_FILE and CONFIG_CRASH_DUMP"
    )]
    NoCrashSupport,

    #[error("no memory is reserved for a crash kernel: boot with crashkernel=256M, then load one")]
    NoCrashMemory,

    #[error(
        "no crash kernel is loaded: \
         kexec -s -p /boot/vmlinuz-{release} --initrd=/boot/initrd.img-{release} --reuse-cmdline, \
         or systemctl start kdump"
    )]
    NoCrashKernel { release: String },

    #[error("there is no cgroup {name}: {path} does not exist")]
    NoCgroup { name: String, path: String },

    #[error(
        "the cgroup {name} has no memory limit to run into: {path} does not exist; \
         enable its memory controller in its parent's cgroup.subtree_control"
    )]
    NoMemoryController { name: String, path: String },

    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

/// Refuses unless a program that calls bpf_crash_dump() can be loaded and would do it.
pub fn machine() -> Result<(), Refusal> {
    let needed = CapabilitySet::SYS_BOOT | CapabilitySet::BPF | CapabilitySet::PERFMON;
    if !rustix::thread::capabilities(None).is_ok_and(|have| have.effective.contains(needed)) {
        return Err(Refusal::Capabilities);
    }
    if !Path::new(MODULE).exists() {
        return Err(Refusal::Module);
    }
    if !Path::new(CRASH_LOADED).exists() {
        return Err(Refusal::NoCrashSupport);
    }
    if read(CRASH_SIZE)? == "0" {
        return Err(Refusal::NoCrashMemory);
    }
    if read(CRASH_LOADED)? != "1" {
        return Err(Refusal::NoCrashKernel { release: release() });
    }
    Ok(())
}

fn read(path: &str) -> Result<String, Refusal> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(Refusal::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// A cgroup that can run out of memory.
pub struct Cgroup {
    pub name: String,
    /// The kernel's id of the cgroup, which is the inode of its directory.
    pub id: u64,
}

impl Cgroup {
    /// Finds the cgroup `name`, a path below the root of the hierarchy.
    pub fn open(name: &str) -> Result<Self, Refusal> {
        let name = name.trim_matches('/').to_owned();
        let directory: PathBuf = [CGROUPS, &name].iter().collect();
        let limit = directory.join("memory.max");
        let path = |path: &Path| path.display().to_string();

        let id = match fs::metadata(&directory) {
            Ok(metadata) => metadata.st_ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Refusal::NoCgroup {
                    name,
                    path: path(&directory),
                });
            }
            Err(source) => {
                return Err(Refusal::Io {
                    path: path(&directory),
                    source,
                });
            }
        };
        if !limit.exists() {
            return Err(Refusal::NoMemoryController {
                name,
                path: path(&limit),
            });
        }
        Ok(Self { name, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_cgroup_is_named() {
        let error = Cgroup::open("/no/such/").err().unwrap().to_string();
        assert!(
            error.contains("no cgroup no/such: /sys/fs/cgroup/no/such"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = read("/no/such").err().unwrap().to_string();
        assert!(error.starts_with("/no/such: No such file"), "{error}");
    }
}
