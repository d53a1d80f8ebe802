// SPDX-License-Identifier: GPL-2.0
//! The machine the tests are on: what may be done to it, and what has to be there.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::system::{delete_module, finit_module};

use crate::catalogue::{Body, Test};
use crate::expectation::{End, Event, Load, StopCommands};
use crate::fault;
use crate::leak;
use crate::loader;
use crate::perform::DEADLINE;

/// On the kernel's command line it says that the machine was made for the tests.
pub const VM_WORD: &str = "backstop.vm=1";

/// Gives every program that loops a deadline while it is loaded: only where a test wants that.
const DEADLINES: &str = "bpf_deadline";

/// Why a test is not run here.
#[derive(Debug)]
pub enum Obstacle {
    /// It is not meant to be run here.
    Skip(String),
    /// It is, and something is missing that should be there.
    Fail(String),
}

/// What the user allows.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    /// The machine may be stopped.
    pub stop: bool,
    /// This is a machine made for the tests.
    pub vm: bool,
}

impl Permission {
    pub fn new(destructive: bool) -> Self {
        let vm = fs::read_to_string("/proc/cmdline")
            .is_ok_and(|cmdline| cmdline.split_whitespace().any(|word| word == VM_WORD));
        Self {
            stop: vm || destructive,
            vm,
        }
    }

    /// Looks whether a test can be run here, and loads the modules that it needs.
    pub fn check(self, test: &Test) -> Result<(), Obstacle> {
        let expectation = &test.expectation;
        if !geteuid().is_root() {
            return Err(Obstacle::Skip("needs root".into()));
        }
        if expectation.end != End::Return && !self.stop {
            return Err(Obstacle::Skip(format!(
                "stops the machine: boot with {VM_WORD} or pass --destructive"
            )));
        }
        if expectation.event == Event::Nmi && !self.vm {
            return Err(Obstacle::Skip(
                "a virtual machine's host has to inject an NMI".into(),
            ));
        }
        if expectation.event == Event::Printk && !self.vm {
            return Err(Obstacle::Skip(
                "needs the serial console of a test machine".into(),
            ));
        }
        if expectation.stop_commands.is_some() && !self.vm {
            return Err(Obstacle::Skip(format!(
                "replaces /sbin/reboot: boot with {VM_WORD}"
            )));
        }
        if expectation.long && leak::can_be_found() {
            return Err(Obstacle::Skip(
                "takes too long on a kernel that checks itself".into(),
            ));
        }
        if expectation.fault_injection && !fault::can_be_injected() {
            return Err(Obstacle::Skip("needs CONFIG_FAULT_INJECTION".into()));
        }
        self.missing(program_type_is_known(test))?;
        self.missing(crash_kernel_as_wanted(expectation.crash_kernel))?;
        let modules = test
            .modules()
            .map_err(|error| Obstacle::Fail(format!("{error:#}")))?;
        if !modules.contains(DEADLINES) && module_is_loaded(DEADLINES) {
            self.missing(unload_unused(DEADLINES))?;
        }
        for module in modules {
            self.missing(load_module(&module, ""))?;
        }
        Ok(())
    }

    /// What is missing on any machine is a reason to skip; where it was promised, to fail.
    fn missing(self, found: Result<()>) -> Result<(), Obstacle> {
        found.map_err(|error| {
            let reason = format!("{error:#}");
            if self.vm {
                Obstacle::Fail(reason)
            } else {
                Obstacle::Skip(reason)
            }
        })
    }
}

/// A type that the kernel does not know is refused for another reason than the expected one.
fn program_type_is_known(test: &Test) -> Result<()> {
    let (Body::Program { object, program }, Load::Refused(_)) = (&test.body, test.expectation.load)
    else {
        return Ok(());
    };
    let kind = loader::program_type(object, program)?;
    ensure!(
        kind.is_supported()?,
        "this kernel is built without programs of type {kind:?}"
    );
    Ok(())
}

fn crash_kernel_as_wanted(wanted: bool) -> Result<()> {
    let file = "/sys/kernel/kexec_crash_loaded";
    let loaded = match fs::read_to_string(file) {
        Ok(text) => text.trim() == "1",
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error).context(file),
    };
    ensure!(loaded || !wanted, "no crash kernel is loaded: kexec -p");
    ensure!(
        !loaded || wanted,
        "a crash kernel is loaded and would be booted"
    );
    Ok(())
}

pub fn module_is_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).exists()
}

/// From /lib/modules itself, where the test machine has it, or by modprobe.
pub fn load_module(name: &str, params: &str) -> Result<()> {
    if module_is_loaded(name) {
        return Ok(());
    }
    let file = format!("/lib/modules/{name}.ko");
    if let Ok(module) = fs::File::open(&file) {
        let params = CString::new(params).context("parameters with NUL")?;
        return finit_module(&module, &params, 0).with_context(|| format!("loading {file}"));
    }
    let modprobe = Command::new("modprobe")
        .arg(name)
        .args(params.split_whitespace())
        .output()
        .context("running modprobe")?;
    let error = String::from_utf8_lossy(&modprobe.stderr);
    ensure!(
        modprobe.status.success(),
        "module {name} is not there: {}",
        error.trim()
    );
    Ok(())
}

/// Without waiting: a module in use is an error.
pub fn unload_module(name: &str) -> rustix::io::Result<()> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    delete_module(&name, libc::O_NONBLOCK)
}

/// The module cannot go while a program needs it.
pub fn ensure_busy(name: &str) -> Result<()> {
    match unload_module(name) {
        Err(Errno::WOULDBLOCK) => Ok(()),
        Err(error) => bail!("unloading fails with {error}, not because it is busy"),
        Ok(()) => bail!("the module went while a program was loaded that needs it"),
    }
}

/// Unloads the module as soon as nothing uses it; a program is freed some time after its last
/// descriptor, and nothing tells when.
pub fn unload_unused(name: &str) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let file = format!("/sys/module/{name}/refcnt");
    loop {
        let users = fs::read_to_string(&file).context(file.clone())?;
        if users.trim() == "0" {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "{name} still has {} users",
            users.trim()
        );
        sleep(Duration::from_millis(1));
    }
    unload_module(name).with_context(|| format!("unloading {name}, which is unused"))
}

const STOP_COMMANDS: [&str; 3] = ["halt", "poweroff", "reboot"];

/// Replaces or removes what the kernel runs to stop the machine in order. For test machines only.
pub fn set_stop_commands(how: StopCommands) -> Result<()> {
    for command in STOP_COMMANDS {
        let path = format!("/sbin/{command}");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {path}"));
            }
            _ => (),
        }
        let does = match how {
            StopCommands::Marked => format!(
                "echo '<5>backstop_selftests: {path} was run' >/dev/kmsg; exec busybox {command}"
            ),
            StopCommands::Failing => "exit 1".into(),
            StopCommands::Hanging => "while :; do sleep 1000; done".into(),
            StopCommands::Missing => continue,
        };
        let script = format!("#!/bin/sh\n{does}\n");
        fs::write(&path, script)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}
