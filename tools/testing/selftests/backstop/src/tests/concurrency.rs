// SPDX-License-Identifier: GPL-2.0
//! Two CPUs stop the machine at the same moment: exactly one action happens.
//!
//! Who comes first is not decided where both call at once: the machine ends as one of them said, and
//! the console names that one and not the other. Where the second is to come too late, it is called
//! when the first is in the midst of its work, as a probe in the kernel's own stopping function tells.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::thread::{Pid, gettid};

use super::test;
use crate::arm::Armed;
use crate::catalogue::{Test, object};
use crate::cpus::{CPUS, stay_on};
use crate::expectation::{End, Expectation, Pattern, Way};
use crate::loaded::program;
use crate::loader;
use crate::perform::{DEADLINE, await_end};
use crate::section::Section;
use crate::trigger::Attached;

macro_rules! race {
    ($name:literal, $description:literal, [$($program:literal),+], $first:expr $(, $or:expr)*) => {
        ends(
            test($name, $description, |armed| race(armed, &[$($program),+])),
            $first,
            vec![$($or),*],
        )
    };
}

pub fn tests() -> Vec<Test> {
    vec![
        // panic() may be entered by both; what counts is whose panic it is.
        race!(
            "concurrent_panic",
            "two CPUs panic at the same moment",
            ["left_panic", "right_panic"],
            way(End::Panic, &[LEFT, LEFT_PANIC], &[RIGHT_PANIC]),
            way(End::Panic, &[RIGHT, RIGHT_PANIC], &[LEFT_PANIC])
        ),
        race!(
            "concurrent_halt",
            "two CPUs halt the machine at the same moment",
            ["left_halt", "right_halt"],
            way(End::Halt, &[LEFT], &[RIGHT]),
            way(End::Halt, &[RIGHT], &[LEFT])
        ),
        race!(
            "concurrent_reboot",
            "two CPUs restart the machine at the same moment",
            ["left_reboot", "right_reboot"],
            way(End::Reset, &[LEFT], &[RIGHT]),
            way(End::Reset, &[RIGHT], &[LEFT])
        ),
        race!(
            "concurrent_power_off",
            "two CPUs power off at the same moment",
            ["left_power_off", "right_power_off"],
            way(End::PowerOff, &[LEFT], &[RIGHT]),
            way(End::PowerOff, &[RIGHT], &[LEFT])
        ),
        race!(
            "reboot_or_power_off",
            "one CPU restarts the machine when another powers it off",
            ["left_reboot", "right_power_off"],
            way(End::Reset, &[LEFT], &[RIGHT]),
            way(End::PowerOff, &[RIGHT], &[LEFT])
        ),
        race!(
            "halt_or_reboot",
            "one CPU halts the machine when another restarts it",
            ["left_halt", "right_reboot"],
            way(End::Halt, &[LEFT], &[RIGHT]),
            way(End::Reset, &[RIGHT], &[LEFT])
        ),
        // bpf_crash_dump() names its caller before it knows whether it is the first.
        with_crash_kernel(race!(
            "crash_dump_or_halt",
            "one CPU takes a dump when another halts the machine",
            ["left_crash_dump", "right_halt"],
            way(End::CrashDump, &[LEFT], &[RIGHT]),
            way(End::Halt, &[RIGHT], &[])
        )),
        race!(
            "reboot_during_panic",
            "a restart does not overtake a panic",
            ["left_panic", "late_reboot", "stopping_panic"],
            way(End::Panic, &[LEFT, LEFT_PANIC], &[LATE])
        ),
        race!(
            "power_off_during_panic",
            "a power-off does not overtake a panic",
            ["left_panic", "late_power_off", "stopping_panic"],
            way(End::Panic, &[LEFT, LEFT_PANIC], &[LATE])
        ),
        race!(
            "panic_during_reboot",
            "a panic does not overtake a restart",
            ["left_reboot", "late_panic", "stopping_reboot"],
            way(End::Reset, &[LEFT], &[LATE])
        ),
        race!(
            "halt_during_reboot",
            "a halt does not overtake a restart",
            ["left_reboot", "late_halt", "stopping_reboot"],
            way(End::Reset, &[LEFT], &[LATE])
        ),
    ]
}

/// Attributions, by the side whose program it is.
const LEFT: &str = "bpf_destructive: {{.*}} by program \"left_";
const RIGHT: &str = "bpf_destructive: {{.*}} by program \"right_";
const LATE: &str = "bpf_destructive: {{.*}} by program \"late_";
const LEFT_PANIC: &str = "Kernel panic - not syncing: the left one";
const RIGHT_PANIC: &str = "Kernel panic - not syncing: the right one";

fn way(end: End, console: &[&str], not_console: &[&str]) -> Way {
    let parse = |text: &&str| Pattern::parse(text).expect("the patterns are constant");
    Way {
        end,
        console: console.iter().map(parse).collect(),
        not_console: not_console.iter().map(parse).collect(),
    }
}

/// Gives a test the ways in which it may end.
fn ends(mut test: Test, first: Way, or: Vec<Way>) -> Test {
    test.expectation = Expectation {
        end: first.end,
        console: first.console,
        not_console: first.not_console,
        or,
        ..test.expectation
    };
    test
}

fn with_crash_kernel(mut test: Test) -> Test {
    test.expectation.crash_kernel = true;
    test
}

/// struct race with nobody there yet.
fn start(tids: [Pid; 2]) -> Vec<u8> {
    tids.iter()
        .flat_map(|tid| tid.as_raw_nonzero().get().to_ne_bytes())
        .collect()
}

fn race(armed: &Armed, programs: &[&str]) -> Result<()> {
    let loaded = loader::load(object("destructive", "concurrency")?, programs)??;
    let section = Section::of(&loaded, ".data.race")?;
    let attached = programs
        .iter()
        .map(|name| Attached::new(&program(&loaded, name)?))
        .collect::<Result<Vec<_>>>()?;

    let go = Arc::new(AtomicBool::new(false));
    let racers = CPUS.map(|cpu| {
        let go = Arc::clone(&go);
        let (send, receive) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let there = stay_on(cpu).map(|()| gettid());
            let stays = there.is_ok();
            if send.send(there).is_err() || !stays {
                return;
            }
            // Awake, for a thread that sleeps may have to be woken by one whose CPU the other side holds.
            while !go.load(Ordering::Acquire) {
                spin_loop();
            }
            // Here the program of this side runs.
            let _ = rustix::process::getpgid(None);
        });
        receive
    });
    let mut tids = Vec::new();
    for racer in racers {
        tids.push(racer.recv().context("a racer ended")??);
    }
    let tids: [Pid; 2] = tids.try_into().ok().context("two racers")?;

    armed.announce()?;
    section.write(&start(tids)).context("starting the race")?;
    go.store(true, Ordering::Release);
    let ended = await_end(Instant::now() + DEADLINE, "two calls were made and");
    ensure!(attached.len() == programs.len(), "a program was detached");
    ended
}
