// SPDX-License-Identifier: GPL-2.0
//! Functions that have trampolines while they are unwound: every one that was entered is left, from the
//! inside out, and the throw goes on behind it.

use std::os::fd::{AsFd, AsRawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libbpf_rs::{Link, Object as LoadedObject};

use super::{RUNS, ensure_caught, load, test, trampolines};
use crate::arm::Armed;
use crate::catalogue::{Test, object};
use crate::ledger::Ledger;
use crate::loaded::program;
use crate::loader;
use crate::perform::DEADLINE;
use crate::section::Section;
use crate::test_run::run;
use crate::wait::wait_until;

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "traced_exits",
            "functions that call one another, with programs on their exits, end from the inside out",
            exits,
        ),
        test(
            "traced_entry",
            "a function that has a program on its entry only is unwound like any other",
            entry,
        ),
        test(
            "traced_session",
            "a program for both entry and exit of a function that is unwound runs for both",
            session,
        ),
        test(
            "traced_main",
            "a program on the main program's exit sees what the exception callback returns",
            main_program,
        ),
        test(
            "traced_throws",
            "a program on the exit of a function that is unwound may throw, too",
            throws,
        ),
        test(
            "traced_callback_inlined",
            "a traced callback of a bpf_loop() that is inlined ends, and so does the loop",
            callback_inlined,
        ),
        test(
            "traced_callback_called",
            "a traced callback of a bpf_loop() that is called ends, and so does the loop",
            callback_called,
        ),
        test(
            "traced_below_callback",
            "a traced callback and the traced function that throws in it end both",
            below_callback,
        ),
        test("traced_work", "a traced callback of a workqueue ends", work),
    ]
}

/// A program on a function of another, and what it sees in a run of that.
struct Trace {
    tracer: &'static str,
    function: &'static str,
    entered: u64,
    left: u64,
    /// What the function returns to it the last time.
    returned: u64,
}

/// The exit of a function that is left once.
fn exit(function: &'static str, returned: u64) -> Trace {
    Trace {
        tracer: "on_exit",
        function,
        entered: 0,
        left: 1,
        returned,
    }
}

/// The entry of a function.
fn enter(function: &'static str, entered: u64) -> Trace {
    Trace {
        tracer: "on_entry",
        function,
        entered,
        left: 0,
        returned: 0,
    }
}

/// What the program on the function has seen: the start of struct seen
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    entered: u64,
    left: u64,
    returned: u64,
    /// Preemption or interrupts that were off.
    state: u64,
}

/// Returns that, and when it was.
fn seen(tracing: &LoadedObject) -> Result<(Seen, u64)> {
    let [entered, left, returned, state, at] = Section::of(tracing, ".data.seen")?.words()?;
    let seen = Seen {
        entered,
        left,
        returned,
        state,
    };
    Ok((seen, at))
}

fn attach(target: &LoadedObject, name: &str, trace: &Trace) -> Result<(LoadedObject, Link)> {
    let fd = program(target, name)?.as_fd().as_raw_fd();
    let tracing = loader::load_with(object("unwind", "traced")?, &[trace.tracer], |program| {
        Ok(program.set_attach_target(fd, Some(trace.function.into()))?)
    })??;
    let link = program(&tracing, trace.tracer)?
        .attach()
        .with_context(|| format!("attaching {} to {}", trace.tracer, trace.function))?;
    Ok((tracing, link))
}

/// So many runs were seen as expected, by those on inner functions first.
fn ensure_seen(traces: &[Trace], attached: &[(LoadedObject, Link)], runs: u64) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut last = 0;
    for (trace, (tracing, _)) in traces.iter().zip(attached) {
        let expected = Seen {
            entered: trace.entered * runs,
            left: trace.left * runs,
            returned: trace.returned,
            state: 0,
        };
        // A workqueue calls back when it gets to it.
        while seen(tracing)?.0 != expected && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        let (seen, at) = seen(tracing)?;
        let function = trace.function;
        ensure!(
            seen == expected,
            "of {function}, {seen:?} instead of {expected:?}"
        );
        if trace.left != 0 {
            ensure!(last < at, "{function} ended before what it has called");
            last = at;
        }
    }
    Ok(())
}

/// Runs a program with others on its functions, innermost first. `labels` are what a run releases.
fn trace(name: &str, traces: &[Trace], labels: &str) -> Result<()> {
    let ledger = Ledger::open()?;
    let before = trampolines()?;
    let target = load("traced", &[name])?;
    let attached = traces
        .iter()
        .map(|trace| attach(&target, name, trace))
        .collect::<Result<Vec<_>>>()?;
    for runs in 1..=RUNS {
        ensure_caught(name, run(&target, name)?)?;
        ensure_seen(traces, &attached, runs as u64)?;
    }
    ledger.settle_released(labels, RUNS)?;
    // An image that was entered and not left would stay.
    drop(attached);
    wait_until("a trampoline is still there after all is detached", || {
        Ok(trampolines()?.is_subset(&before))
    })
}

fn exits(_: &Armed) -> Result<()> {
    let exits = [exit("inner", 0), exit("middle", 0), exit("outer", 0)];
    trace("deep", &exits, "abcd")
}

fn entry(_: &Armed) -> Result<()> {
    trace("deep", &[enter("middle", 1)], "abcd")
}

fn session(_: &Armed) -> Result<()> {
    let session = Trace {
        tracer: "on_both",
        entered: 1,
        ..exit("middle", 0)
    };
    trace("deep", &[session], "abcd")
}

fn main_program(_: &Armed) -> Result<()> {
    let caught = super::COOKIE as u64;
    trace("deep", &[exit("inner", 0), exit("deep", caught)], "abcd")
}

fn throws(_: &Armed) -> Result<()> {
    let throws = Trace {
        tracer: "on_exit_throws",
        ..exit("middle", 0)
    };
    trace("deep", &[throws], "abcdt")
}

/// Two rounds end by themselves, the third by the throw and with what stops the loop.
fn rounds() -> [Trace; 2] {
    let exits = Trace {
        left: 3,
        ..exit("step", 1)
    };
    [enter("step", 3), exits]
}

fn callback_inlined(_: &Armed) -> Result<()> {
    trace("loop_inlined", &rounds(), "as")
}

fn callback_called(_: &Armed) -> Result<()> {
    trace("loop_called", &rounds(), "as")
}

fn below_callback(_: &Armed) -> Result<()> {
    let exits = [exit("inner", 0), exit("step_below", 1)];
    trace("loop_deep", &exits, "ais")
}

fn work(_: &Armed) -> Result<()> {
    trace("work", &[exit("work_throws", 0)], "w")
}
