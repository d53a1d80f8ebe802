// SPDX-License-Identifier: GPL-2.0
//! What programs stand on: the maps and types of progs/unwind/fuzz.bpf.c, the kfuncs of this kernel, and
//! the look at the machine after each run.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::libbpf_sys as sys;
use libbpf_rs::{
    AsRawLibbpf, Link, MapCore, MapFlags, MapHandle, Object as LoadedObject, Program, ProgramInput,
    RingBuffer, RingBufferBuilder,
};

use super::assemble::{Assembler, FunctionType, Names};
use super::judge::Outcome;
use super::state::{Input, Remains, State};
use crate::catalogue::object;
use crate::loaded::program;
use crate::loader;
use crate::test_run::{PACKET, run_fd_with};

const MODULE: &CStr = c"bpf_unwind_test";
/// Its place in the array of descriptors. 0 is the kernel itself.
const MODULE_INDEX: i16 = 1;

const COUNTING: [&str; 6] = [
    "count_bpf_obj_new",
    "count_bpf_obj_drop",
    "count_bpf_percpu_obj_new",
    "count_bpf_percpu_obj_drop",
    "count_bpf_cpumask_create",
    "count_bpf_cpumask_release",
];

/// What the verifier says of the whole program fits.
const STATS_SIZE: usize = 1 << 12;
/// The last of the verifier's log fits.
const LOG_SIZE: usize = 1 << 20;

pub struct Ground {
    object: LoadedObject,
    maps: HashMap<String, MapHandle>,
    kernel: KernelTypes,
    module: OwnedFd,
    functions: HashMap<FunctionType, u32>,
    last: Remains,
    ring: RingBuffer<'static>,
    _counting: Vec<Link>,
}

/// A program that the verifier has accepted.
pub struct Loaded {
    fd: OwnedFd,
    id: u32,
    network: bool,
    /// Why it has no deadline, though the module is there.
    pub no_deadline: Option<String>,
}

/// Why the verifier has not: what it said last, and all that it said.
pub struct Refused {
    pub reason: String,
    pub log: String,
}

impl Ground {
    pub fn new() -> Result<Self> {
        let mut programs = vec!["look"];
        programs.extend(COUNTING);
        let object = loader::load(object("unwind", "fuzz")?, &programs)??;
        let counting = COUNTING
            .iter()
            .map(|name| Ok(program(&object, name)?.attach()?))
            .collect::<Result<Vec<_>>>()?;
        let maps = object
            .maps()
            .map(|map| {
                let name = map.name().to_string_lossy().into_owned();
                Ok((name, MapHandle::try_from(&map)?))
            })
            .collect::<Result<_>>()?;
        let maps: HashMap<String, MapHandle> = maps;
        let mut ring = RingBufferBuilder::new();
        ring.add(maps.get("ring").context("no ring buffer")?, |_| 0)?;
        let mut ground = Self {
            ring: ring.build()?,
            object,
            maps,
            kernel: KernelTypes::open()?,
            module: module_fd()?,
            functions: HashMap::new(),
            last: Remains::default(),
            _counting: counting,
        };
        for (of, name) in [
            (FunctionType::Main, c"main_plain"),
            (FunctionType::MainCaught, c"main_caught"),
            (FunctionType::Static, c"static_function"),
            (FunctionType::Global, c"global_function"),
            (FunctionType::ExceptionCallback, c"caught"),
        ] {
            let id = ground.own_type(name, sys::BTF_KIND_FUNC)?;
            ground.functions.insert(of, id);
        }
        for key in 0u32..3 {
            let value = [0; 8];
            ground
                .map_handle("hash")?
                .update(&key.to_ne_bytes(), &value, MapFlags::ANY)?;
        }
        ground.look(0)?;
        Ok(ground)
    }

    fn map_handle(&self, name: &str) -> Result<&MapHandle> {
        self.maps
            .get(name)
            .with_context(|| format!("no map {name}"))
    }

    /// The id of a type of progs/unwind/fuzz.bpf.c.
    fn own_type(&self, name: &CStr, kind: u32) -> Result<u32> {
        // SAFETY: the object is there as long as `self`, and its types as long as it is.
        let id = unsafe {
            let btf = sys::bpf_object__btf(self.object.as_libbpf_object().as_ptr());
            sys::btf__find_by_name_kind(btf, name.as_ptr(), kind)
        };
        ensure!(id > 0, "{name:?} is no type of the object");
        Ok(id as u32)
    }

    /// Has the verifier look at a program. The outer error is one of the test itself.
    pub fn load(
        &self,
        asm: &Assembler,
        network: bool,
        many_states: bool,
    ) -> Result<std::result::Result<Loaded, Refused>> {
        let linked = asm.link(self)?;
        let descriptors = [0, self.module.as_raw_fd()];
        let mut flags = 0;
        if many_states {
            flags |= sys::BPF_F_TEST_STATE_FREQ;
        }
        if !network {
            flags |= sys::BPF_F_SLEEPABLE;
        }
        // SAFETY: the object is there.
        let btf = unsafe { sys::bpf_object__btf_fd(self.object.as_libbpf_object().as_ptr()) };
        let mut said = [0u8; STATS_SIZE];
        let mut opts = sys::bpf_prog_load_opts {
            sz: size_of::<sys::bpf_prog_load_opts>() as sys::size_t,
            attempts: 1,
            prog_btf_fd: btf as u32,
            prog_flags: flags,
            fd_array: descriptors.as_ptr(),
            func_info: linked.functions.as_ptr().cast(),
            func_info_cnt: linked.functions.len() as u32,
            func_info_rec_size: size_of::<[u32; 2]>() as u32,
            log_level: loader::LOG_STATS,
            log_buf: said.as_mut_ptr().cast(),
            log_size: said.len() as u32,
            ..Default::default()
        };
        let kind = match network {
            true => sys::BPF_PROG_TYPE_SCHED_CLS,
            false => sys::BPF_PROG_TYPE_SYSCALL,
        };
        let load = |opts: &mut sys::bpf_prog_load_opts| {
            // SAFETY: all that `opts` points to is as long as it says and outlives the call.
            unsafe {
                sys::bpf_prog_load(
                    kind,
                    c"fuzz".as_ptr(),
                    c"GPL".as_ptr(),
                    linked.insns.as_ptr().cast(),
                    linked.insns.len() as sys::size_t,
                    opts,
                )
            }
        };
        let mut fd = load(&mut opts);
        if fd < 0 {
            let mut log = vec![0u8; LOG_SIZE];
            opts.log_level = 1;
            opts.log_buf = log.as_mut_ptr().cast();
            opts.log_size = LOG_SIZE as u32;
            fd = load(&mut opts);
            ensure!(
                fd < 0,
                "a program was refused, and is not when loaded again"
            );
            let log = CStr::from_bytes_until_nul(&log)?
                .to_string_lossy()
                .into_owned();
            let reason =
                reason(&log).unwrap_or_else(|| io::Error::from_raw_os_error(-fd).to_string());
            return Ok(Err(Refused { reason, log }));
        }
        // SAFETY: the kernel gave this descriptor to us just now.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let log = CStr::from_bytes_until_nul(&said)?.to_string_lossy();
        Ok(Ok(Loaded {
            id: Program::id_from_fd(fd.as_fd())?,
            fd,
            network,
            no_deadline: no_deadline(&log),
        }))
    }

    /// Runs a program, and looks at what is left.
    pub fn run(&mut self, loaded: &Loaded, input: Input) -> Result<Outcome> {
        let key = 0u32.to_ne_bytes();
        let state = ".data.state";
        self.map_handle(state)?
            .update(&key, &input.to_bytes(), MapFlags::ANY)?;
        let packet: &[u8] = if loaded.network { &PACKET } else { &[] };
        let retval = run_fd_with(loaded.fd.as_fd(), packet, 0)?;
        let before = self.last.clone();
        self.look(loaded.id)?;
        let value = self.map_handle(state)?.lookup(&key, MapFlags::ANY)?;
        Ok(Outcome {
            retval,
            state: State::from_bytes(&value.context("no state")?)?,
            before,
            remains: self.last.clone(),
        })
    }

    fn look(&mut self, ran: u32) -> Result<()> {
        self.ring.consume()?;
        let mut context = ran.to_ne_bytes();
        let input = ProgramInput {
            context_in: Some(&mut context),
            ..ProgramInput::default()
        };
        program(&self.object, "look")?
            .test_run(input)
            .context("looking at what is left")?;
        let remains = self.map_handle(".data.remains")?;
        let value = remains.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        self.last = Remains::from_bytes(&value.context("no remains")?)?;
        Ok(())
    }
}

impl Names for Ground {
    fn kfunc(&self, name: &str) -> Result<(i32, i16)> {
        self.kernel.kfunc(name)
    }

    fn map(&self, name: &str) -> Result<i32> {
        Ok(self.map_handle(name)?.as_fd().as_raw_fd())
    }

    fn function_type(&self, of: FunctionType) -> u32 {
        self.functions.get(&of).copied().unwrap_or_default()
    }

    fn local_type(&self, name: &str) -> Result<i32> {
        Ok(self.own_type(&CString::new(name)?, sys::BTF_KIND_STRUCT)? as i32)
    }
}

/// The types of the kernel and of the module.
struct KernelTypes {
    kernel: NonNull<sys::btf>,
    module: NonNull<sys::btf>,
    found: RefCell<HashMap<String, (i32, i16)>>,
}

impl KernelTypes {
    fn open() -> Result<Self> {
        // SAFETY: it takes nothing.
        let kernel = NonNull::new(unsafe { sys::btf__load_vmlinux_btf() });
        let kernel = kernel.context("the kernel has no BTF")?;
        // SAFETY: the name ends with a NUL, and the types it builds upon live as long as its own.
        let module = unsafe { sys::btf__load_module_btf(MODULE.as_ptr(), kernel.as_ptr()) };
        Ok(Self {
            kernel,
            module: NonNull::new(module).with_context(|| format!("{MODULE:?} has no BTF"))?,
            found: RefCell::default(),
        })
    }

    fn kfunc(&self, name: &str) -> Result<(i32, i16)> {
        if let Some(&found) = self.found.borrow().get(name) {
            return Ok(found);
        }
        let symbol = CString::new(name)?;
        let kind = sys::BTF_KIND_FUNC;
        // SAFETY: both are there as long as `self`.
        let ids = unsafe {
            [
                sys::btf__find_by_name_kind(self.kernel.as_ptr(), symbol.as_ptr(), kind),
                sys::btf__find_by_name_kind(self.module.as_ptr(), symbol.as_ptr(), kind),
            ]
        };
        let found = match ids {
            [id, _] if id > 0 => (id, 0),
            [_, id] if id > 0 => (id, MODULE_INDEX),
            _ => bail!("no kfunc {name}"),
        };
        self.found.borrow_mut().insert(name.to_owned(), found);
        Ok(found)
    }
}

impl Drop for KernelTypes {
    fn drop(&mut self) {
        // SAFETY: they are ours, and nothing refers to them any more.
        unsafe {
            sys::btf__free(self.module.as_ptr());
            sys::btf__free(self.kernel.as_ptr());
        }
    }
}

/// A descriptor of the types of the module.
fn module_fd() -> Result<OwnedFd> {
    let mut id = 0;
    loop {
        // SAFETY: it writes one number.
        let error = unsafe { sys::bpf_btf_get_next_id(id, &mut id) };
        ensure!(error == 0, "{MODULE:?} has no BTF in the kernel");
        // SAFETY: it takes a number.
        let fd = unsafe { sys::bpf_btf_get_fd_by_id(id) };
        if fd < 0 {
            continue;
        }
        // SAFETY: the kernel gave this descriptor to us just now.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut name = [0u8; 64];
        let mut info = sys::bpf_btf_info {
            name: name.as_mut_ptr() as u64,
            name_len: name.len() as u32,
            ..Default::default()
        };
        let mut len = size_of_val(&info) as u32;
        // SAFETY: `info` is as long as `len`, and the name as `name_len` says.
        let error = unsafe {
            sys::bpf_obj_get_info_by_fd(fd.as_raw_fd(), (&raw mut info).cast(), &mut len)
        };
        if error == 0 && CStr::from_bytes_until_nul(&name).is_ok_and(|name| name == MODULE) {
            return Ok(fd);
        }
    }
}

/// Why the verifier has let go of the deadline of a program.
fn no_deadline(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.starts_with("no deadline: "))?;
    Some(without_numbers(line))
}

/// The verifier's last word before its report, with the numbers taken out.
fn reason(log: &str) -> Option<String> {
    let log = log.split("\nVerification failed: ").next()?;
    let mut lines = log.lines().rev();
    let line = lines.find(|line| !line.trim().is_empty() && !line.starts_with("processed "))?;
    Some(without_numbers(line))
}

fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    let mut number = false;
    for c in line.chars() {
        if !c.is_ascii_digit() {
            text.push(c);
        } else if !number {
            text.push('N');
        }
        number = c.is_ascii_digit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_the_reason() {
        let log = "0: R1=ctx()\nR12 is bad at 34\nprocessed 3 insns\n\n";
        assert_eq!(reason(log).as_deref(), Some("RN is bad at N"));
        let log = "R12 is bad at 34\n\nVerification failed: x\n\nReason:\n  y\nprocessed 3 insns\n";
        assert_eq!(reason(log).as_deref(), Some("RN is bad at N"));
        assert_eq!(reason(""), None);
    }

    #[test]
    fn a_deadline_that_is_let_go_of_is_noticed() {
        let log = "no deadline: x#1: 65 slots\nverification time 3 usec\nprocessed 3 insns\n";
        let why = no_deadline(log);
        assert_eq!(why.as_deref(), Some("no deadline: x#N: N slots"));
        assert_eq!(no_deadline("processed 3 insns\n"), None);
    }
}
