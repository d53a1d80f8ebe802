// SPDX-License-Identifier: GPL-2.0
//! Neither a user namespace nor a BPF token stands in for CAP_SYS_BOOT; and a program that replaces
//! another has no more rights than that one.
//!
//! In a namespace libbpf does not see modules, and would refuse before the kernel is asked. So the
//! program is loaded once with all privileges, and its instructions are loaded again without.

use std::ffi::c_char;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::exit;

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::libbpf_sys::{self, bpf_insn};
use libbpf_rs::query::BtfInfoIter;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, WaitOptions, pidfd_getfd, pidfd_open, waitpid,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{MODULE, test};
use crate::arm::Armed;
use crate::catalogue::{Test, object};
use crate::expectation::Errno;
use crate::loaded::program;
use crate::loader;

const NEEDS_SYS_BOOT: &str = "destructive kfunc calls require CAP_SYS_BOOT capability";

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "refuse_userns",
            "root of a user namespace cannot call bpf_halt",
            user_namespace,
        ),
        test(
            "refuse_token",
            "a BPF token that delegates everything does not allow bpf_halt",
            token,
        ),
        test(
            "refuse_replacement",
            "a replacement of an XDP program cannot call bpf_halt",
            replacement,
        ),
    ]
}

fn user_namespace(_: &Armed) -> Result<()> {
    let halt = Prepared::new("halt")?;
    halt.load(None)
        .map_err(|refusal| refusal.error("with all privileges"))?;
    let in_namespace = || {
        enter_user_namespace()?;
        match halt.load(None) {
            Err(Refused {
                errno: Errno(libc::EPERM),
                ..
            }) => Ok(()),
            Err(refusal) => Err(refusal.error("EPERM was expected")),
            Ok(_) => bail!("it loads"),
        }
    };
    in_child(in_namespace)?.finish()
}

fn token(_: &Armed) -> Result<()> {
    let (halt, harmless) = (Prepared::new("halt")?, Prepared::new("harmless")?);
    let (mut here, mut there) = UnixStream::pair()?;
    let in_namespace = || {
        enter_user_namespace()?;
        unshare(UnshareFlags::NEWNS)?;
        let context = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC).context("opening bpffs")?;
        there.write_all(&context.as_raw_fd().to_ne_bytes())?;
        there
            .read_exact(&mut [0])
            .context("the delegation did not come about")?;
        let mount = fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )?;
        let bpffs = openat(&mount, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let token = create_token(bpffs.as_fd())?;
        harmless
            .load(Some(token.as_fd()))
            .map_err(|refusal| refusal.error("the token should allow a harmless program"))?;
        match halt.load(Some(token.as_fd())) {
            Err(Refused {
                errno: Errno(libc::EACCES),
                log,
            }) if log.contains(NEEDS_SYS_BOOT) => Ok(()),
            Err(refusal) => Err(refusal.error("another refusal was expected")),
            Ok(_) => bail!("it loads"),
        }
    };
    let child = in_child(in_namespace)?;
    let delegated = delegate(&mut here, child.pid);
    drop(here);
    child.finish()?;
    delegated
}

/// As the administrator would: everything that can be delegated to a token.
fn delegate(child: &mut UnixStream, pid: Pid) -> Result<()> {
    let mut number = [0; 4];
    child
        .read_exact(&mut number)
        .context("no bpffs came from the child")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let context = pidfd_getfd(
        &pidfd,
        RawFd::from_ne_bytes(number),
        PidfdGetfdFlags::empty(),
    )?;
    for what in [
        "delegate_cmds",
        "delegate_maps",
        "delegate_progs",
        "delegate_attachs",
    ] {
        fsconfig_set_string(&context, what, "any").with_context(|| what.to_owned())?;
    }
    fsconfig_create(&context).context("making bpffs")?;
    Ok(child.write_all(&[1])?)
}

fn replacement(_: &Armed) -> Result<()> {
    let object = object("destructive", "privilege")?;
    let target = loader::load(object, &["target"])??;
    let fd = program(&target, "target")?.as_fd().as_raw_fd();
    let refusal = match loader::load_with(object, &["replacement"], |program| {
        Ok(program.set_attach_target(fd, Some("replaceable".into()))?)
    })? {
        Err(refusal) => refusal,
        Ok(_) => bail!("it loads"),
    };
    ensure!(
        refusal.errno == Errno(libc::EACCES)
            && refusal
                .log
                .contains("calling kernel function bpf_halt is not allowed"),
        "another refusal was expected\n{refusal}"
    );
    Ok(())
}

/// The instructions of a program of privilege.bpf.c, ready for the kernel.
struct Prepared {
    instructions: Vec<bpf_insn>,
    module_btf: OwnedFd,
}

/// What the kernel says to instructions that it does not take.
struct Refused {
    errno: Errno,
    log: String,
}

impl Refused {
    fn error(self, what: &str) -> anyhow::Error {
        anyhow::anyhow!("{what}: not loaded: {}\n{}", self.errno, self.log)
    }
}

impl Prepared {
    fn new(name: &str) -> Result<Self> {
        let loaded = loader::load(object("destructive", "privilege")?, &[name])??;
        let instructions = program(&loaded, name)?.insns().to_vec();
        let btf = BtfInfoIter::default()
            .find(|info| info.name.to_str() == Some(MODULE))
            .context("the module has no BTF")?;
        // SAFETY: a call without pointers.
        let fd = unsafe { libbpf_sys::bpf_btf_get_fd_by_id(btf.id) };
        Ok(Self {
            instructions,
            module_btf: owned(fd).context("the module's BTF")?,
        })
    }

    fn load(&self, token: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Refused> {
        // libbpf counts the descriptors of kfuncs from 1.
        let descriptors = [0, self.module_btf.as_raw_fd()];
        let mut log = vec![0 as c_char; 64 << 10];
        let mut options = libbpf_sys::bpf_prog_load_opts {
            sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
            fd_array: descriptors.as_ptr(),
            log_level: 1,
            log_size: log.len() as u32,
            log_buf: log.as_mut_ptr(),
            ..libbpf_sys::bpf_prog_load_opts::default()
        };
        if let Some(token) = token {
            options.token_fd = token.as_raw_fd() as u32;
            options.prog_flags = libbpf_sys::BPF_F_TOKEN_FD;
        }
        // SAFETY: the strings end with NUL; instructions, descriptors and log live until the call
        // returns, and have the sizes that are given.
        let fd = unsafe {
            libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT,
                c"prepared".as_ptr(),
                c"GPL".as_ptr(),
                self.instructions.as_ptr(),
                self.instructions.len() as libbpf_sys::size_t,
                &mut options,
            )
        };
        owned(fd).map_err(|error| Refused {
            errno: Errno(error.raw_os_error().unwrap_or(0)),
            log: log
                .iter()
                .take_while(|&&c| c != 0)
                .map(|&c| c as u8 as char)
                .collect(),
        })
    }
}

fn create_token(bpffs: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: no options are allowed.
    let fd = unsafe { libbpf_sys::bpf_token_create(bpffs.as_raw_fd(), std::ptr::null_mut()) };
    owned(fd).context("making a token")
}

/// What a system call of libbpf returned: a new descriptor or a negative error number.
fn owned(fd: i32) -> std::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(std::io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel gave this descriptor to us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: namespaces only; descriptors stay shared as they are.
    unsafe { unshare_unsafe(flags) }.with_context(|| format!("unsharing {flags:?}"))
}

/// Root of a namespace with no one else in it.
fn enter_user_namespace() -> Result<()> {
    unshare(UnshareFlags::NEWUSER)?;
    for (file, text) in [
        ("setgroups", "deny"),
        ("uid_map", "0 0 1"),
        ("gid_map", "0 0 1"),
    ] {
        fs::write(format!("/proc/self/{file}"), text).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}

struct InChild {
    pid: Pid,
}

/// A copy of this process that does something and ends.
fn in_child(work: impl FnOnce() -> Result<()>) -> Result<InChild> {
    // SAFETY: a process for one test has a single thread, so that no lock is held by another.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        Some(_) if pid < 0 => Err(std::io::Error::last_os_error()).context("forking"),
        Some(pid) => Ok(InChild { pid }),
        None => match work() {
            Ok(()) => exit(0),
            Err(error) => {
                println!("{error:#}");
                exit(1)
            }
        },
    }
}

impl InChild {
    fn finish(self) -> Result<()> {
        let (_, status) = waitpid(Some(self.pid), WaitOptions::empty())?.context("no child")?;
        ensure!(
            status.exit_status() == Some(0),
            "in the namespace it went otherwise, see above"
        );
        Ok(())
    }
}
