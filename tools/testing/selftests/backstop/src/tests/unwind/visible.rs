// SPDX-License-Identifier: GPL-2.0
//! What user space sees of throws: the report in the stderr stream, the count in fdinfo, the
//! tracepoint, and the program itself.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::Object as LoadedObject;
use libbpf_rs::libbpf_sys::{self, bpf_insn, bpf_line_info, bpf_prog_info};
use regex::Regex;

use super::directory::Directory;
use super::{COOKIE, RUNS, ensure_caught, load, test};
use crate::arm::Armed;
use crate::catalogue::Test;
use crate::loaded::{program, program_id, stderr};
use crate::section::Section;
use crate::test_run::{PACKET, run, run_fd_with};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "report",
            "the stderr stream says what was thrown where, and what was released",
            report,
        ),
        test(
            "report_in_callback",
            "the report of a throw in a callback goes on with what was released behind it",
            report_in_callback,
        ),
        test(
            "report_rate",
            "of many throws all are counted, and at most one a second is reported",
            report_rate,
        ),
        test(
            "counts",
            "fdinfo has the number of throws of that program",
            counts,
        ),
        test(
            "tracepoint",
            "the tracepoint has program, cookie, address and numbers of each part of a throw",
            tracepoint,
        ),
        test(
            "tracepoint_text",
            "the tracepoint's text in tracefs says the same",
            tracepoint_text,
        ),
        test(
            "dump",
            "instructions, code and lines of programs that throw can be dumped",
            dump,
        ),
    ]
}

/// The text begins with lines that match these, in this order, and no others.
fn ensure_lines(text: &str, patterns: &[&str]) -> Result<()> {
    let mut lines = text.lines();
    for pattern in patterns {
        let line = lines.next().unwrap_or_default();
        ensure!(
            Regex::new(&format!("^{pattern}$"))?.is_match(line),
            "'{line}' where '{pattern}' was expected in\n{text}"
        );
    }
    Ok(())
}

/// The functions and source lines of the program in a call trace, innermost first.
fn frames(text: &str) -> Result<Vec<(String, String)>> {
    let frame = Regex::new(
        r"(?m)^bpf_prog_[0-9a-f]{16}_(\w+)\+0x[0-9a-f]+/0x[0-9a-f]+\n  (.*) @ \S*visible\.bpf\.c:\d+$",
    )?;
    Ok(frame
        .captures_iter(text)
        .map(|found| (found[1].to_owned(), found[2].trim().to_owned()))
        .collect())
}

fn report(_: &Armed) -> Result<()> {
    let loaded = load("visible", &["throws"])?;
    ensure!(
        stderr(&loaded, "throws")?.is_empty(),
        "a report without a throw"
    );
    ensure_caught("throws", run(&loaded, "throws")?)?;
    let text = stderr(&loaded, "throws")?;
    ensure_lines(
        &text,
        &[
            "ERROR: Exception thrown",
            "Cookie           = 0x2a",
            "Total released   = 3",
            r"Released\[ 0\]     = bpf_unwind_node, acquired by insn \d+",
            r"Released\[ 1\]     = bpf_unwind_object, acquired by insn \d+",
            r"Released\[ 2\]     = RCU read section",
            r"CPU: \d+ UID: 0 PID: \d+ Comm: backstop_selfte",
            "Call trace:",
        ],
    )?;
    let pid = std::process::id();
    ensure!(
        text.contains(&format!(" PID: {pid} ")),
        "another process than {pid} in\n{text}"
    );
    let frame = |function: &str, line: &str| (function.to_owned(), line.to_owned());
    let expected = [
        frame("thrower", "bpf_throw(COOKIE);"),
        frame("throws", "ret = thrower('b');"),
    ];
    ensure!(
        frames(&text)? == expected,
        "the frames are not {expected:?} in\n{text}"
    );
    ensure!(
        stderr(&loaded, "throws")?.is_empty(),
        "the report was not taken"
    );
    Ok(())
}

fn report_in_callback(_: &Armed) -> Result<()> {
    let loaded = load("visible", &["throws_in_callback"])?;
    ensure_caught("throws_in_callback", run(&loaded, "throws_in_callback")?)?;
    let text = stderr(&loaded, "throws_in_callback")?;
    ensure_lines(
        &text,
        &[
            "ERROR: Exception thrown",
            "Cookie           = 0x2a",
            "Total released   = 1",
            r"Released\[ 0\]     = bpf_unwind_object, acquired by insn \d+",
            "CPU: .*",
            "Call trace:",
        ],
    )?;
    let functions: Vec<_> = frames(&text)?.into_iter().map(|(name, _)| name).collect();
    ensure!(
        functions == ["thrower", "step", "throws_in_callback"],
        "other frames in\n{text}"
    );
    // The call trace ends with an empty line.
    let (_, behind) = text.split_once("\n\n").context("no end of the trace")?;
    ensure_lines(
        behind,
        &[
            "Total released   = 1",
            r"Released\[ 0\]     = bpf_unwind_node, acquired by insn \d+",
        ],
    )?;
    ensure!(behind.lines().count() == 2, "more than that:\n{text}");
    Ok(())
}

/// struct ticks
fn ticks(loaded: &LoadedObject) -> Result<(u64, u64)> {
    run(loaded, "tick")?;
    let [now, a_second] = Section::of(loaded, ".data.ticks")?.words()?;
    Ok((now, a_second))
}

fn report_rate(_: &Armed) -> Result<()> {
    const MANY: u32 = 1000;
    let loaded = load("visible", &["throws_plainly", "tick"])?;
    let fd = program(&loaded, "throws_plainly")?
        .as_fd()
        .try_clone_to_owned()?;
    let (begin, a_second) = ticks(&loaded)?;
    let mut thrown = 0;
    let mut text = String::new();
    // The kernel's own clock, between whose ticks nothing can be seen.
    loop {
        let retval = run_fd_with(fd.as_fd(), &PACKET, MANY)?;
        ensure_caught("throws_plainly", retval)?;
        thrown += u64::from(MANY);
        let (now, _) = ticks(&loaded)?;
        text += &stderr(&loaded, "throws_plainly")?;
        let reports = text.matches("ERROR: Exception thrown").count() as u64;
        ensure!(reports != 0, "the first throw was not reported");
        ensure!(
            reports <= 1 + (now - begin) / a_second,
            "{reports} reports within {} ticks",
            now - begin
        );
        ensure!(
            throws(fd.as_fd())? == thrown,
            "{} throws were counted, not {thrown}",
            throws(fd.as_fd())?
        );
        if reports > 1 {
            return Ok(());
        }
        ensure!(
            now - begin < 30 * a_second,
            "one report in {} s",
            (now - begin) / a_second
        );
    }
}

/// The count in fdinfo.
pub fn throws(program: BorrowedFd<'_>) -> Result<u64> {
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let throws = fdinfo.lines().find_map(|line| line.strip_prefix("throws:"));
    Ok(throws.context("no throws in fdinfo")?.trim().parse()?)
}

fn counts(_: &Armed) -> Result<()> {
    let names = ["throws", "throws_in_callback", "throws_never"];
    let loaded = load("visible", &names)?;
    let counts = || -> Result<Vec<_>> {
        let count = |name| throws(program(&loaded, name)?.as_fd());
        names.into_iter().map(count).collect()
    };
    ensure!(counts()? == [0, 0, 0], "counted before: {:?}", counts()?);
    for _ in 0..RUNS {
        ensure_caught("throws", run(&loaded, "throws")?)?;
    }
    // One throw, though it has two parts.
    ensure_caught("throws_in_callback", run(&loaded, "throws_in_callback")?)?;
    ensure_caught("throws_never", run(&loaded, "throws_never")?)?;
    let expected = [RUNS as u64, 1, 0];
    ensure!(
        counts()? == expected,
        "{:?} instead of {expected:?}",
        counts()?
    );
    Ok(())
}

/// EVENTS of progs/unwind/visible.bpf.c
const EVENTS: usize = 4;

/// struct event
#[derive(Debug)]
struct Event {
    cookie: u64,
    ip: u64,
    prog: u32,
    frames: u32,
    released: u32,
    resumed: u32,
}

/// Runs a program and returns what the tracepoint says about it.
fn hear(loaded: &LoadedObject, name: &str) -> Result<Vec<Event>> {
    let heard = Section::of(loaded, ".data.heard")?;
    heard.write(&[])?;
    ensure_caught(name, run(loaded, name)?)?;
    let [count, events @ ..]: [u64; 1 + 4 * EVENTS] = heard.words()?;
    let low = |word: u64| word as u32;
    let high = |word: u64| (word >> 32) as u32;
    let events = events.chunks_exact(4).map(|event| Event {
        cookie: event[0],
        ip: event[1],
        prog: low(event[2]),
        frames: high(event[2]),
        released: low(event[3]),
        resumed: high(event[3]),
    });
    Ok(events.take(count as usize).collect())
}

/// The function of the kernel or of a program that an address belongs to.
fn function_at(address: u64) -> Result<String> {
    let symbols = symbols()?;
    let below = symbols.iter().filter(|(start, _)| **start < address);
    let (_, name) = below.max_by_key(|(start, _)| **start).context("nowhere")?;
    Ok(name.clone())
}

/// The symbols of the kernel, its modules and programs, by address.
fn symbols() -> Result<HashMap<u64, String>> {
    let text = fs::read_to_string("/proc/kallsyms")?;
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        Some((address, words.nth(1)?.to_owned()))
    };
    Ok(text.lines().filter_map(symbol).collect())
}

fn tracepoint(_: &Armed) -> Result<()> {
    let loaded = load("visible", &["throws", "throws_in_callback", "on_throw"])?;
    let _link = program(&loaded, "on_throw")?.attach()?;

    let events = hear(&loaded, "throws")?;
    let [event] = &events[..] else {
        bail!("not one event: {events:?}")
    };
    let expected = (COOKIE as u64, program_id(&loaded, "throws")?, 2, 3, 0);
    let said = (
        event.cookie,
        event.prog,
        event.frames,
        event.released,
        event.resumed,
    );
    ensure!(said == expected, "{events:?} instead of {expected:?}");
    let function = function_at(event.ip)?;
    ensure!(
        function.ends_with("_thrower"),
        "thrown in {function}, not in thrower"
    );

    let events = hear(&loaded, "throws_in_callback")?;
    let said: Vec<_> = events
        .iter()
        .map(|event| (event.cookie, event.frames, event.released, event.resumed))
        .collect();
    // The callback and what it has called, then the main program.
    let expected = [(COOKIE as u64, 2, 1, 0), (COOKIE as u64, 1, 1, 1)];
    ensure!(said == expected, "{events:?} instead of {expected:?}");
    let program = program_id(&loaded, "throws_in_callback")?;
    ensure!(
        events.iter().all(|event| event.prog == program),
        "another program: {events:?}"
    );
    let function = function_at(events[1].ip)?;
    ensure!(
        function.ends_with("_throws_in_callback"),
        "the throw went on in {function}"
    );
    Ok(())
}

fn tracepoint_text(_: &Armed) -> Result<()> {
    let loaded = load("visible", &["throws"])?;
    let fd = program(&loaded, "throws")?;
    let tag = info(fd.as_fd())?.0.tag;
    let tag = format!("{:016x}", u64::from_be_bytes(tag));
    // A trace buffer of its own.
    let buffer = Directory::new("/sys/kernel/tracing/instances/throws".into())?;
    let enable = buffer.path.join("events/bpf/bpf_prog_throw/enable");
    fs::write(&enable, "1").context("enabling the tracepoint")?;
    ensure_caught("throws", run(&loaded, "throws")?)?;
    fs::write(&enable, "0").context("disabling the tracepoint")?;
    let text = fs::read_to_string(buffer.path.join("trace"))?;
    let line = format!(
        r"(?m) bpf_prog_throw: prog_id={} prog_tag={tag} prog_name=throws cookie=0x2a ip=bpf_prog_[0-9a-f]{{16}}_thrower\+0x\S+ frames=2 released=3 resumed=0$",
        program_id(&loaded, "throws")?
    );
    ensure!(Regex::new(&line)?.is_match(&text), "no '{line}' in\n{text}");
    Ok(())
}

/// What is dumped of a program.
#[derive(Default)]
struct Dump {
    instructions: Vec<bpf_insn>,
    code: Vec<u8>,
    /// Where its functions begin, and how long they are.
    functions: Vec<u64>,
    lengths: Vec<u32>,
    lines: Vec<bpf_line_info>,
    /// Where the code of each line begins.
    code_lines: Vec<u64>,
}

/// Asks for a program, for sizes first.
fn info(program: BorrowedFd<'_>) -> Result<(bpf_prog_info, Dump)> {
    let get = |info: &mut bpf_prog_info| {
        let mut len = size_of::<bpf_prog_info>() as u32;
        // SAFETY: `info` is as long as is said, and its buffers are as long as it says.
        let error =
            unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), info, &mut len) };
        ensure!(error == 0, "asking for the program: error {error}");
        Ok(())
    };
    let mut sizes = bpf_prog_info::default();
    get(&mut sizes)?;
    let mut dump = Dump {
        instructions: vec![
            bpf_insn::default();
            sizes.xlated_prog_len as usize / size_of::<bpf_insn>()
        ],
        code: vec![0; sizes.jited_prog_len as usize],
        functions: vec![0; sizes.nr_jited_ksyms as usize],
        lengths: vec![0; sizes.nr_jited_func_lens as usize],
        lines: vec![bpf_line_info::default(); sizes.nr_line_info as usize],
        code_lines: vec![0; sizes.nr_jited_line_info as usize],
    };
    let mut info = bpf_prog_info {
        xlated_prog_len: sizes.xlated_prog_len,
        xlated_prog_insns: dump.instructions.as_mut_ptr() as u64,
        jited_prog_len: sizes.jited_prog_len,
        jited_prog_insns: dump.code.as_mut_ptr() as u64,
        nr_jited_ksyms: sizes.nr_jited_ksyms,
        jited_ksyms: dump.functions.as_mut_ptr() as u64,
        nr_jited_func_lens: sizes.nr_jited_func_lens,
        jited_func_lens: dump.lengths.as_mut_ptr() as u64,
        nr_line_info: sizes.nr_line_info,
        line_info: dump.lines.as_mut_ptr() as u64,
        line_info_rec_size: sizes.line_info_rec_size,
        nr_jited_line_info: sizes.nr_jited_line_info,
        jited_line_info: dump.code_lines.as_mut_ptr() as u64,
        jited_line_info_rec_size: sizes.jited_line_info_rec_size,
        ..bpf_prog_info::default()
    };
    get(&mut info)?;
    Ok((info, dump))
}

impl Dump {
    /// Each instruction is one that there is, and what it refers to is there.
    fn check_instructions(&self) -> Result<()> {
        let count = self.instructions.len();
        let seconds: HashSet<_> = (0..count)
            .filter(|&i| self.instructions[i].code == LD_IMM64)
            .map(|i| i + 1)
            .collect();
        for (i, insn) in self.instructions.iter().enumerate() {
            let whole = match seconds.contains(&i) {
                true => insn.code == 0,
                false => is_instruction(insn.code),
            };
            ensure!(whole, "instruction {i} is none: {insn:?}");
            let target = match (insn.code & 7, insn.code & 0xf0) {
                (JMP, CALL) if insn.src_reg() == PSEUDO_CALL => {
                    ensure!(
                        (insn.imm as usize) < self.functions.len(),
                        "instruction {i} calls no function: {insn:?}"
                    );
                    continue;
                }
                (JMP, CALL | EXIT) => continue,
                (JMP32, JA) => insn.imm,
                (JMP | JMP32, _) => insn.off.into(),
                _ => continue,
            };
            let target = (i + 1).checked_add_signed(target as isize);
            ensure!(
                target.is_some_and(|target| target < count && !seconds.contains(&target)),
                "instruction {i} jumps to none: {insn:?}"
            );
        }
        Ok(())
    }

    /// The instructions that call a function of the kernel. What is called is one.
    fn calls(&self, function: &str) -> Result<Vec<usize>> {
        let symbols = symbols()?;
        let base = symbols.iter().find(|(_, name)| *name == "__bpf_call_base");
        let (base, _) = base.context("no __bpf_call_base")?;
        let mut found = Vec::new();
        for (i, insn) in self.instructions.iter().enumerate() {
            if insn.code != JMP | CALL || insn.src_reg() == PSEUDO_CALL {
                continue;
            }
            let called = symbols.get(&base.wrapping_add_signed(insn.imm.into()));
            let called = called.with_context(|| format!("{i} calls nothing: {insn:?}"))?;
            if called == function {
                found.push(i);
            }
        }
        Ok(found)
    }

    /// The code is all of its functions, and every line begins in one of them.
    fn check_code(&self) -> Result<()> {
        let total: u32 = self.lengths.iter().sum();
        ensure!(
            self.functions.len() == self.lengths.len() && total as usize == self.code.len(),
            "{} functions, {} lengths, {total} bytes of {}",
            self.functions.len(),
            self.lengths.len(),
            self.code.len()
        );
        ensure!(
            self.code_lines.len() == self.lines.len(),
            "{} lines of instructions, {} of code",
            self.lines.len(),
            self.code_lines.len()
        );
        let functions = || self.functions.iter().zip(&self.lengths);
        for line in &self.code_lines {
            ensure!(
                functions().any(|(&start, &len)| (start..start + u64::from(len)).contains(line)),
                "line at {line:#x} in no function"
            );
        }
        Ok(())
    }

    /// Lines are in the order of instructions, and of code within each function.
    fn check_lines(&self) -> Result<()> {
        let offsets: Vec<_> = self.lines.iter().map(|line| line.insn_off).collect();
        ensure!(
            offsets.is_sorted() && offsets.first() == Some(&0),
            "lines out of order: {offsets:?}"
        );
        let last = offsets.last().copied().unwrap_or_default();
        ensure!(
            (last as usize) < self.instructions.len(),
            "line of no instruction: {last}"
        );
        let code_lines = &self.code_lines;
        let backwards = code_lines.windows(2).filter(|pair| pair[0] > pair[1]);
        ensure!(
            backwards.count() < self.functions.len(),
            "code out of order: {code_lines:#x?}"
        );
        Ok(())
    }
}

const LD_IMM64: u8 = 0x18;
const JMP: u8 = 5;
const JMP32: u8 = 6;
const JA: u8 = 0;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
const PSEUDO_CALL: u8 = 1;

/// As Documentation/bpf/standardization/instruction-set.rst has them.
fn is_instruction(code: u8) -> bool {
    let register = code & 8 != 0;
    match (code & 7, code & 0xf0, code & 0xe0) {
        (0, _, _) => [LD_IMM64, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50].contains(&code),
        // LDX: MEM, MEMSX
        (1, _, mode) => [0x60, 0x80].contains(&mode),
        // ST: MEM, and the kernel's speculation barrier
        (2, _, mode) => [0x60, 0xc0].contains(&mode),
        // STX: MEM, ATOMIC
        (3, _, mode) => [0x60, 0xc0].contains(&mode),
        (4 | 7, op, _) => op <= 0xd0,
        (JMP, CALL | EXIT, _) => !register,
        (JMP, op, _) => op <= 0xd0,
        (JMP32, op, _) => op <= 0xd0 && op != CALL && op != EXIT,
        _ => false,
    }
}

fn dump(_: &Armed) -> Result<()> {
    // Behind the loop, a throw of its callback goes on. The functions that are called come last.
    const PROGRAMS: [(&str, &[&str]); 3] = [
        (
            "throws",
            &["bpf_throw(COOKIE + 1 + ret);", "bpf_throw(COOKIE);"],
        ),
        (
            "throws_in_callback",
            &[
                "bpf_loop(5, step, NULL, 0);",
                "bpf_throw(COOKIE + 1);",
                "bpf_throw(COOKIE);",
            ],
        ),
        ("throws_plainly", &["bpf_throw(COOKIE);"]),
    ];
    let loaded = load("visible", &PROGRAMS.map(|(name, _)| name))?;
    for (name, lines) in PROGRAMS {
        let (info, dump) = info(program(&loaded, name)?.as_fd())?;
        dump.check_instructions().context(name)?;
        dump.check_code().context(name)?;
        dump.check_lines().context(name)?;
        check_source(name, lines, &info, &dump)?;
    }
    Ok(())
}

/// The instructions that throw have their lines of the source.
fn check_source(name: &str, lines: &[&str], info: &bpf_prog_info, dump: &Dump) -> Result<()> {
    // SAFETY: `dump` has the buffers that `info` says.
    let linfo = unsafe { libbpf_sys::bpf_prog_linfo__new(info) };
    ensure!(!linfo.is_null(), "libbpf understands no line of {name}");
    // SAFETY: any number; what is returned is a whole string, or NULL.
    let btf = unsafe { libbpf_sys::btf__load_from_kernel_by_id(info.btf_id) };
    let text = |insn: usize| {
        // SAFETY: `linfo` is what libbpf made just now.
        let line = unsafe { libbpf_sys::bpf_prog_linfo__lfind(linfo, insn as u32, 0) };
        // SAFETY: it is NULL or one of the lines, of which `btf` has the text.
        unsafe {
            let text = libbpf_sys::btf__str_by_offset(btf, line.as_ref()?.line_off);
            Some(
                CStr::from_ptr(text.as_ref()?)
                    .to_string_lossy()
                    .trim()
                    .to_owned(),
            )
        }
    };
    let calls = dump.calls("bpf_throw_stub").context(name.to_owned())?;
    let texts: Vec<_> = calls.into_iter().filter_map(text).collect();
    // SAFETY: both are libbpf's, and nobody else's.
    unsafe {
        libbpf_sys::bpf_prog_linfo__free(linfo);
        libbpf_sys::btf__free(btf);
    }
    ensure!(
        texts == lines,
        "{name} throws at the lines {texts:?}, not {lines:?}"
    );
    Ok(())
}
