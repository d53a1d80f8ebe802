// SPDX-License-Identifier: GPL-2.0
//! Loads of programs that throw while they hold something, with each allocation failing in its
//! turn: the load says ENOMEM, and nothing is left of it.

use std::ffi::{c_int, c_long};
use std::fs;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use libbpf_rs::Object as LoadedObject;
use libbpf_rs::libbpf_sys::{self, bpf_prog_load_opts, bpf_program};
use libbpf_rs::query::{BtfInfoIter, MapInfoIter, ProgInfoIter};

use super::code;
use crate::arm::Armed;
use crate::catalogue::{Test, object};
use crate::cpus::{CPUS, stay_on};
use crate::expectation::Errno;
use crate::fault;
use crate::loader;
use crate::section::Section;
use crate::test_run::run;
use crate::wait::wait_until;

const MODULES: &[&str] = &["bpf_unwind", "bpf_unwind_test"];

/// What the kernel says on the way of an allocation that is made to fail.
const COMPLAINTS: &[&str] = &[
    "vmalloc error: ",
    "percpu: allocation failed",
    "page allocation failure",
    "kmemleak: Cannot allocate",
];

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "no_memory_regions",
            "a program with one of everything loads whole or not at all",
            |_| load("region", "everything"),
        ),
        test(
            "no_memory_slots",
            "a program with as many slots as there may be loads whole or not at all",
            |_| load("shape", "sixty_four"),
        ),
        test(
            "no_memory_callbacks",
            "a program with boundaries within each other loads whole or not at all",
            |_| load("callback", "loop_nested_inlined"),
        ),
        test(
            "no_memory_dynptrs",
            "a program with dynptrs loads whole or not at all",
            |_| load("dynptr", "dynptr_clone"),
        ),
        test(
            "no_memory_refused",
            "a program that is refused for what it holds leaves nothing either",
            |_| load("refuse", "refuse_callback_holds"),
        ),
    ]
}

fn test(name: &str, description: &str, run: fn(&Armed) -> Result<()>) -> Test {
    let mut test = code("unwind", name, MODULES, description, run);
    test.expectation.fault_injection = true;
    test.expectation.complaints = COMPLAINTS;
    test
}

fn load(file: &str, name: &str) -> Result<()> {
    stay_on(CPUS[0])?;
    handle_loads()?;
    let memory = Memory::open()?;
    settle()?;
    let before = memory.taken()?;
    let loaded = loader::load(object("unwind", file)?, &[name])?;
    let failed = FAILED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    failed
        .as_ref()
        .context("nothing was loaded")?
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error:#}"))?;
    drop(loaded);
    let mut after = None;
    wait_until("something stays", || {
        after = Some(memory.taken()?);
        Ok(after.as_ref() == Some(&before))
    })
    .with_context(|| format!("before {before:?}, afterwards {after:?}"))
}

/// Waits until what libbpf has loaded on this CPU to know the kernel is gone. Programs are freed
/// in the order in which they were let go of, by work items behind a grace period: once one more
/// lets go of its module, those before it have.
fn settle() -> Result<()> {
    let before = users()?;
    let last = loader::load(object("unwind", "images")?, &["last"])??;
    ensure!(users()? != before, "the last program has no module");
    drop(last);
    wait_until("the last program is not freed", || Ok(users()? == before))
}

/// How the loads of the handler ended.
static FAILED: Mutex<Option<Result<u32>>> = Mutex::new(None);

/// Has libbpf call prepare() when it has a program ready to be loaded. Only this process does that.
fn handle_loads() -> Result<()> {
    let options = libbpf_sys::libbpf_prog_handler_opts {
        sz: size_of::<libbpf_sys::libbpf_prog_handler_opts>() as libbpf_sys::size_t,
        prog_prepare_load_fn: Some(prepare),
        ..Default::default()
    };
    // SAFETY: the string ends with NUL, the options have the size that they name, and libbpf keeps
    // neither; the handler is a function that stays.
    let handler = unsafe {
        libbpf_sys::libbpf_register_prog_handler(
            c"syscall".as_ptr(),
            libbpf_sys::BPF_PROG_TYPE_SYSCALL,
            0,
            &options,
        )
    };
    ensure!(handler > 0, "libbpf takes no handler: error {handler}");
    Ok(())
}

/// Loads the program as libbpf is about to, over and over. libbpf then loads it once more.
unsafe extern "C" fn prepare(
    program: *mut bpf_program,
    options: *mut bpf_prog_load_opts,
    _cookie: c_long,
) -> c_int {
    // SAFETY: libbpf's options are valid, and nobody else's, as long as this handler runs.
    let options = unsafe { &mut *options };
    options.prog_flags |= libbpf_sys::BPF_F_SLEEPABLE;
    // SAFETY: libbpf calls this with a program that is ready to be loaded.
    let failed = fault::fail_each(|| unsafe { load_once(program, *options) });
    *FAILED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(failed);
    0
}

/// # Safety
///
/// The program has to be ready to be loaded with these options.
unsafe fn load_once(
    program: *mut bpf_program,
    mut options: bpf_prog_load_opts,
) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller promises a program; its instructions and name live as long as it does.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SYSCALL,
            libbpf_sys::bpf_program__name(program),
            c"GPL".as_ptr(),
            libbpf_sys::bpf_program__insns(program),
            libbpf_sys::bpf_program__insn_cnt(program),
            ptr::from_mut(&mut options),
        )
    };
    if fd < 0 {
        return Err(Errno(-fd));
    }
    // SAFETY: the descriptor was opened just now, and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Looks at what programs take beside memory that kmemleak knows.
struct Memory {
    object: LoadedObject,
}

#[derive(Debug, PartialEq, Eq)]
struct Taken {
    programs: usize,
    maps: usize,
    btfs: usize,
    /// References to the modules.
    users: Vec<String>,
    /// Bytes of JITed images.
    images: u64,
}

impl Memory {
    fn open() -> Result<Self> {
        Ok(Self {
            object: loader::load(object("unwind", "images")?, &["measure"])??,
        })
    }

    fn taken(&self) -> Result<Taken> {
        let error = run(&self.object, "measure")?;
        ensure!(error == 0, "images cannot be measured: error {error}");
        let [images] = Section::of(&self.object, ".data.images")?.words()?;
        Ok(Taken {
            programs: ProgInfoIter::default().count(),
            maps: MapInfoIter::default().count(),
            btfs: BtfInfoIter::default().count(),
            users: users()?,
            images,
        })
    }
}

/// How many refer to each of the modules.
fn users() -> Result<Vec<String>> {
    let files = MODULES
        .iter()
        .map(|module| format!("/sys/module/{module}/refcnt"));
    files
        .map(|file| fs::read_to_string(&file).context(file))
        .collect()
}
