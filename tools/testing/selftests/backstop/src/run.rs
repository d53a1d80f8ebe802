// SPDX-License-Identifier: GPL-2.0
//! Runs tests: many that return, each in a process of its own, or one that ends the machine.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::catalogue::Test;
use crate::console;
use crate::expectation::End;
use crate::ktap::{Ktap, Outcome};
use crate::leak;
use crate::machine::{Obstacle, Permission};
use crate::perform::{DEADLINE, perform};

/// A test has its own deadline; this is for one that hangs, and says nothing. A kernel that looks for
/// leaks checks other things as well, and is slow.
fn hangs() -> Duration {
    2 * DEADLINE * if leak::can_be_found() { 4 } else { 1 }
}

/// Those that return are run; the others are skipped.
pub fn run_all(tests: &[&Test], permission: Permission) -> Result<ExitCode> {
    if permission.vm {
        console::lift_rate_limit()?;
    }
    let mut ktap = Ktap::new(io::stdout(), tests.len())?;
    let mut started = Vec::new();
    for test in tests {
        let outcome = match check(test, permission) {
            Err(Obstacle::Skip(reason)) => Outcome::Skip(reason),
            Err(Obstacle::Fail(reason)) => Outcome::Fail(reason),
            Ok(()) => {
                console::say(&format!("begin {}", test.name))?;
                let (process, outcome) = run_in_child(test, &mut ktap)?;
                started.push((process, test.name.as_str()));
                console::say(&format!("end {}", test.name))?;
                outcome
            }
        };
        ktap.result(&test.name, &outcome)?;
    }
    if permission.vm {
        leak::report(&started)?;
    }
    Ok(ktap.finish()?.exit_code())
}

fn check(test: &Test, permission: Permission) -> Result<(), Obstacle> {
    permission.check(test)?;
    if test.expectation.end != End::Return {
        return Err(Obstacle::Skip(
            "stops the machine: run it alone, with --arm".into(),
        ));
    }
    Ok(())
}

/// Sets up a test that ends the machine, and triggers it.
pub fn arm(test: &Test, permission: Permission) -> Result<ExitCode> {
    match permission.check(test) {
        Ok(()) => (),
        Err(Obstacle::Skip(reason)) => {
            println!("ok 1 {} # SKIP {reason}", test.name);
            return Ok(ExitCode::from(4));
        }
        Err(Obstacle::Fail(reason)) => {
            println!("Bail out! {reason}");
            return Ok(ExitCode::FAILURE);
        }
    }
    let performed = console::say(&format!("begin {}", test.name)).and_then(|()| perform(test));
    if let Err(error) = performed {
        let reason = format!("{error:#}");
        let mut lines = reason.lines();
        let first = lines.next().unwrap_or("no reason");
        lines.for_each(|line| println!("# {line}"));
        println!("Bail out! {first}");
        return Ok(ExitCode::FAILURE);
    }
    println!("ok 1 {}", test.name);
    Ok(ExitCode::SUCCESS)
}

/// The other end of run_in_child().
pub fn run_here(test: &Test) -> ExitCode {
    match perform(test) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The id of the process, and how it ended.
fn run_in_child(test: &Test, ktap: &mut Ktap<impl Write>) -> Result<(u32, Outcome)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("making a pipe")?;
    let mut child = Command::new(env::current_exe().context("finding this program")?)
        .args(["--here", &test.name])
        .stdin(Stdio::null())
        .stdout(write.try_clone()?)
        .stderr(write)
        .process_group(0)
        .spawn()
        .context("starting a process for the test")?;
    let ended = collect(read, ktap);
    let outcome = match ended? {
        Collected::All(log) => {
            let status = child.wait().context("waiting for the test")?;
            match status.success() {
                true => Outcome::Pass,
                false => Outcome::Fail(format!("{log}({status})")),
            }
        }
        Collected::Hung(log) => {
            kill(&child)?;
            child.wait()?;
            Outcome::Fail(format!("{log}hung for {} s, killed", hangs().as_secs()))
        }
    };
    Ok((child.id(), outcome))
}

enum Collected {
    All(String),
    Hung(String),
}

/// What is said to the host at once: that the host is to act, and that a long test goes on.
const WORDS: [&str; 2] = ["# armed ", "# goes on, "];

/// What the child says, until it closes its end. Only words for the host are passed on at once.
fn collect(read: OwnedFd, ktap: &mut Ktap<impl Write>) -> Result<Collected> {
    let (send, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(File::from(read)).split(b'\n') {
            let Ok(line) = line else { return };
            if send
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let mut deadline = Instant::now() + hangs();
    let mut log = String::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if WORDS.iter().any(|word| line.starts_with(word)) => {
                ktap.comment(&line)?;
                deadline = Instant::now() + hangs();
            }
            Ok(line) => {
                log.push_str(&line);
                log.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(Collected::All(log)),
            Err(RecvTimeoutError::Timeout) => return Ok(Collected::Hung(log)),
        }
    }
}

fn kill(child: &Child) -> Result<()> {
    let Some(group) = Pid::from_raw(child.id() as i32) else {
        bail!("the test has no process")
    };
    kill_process_group(group, Signal::KILL).context("killing the test")
}
