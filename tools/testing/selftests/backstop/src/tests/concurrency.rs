// SPDX-License-Identifier: GPL-2.0
//! Two CPUs stop the machine at the same moment: exactly one action happens.
//!
//! Who comes first is not decided where both call at once, so there both call the same kfunc, and
//! the host sees one end. Where the kfuncs differ, the second is called when the first is in the
//! midst of its work, as a probe in the kernel's own stopping function tells: the machine must then
//! end as the first one says, and the host sees the wrong one if the second gets through.

use std::mem::size_of;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use libbpf_rs::{MapCore, MapFlags};
use rustix::thread::{CpuSet, Pid, gettid, sched_setaffinity};

use crate::arm::Armed;
use crate::catalogue::{Body, Test, object};
use crate::expectation::{End, Expectation, Pattern};
use crate::loader;
use crate::perform::{DEADLINE, await_end, program};
use crate::trigger::Attached;

macro_rules! race {
    ($name:literal, $end:expr, $description:literal, $console:expr, [$($program:literal),+]) => {
        Test {
            name: concat!("destructive/", $name).into(),
            expectation: Expectation {
                description: $description.into(),
                end: $end,
                console: $console.iter().filter_map(|text| Pattern::parse(text).ok()).collect(),
                ..Expectation::default()
            },
            body: Body::Code {
                modules: &["bpf_destructive"],
                run: |armed| race(armed, &[$($program),+]),
            },
        }
    };
}

pub fn tests() -> Vec<Test> {
    vec![
        race!(
            "concurrent_panic",
            End::Panic,
            "two CPUs panic at the same moment",
            ["bpf_panic by program", "Kernel panic - not syncing"],
            ["left_panic", "right_panic"]
        ),
        race!(
            "concurrent_halt",
            End::Halt,
            "two CPUs halt the machine at the same moment",
            ["bpf_halt by program"],
            ["left_halt", "right_halt"]
        ),
        race!(
            "concurrent_reboot",
            End::Reset,
            "two CPUs restart the machine at the same moment",
            ["bpf_reboot by program"],
            ["left_reboot", "right_reboot"]
        ),
        race!(
            "concurrent_power_off",
            End::PowerOff,
            "two CPUs power off at the same moment",
            ["bpf_power_off by program"],
            ["left_power_off", "right_power_off"]
        ),
        race!(
            "reboot_during_panic",
            End::Panic,
            "a restart does not overtake a panic",
            ["bpf_panic by program", "Kernel panic - not syncing"],
            ["left_panic", "late_reboot", "stopping_panic"]
        ),
        race!(
            "power_off_during_panic",
            End::Panic,
            "a power-off does not overtake a panic",
            ["bpf_panic by program", "Kernel panic - not syncing"],
            ["left_panic", "late_power_off", "stopping_panic"]
        ),
        race!(
            "panic_during_reboot",
            End::Reset,
            "a panic does not overtake a restart",
            ["bpf_reboot by program"],
            ["left_reboot", "late_panic", "stopping_reboot"]
        ),
        race!(
            "halt_during_reboot",
            End::Reset,
            "a halt does not overtake a restart",
            ["bpf_reboot by program"],
            ["left_reboot", "late_halt", "stopping_reboot"]
        ),
    ]
}

/// struct race with nobody there yet.
fn start(tids: [Pid; 2]) -> Vec<u8> {
    let mut bytes: Vec<u8> = tids
        .iter()
        .flat_map(|tid| tid.as_raw_nonzero().get().to_ne_bytes())
        .collect();
    bytes.resize(4 * size_of::<u32>(), 0);
    bytes
}

fn race(armed: &Armed, programs: &[&str]) -> Result<()> {
    let loaded = loader::load(object("destructive", "concurrency")?, programs)??;
    let map = loaded
        .maps()
        .find(|map| map.name() == ".data.race")
        .context("no race")?;
    let attached = programs
        .iter()
        .map(|name| Attached::new(&program(&loaded, name)?))
        .collect::<Result<Vec<_>>>()?;

    let go = Arc::new(Barrier::new(3));
    let racers = [0, 1].map(|cpu| {
        let go = Arc::clone(&go);
        let (send, receive) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut cpus = CpuSet::new();
            cpus.set(cpu);
            let there = sched_setaffinity(None, &cpus).map(|()| gettid());
            if send.send(there).is_err() || there.is_err() {
                return;
            }
            go.wait();
            // The system call at which the program of this side runs; waiting may have been it.
            let _ = rustix::process::getpgid(None);
        });
        receive
    });
    let mut tids = Vec::new();
    for racer in racers {
        tids.push(
            racer
                .recv()
                .context("a racer ended")?
                .context("moving to a CPU of its own")?,
        );
    }
    let tids: [Pid; 2] = tids.try_into().ok().context("two racers")?;

    armed.announce()?;
    map.update(&0u32.to_ne_bytes(), &start(tids), MapFlags::ANY)
        .context("starting the race")?;
    go.wait();
    let ended = await_end(Instant::now() + DEADLINE, "two calls were made and");
    ensure!(attached.len() == programs.len(), "a program was detached");
    ended
}
