// SPDX-License-Identifier: GPL-2.0
//! Does one test, in this process, which is its own: capabilities and the like are not given back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{Object as LoadedObject, Program};
use regex::Regex;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::os::fd::AsFd;

use crate::arm::Armed;
use crate::catalogue::{Body, Object, Test};
use crate::console::{Console, Quiet};
use crate::counter::Counter;
use crate::expectation::{Attribution, End, Event, Load, missing_in_order};
use crate::ledger::Ledger;
use crate::loaded::program;
use crate::test_run::run;
use crate::trigger::{Attached, Trigger};
use crate::watch::Watch;
use crate::{loader, machine};

/// From the event, which an emulated machine may be slow to see, to its effect.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn perform(test: &Test) -> Result<()> {
    let armed = Armed::new(test);
    if let Some(how) = test.expectation.stop_commands {
        machine::set_stop_commands(how)?;
    }
    if let Some(params) = &test.expectation.module_params {
        for module in test.modules()? {
            machine::unload_module(&module).with_context(|| format!("unloading {module}"))?;
            machine::load_module(&module, params)?;
        }
    }
    let _quiet = test.expectation.quiet.then(Quiet::enter).transpose()?;
    match &test.body {
        Body::Program { object, program } => perform_program(test, object, program, &armed),
        Body::Code { run, .. } => run(&armed),
    }
}

fn perform_program(test: &Test, object: &Object, name: &str, armed: &Armed) -> Result<()> {
    let expectation = &test.expectation;
    if let Some(cap) = expectation.without_cap {
        drop_capability(cap)?;
    }
    let _absent = expectation
        .without_module
        .as_deref()
        .map(Absent::new)
        .transpose()?;
    let ledger = expectation.released.as_ref();
    let ledger = ledger.map(|_| Ledger::open()).transpose()?;
    let watch = expectation.expires.then(Watch::open).transpose()?;
    let mut programs = vec![name];
    programs.extend(expectation.with.iter().map(String::as_str));
    let loaded = loader::load_with(object, &programs, |program| {
        if expectation.untraced {
            program.set_log_level(loader::LOG_STATS);
        }
        Ok(())
    })?;
    let loaded = match (loaded, expectation.load) {
        (Ok(_), Load::Refused(errno)) => bail!("it loads, where {errno} was expected"),
        (Err(refusal), Load::Refused(errno)) => {
            ensure!(refusal.errno == errno, "{errno} was expected\n{refusal}");
            return check_messages(test, &refusal.log);
        }
        (Err(refusal), Load::Accepted) => return Err(refusal.into()),
        (Ok(loaded), Load::Accepted) => loaded,
    };
    // What a program that was unwound holds on to, it meets when it runs again. The host sends one NMI.
    let runs = match expectation.event {
        Event::Nmi => 1,
        _ if expectation.is_conserving() => 2,
        _ => 1,
    };
    let counters = expectation
        .calls
        .iter()
        .map(Counter::new)
        .collect::<Result<Vec<_>>>()?;
    match expectation.event {
        Event::None => (),
        Event::TestRun => {
            for _ in 0..runs {
                check_retval(test, run(&loaded, name)?)?;
            }
        }
        _ => perform_event(test, &loaded, name, armed, runs)?,
    }
    for counter in counters {
        counter.check(runs)?;
    }
    if let Some(watch) = watch {
        watch.check(&loaded, &programs, runs)?;
    }
    drop(loaded);
    if let Some(ledger) = ledger {
        ledger.settle(expectation, runs)?;
    }
    Ok(())
}

/// Attaches the program and lets its event happen, each run anew.
fn perform_event(
    test: &Test,
    loaded: &LoadedObject,
    name: &str,
    armed: &Armed,
    runs: usize,
) -> Result<()> {
    let expectation = &test.expectation;
    let program = program(loaded, name)?;
    let trigger = Trigger::of(loaded)?;
    let mut console = Console::from_now()?;
    let attached = Attached::new(&program)?;
    let deadline = Instant::now() + DEADLINE;
    for _ in 0..runs {
        if expectation.event == Event::Nmi {
            // The host sends it upon the word; the console tells that it came.
            trigger.cock(expectation.event)?;
            armed.announce()?;
            console.expect(test, deadline)?;
        } else {
            armed.announce()?;
            trigger.cock(expectation.event)?;
        }
        let retval = trigger.wait(&attached, expectation.event, deadline)?;
        check_retval(test, retval)?;
        if expectation.end != End::Return {
            await_end(deadline, &format!("the call returned {retval} and"))?;
        }
    }
    console.expect(test, deadline)?;
    if let Some(attribution) = &expectation.attributed {
        check_identity(&console, attribution, &program)?;
    }
    Ok(())
}

/// The machine is about to end, and this process with it.
pub fn await_end(deadline: Instant, what: &str) -> Result<()> {
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    bail!(
        "{what} the machine still runs after {} s",
        DEADLINE.as_secs()
    )
}

fn drop_capability(cap: CapabilitySet) -> Result<()> {
    let mut sets = capabilities(None).context("reading capabilities")?;
    sets.effective.remove(cap);
    set_capabilities(None, sets).context("dropping a capability")
}

fn check_retval(test: &Test, retval: i32) -> Result<()> {
    match test.expectation.retval {
        Some(expected) if retval != expected => bail!("{retval} was returned, not {expected}"),
        _ => Ok(()),
    }
}

fn check_messages(test: &Test, log: &str) -> Result<()> {
    match missing_in_order(log, &test.expectation.messages) {
        Some(pattern) => bail!(
            "the loader's log lacks '{pattern}' in its place\n{}",
            log.trim_end()
        ),
        None => Ok(()),
    }
}

/// A module that is not there for the time being.
struct Absent<'a> {
    module: &'a str,
}

impl<'a> Absent<'a> {
    fn new(module: &'a str) -> Result<Self> {
        machine::unload_unused(module)?;
        Ok(Self { module })
    }
}

impl Drop for Absent<'_> {
    fn drop(&mut self) {
        if let Err(error) = machine::load_module(self.module, "") {
            println!("{} is not back: {error:#}", self.module);
        }
    }
}

/// The line names the program that made the call, not just one that looks like it.
fn check_identity(
    console: &Console,
    attribution: &Attribution,
    program: &Program<'_>,
) -> Result<()> {
    let regex = Regex::new(&attribution.regex(&program.name().to_string_lossy()))?;
    let line = console
        .find(&regex)
        .context("the attribution line is gone")?;
    let id = Program::id_from_fd(program.as_fd())?;
    let info = ProgInfoIter::default()
        .find(|info| info.id == id)
        .context("the program is gone")?;
    let tag = u64::from_be_bytes(info.tag.0);
    ensure!(
        line["id"] == id.to_string() && line["tag"] == format!("{tag:016x}"),
        "the program is id {id} tag {tag:016x}, but the console says\n  {}",
        &line[0]
    );
    Ok(())
}
