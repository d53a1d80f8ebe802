// SPDX-License-Identifier: GPL-2.0
//! The operator's command, tools/bpf/backstop: what it does to programs that run, and what it refuses.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use libbpf_rs::Program;
use serde_json::Value;

use super::code;
use crate::arm::Armed;
use crate::catalogue::{Test, object};
use crate::loaded::program_id;
use crate::loader;
use crate::machine::{load_module, unload_unused};
use crate::perform::DEADLINE;
use crate::section::Section;
use crate::test_run::run_fd;
use crate::wait::wait_until;

const COMMAND: &str = "backstop";
const MODULE: &str = "bpf_deadline";
/// Exit codes of the command.
const REFUSED: i32 = 1;
const USAGE: i32 = 2;
/// An id that no program gets.
const NO_PROGRAM: u32 = u32::MAX;
/// Somebody without privileges.
const NOBODY: u32 = 65534;

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "kill",
            "a run that takes hours ends now, none begins until the program is resumed",
            kill,
        ),
        test(
            "kill_several",
            "ids that are refused do not keep others from being ended",
            kill_several,
        ),
        test(
            "kill_no_program",
            "an id that does not exist is refused",
            kill_no_program,
        ),
        test(
            "kill_no_checkpoints",
            "a program that cannot be ended is refused, and still runs",
            kill_no_checkpoints,
        ),
        test(
            "twice",
            "a program that is stopped is not stopped again, one that is not is not resumed",
            twice,
        ),
        test(
            "lists_others",
            "programs are listed once, in order, and the command's own are not",
            lists_others,
        ),
        test("limits", "limits are set and shown", limits),
        test(
            "limits_absurd",
            "limits out of bounds are refused with the bounds, and nothing changes",
            limits_absurd,
        ),
        test(
            "unprivileged",
            "without privileges all is refused, and nothing changes",
            unprivileged,
        ),
        test(
            "usage",
            "what is no id, no time and no command is wrong usage",
            usage,
        ),
        test(
            "module_missing",
            "without the module all is refused with what to do",
            module_missing,
        ),
    ]
}

fn test(name: &str, description: &str, run: fn(&Armed) -> Result<()>) -> Test {
    code("operator", name, &["bpf_unwind", MODULE], description, run)
}

fn kill(_: &Armed) -> Result<()> {
    let endless = Endless::load()?;
    ensure!(
        shown(endless.id)?["deadline"]["state"] == "runs",
        "it is not shown to run"
    );

    thread::scope(|scope| {
        let runs = scope.spawn(|| endless.run_until_stopped());
        endless.await_begun()?;
        done(&["kill", &endless.id.to_string()])?;
        runs.join().expect("it does not panic")
    })?;

    let deadline = &shown(endless.id)?["deadline"];
    ensure!(
        deadline["state"] == "stopped_by_operator" && deadline["ended_by_operator"] == 1,
        "it is shown as {deadline}"
    );
    let last = &deadline["last_ended"];
    ensure!(
        last["exceeded_ns"].is_null()
            && last["held"]
                .as_array()
                .is_some_and(|held| held.iter().any(|name| name == "ringbuf record")),
        "its end is shown as {last}"
    );
    ensure!(endless.state()?.finished == 0, "a run ended by itself");

    done(&["resume", &endless.id.to_string()])?;
    endless.be_brief()?;
    endless.run()?;
    ensure!(
        endless.state()?.finished == 1,
        "it does not run after it is resumed"
    );
    ensure!(
        shown(endless.id)?["deadline"]["state"] == "runs",
        "it is not shown to run again"
    );
    Ok(())
}

fn kill_several(_: &Armed) -> Result<()> {
    let endless = Endless::load()?;
    let no_program = NO_PROGRAM.to_string();
    let id = endless.id.to_string();
    let error = refused(REFUSED, &["kill", &no_program, &id, &no_program])?;
    let lines = error.lines().count();
    ensure!(lines == 2, "{lines} lines, not one for each\n{error}");
    ensure!(
        shown(endless.id)?["deadline"]["state"] == "stopped_by_operator",
        "the program between two that do not exist is not stopped"
    );
    Ok(())
}

fn kill_no_program(_: &Armed) -> Result<()> {
    for action in ["kill", "resume"] {
        for id in [0, NO_PROGRAM] {
            let error = refused(REFUSED, &[action, &id.to_string()])?;
            one_line(&error, &format!("there is no program {id}:"))?;
        }
    }
    Ok(())
}

fn kill_no_checkpoints(_: &Armed) -> Result<()> {
    for name in ["straight", "dead_loop", "dead_jump", "dead_calls", "later"] {
        let loaded = loader::load(object("operator", "endless")?, &[name])??;
        let id = program_id(&loaded, name)?;
        let error = refused(REFUSED, &["kill", &id.to_string()]).context(name)?;
        one_line(&error, &format!("program {id} has no checkpoints"))?;
        ensure!(
            shown(id)?["deadline"].is_null(),
            "{name} is shown with a deadline"
        );
    }
    Ok(())
}

fn twice(_: &Armed) -> Result<()> {
    let endless = Endless::load()?;
    let id = endless.id.to_string();
    one_line(&refused(REFUSED, &["resume", &id])?, "is not stopped")?;
    done(&["kill", &id])?;
    one_line(&refused(REFUSED, &["kill", &id])?, "is stopped already")?;
    done(&["resume", &id])?;
    one_line(&refused(REFUSED, &["resume", &id])?, "is not stopped")
}

fn lists_others(_: &Armed) -> Result<()> {
    let [first, second] = [Endless::load()?, Endless::load()?];
    let ids = list(&["--all"])?
        .iter()
        .map(|program| program["id"].as_u64().context("no id"))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        ids == [first.id, second.id].map(u64::from),
        "{ids:?} are listed, not {} and {}",
        first.id,
        second.id
    );
    Ok(())
}

fn limits(_: &Armed) -> Result<()> {
    let before = Limits::now()?;
    for (name, _) in &before.0 {
        for value in if name == "row" {
            ["1", "1000000"]
        } else {
            ["1500us", "10s"]
        } {
            done(&["limit", name, value])?;
            let shown = Limits::now()?;
            for ((shown_name, shown), (_, before)) in shown.0.iter().zip(&before.0) {
                let expected = if shown_name == name { value } else { before };
                ensure!(
                    shown == expected,
                    "{shown_name} is {shown} after {name} was set to {value}"
                );
            }
        }
        before.restore(name)?;
    }
    ensure!(Limits::now()? == before, "limits are not what they were");
    Ok(())
}

fn limits_absurd(_: &Armed) -> Result<()> {
    let before = Limits::now()?;
    for (name, _) in &before.0 {
        let (values, bounds) = if name == "row" {
            (["0", "1000001", "99999999999999999999"], "1 to 1000000")
        } else {
            (
                ["999us", "10000001us", "99999999999999999999s"],
                "1ms to 10s",
            )
        };
        for value in values {
            let error = refused(REFUSED, &["limit", name, value])?;
            one_line(
                &error,
                &format!("{name} {value} is out of bounds: it can be {bounds}"),
            )?;
        }
    }
    ensure!(Limits::now()? == before, "limits are not what they were");
    Ok(())
}

fn unprivileged(_: &Armed) -> Result<()> {
    let before = Limits::now()?;
    let endless = Endless::load()?;
    let id = endless.id.to_string();
    for words in [
        vec!["kill", &id],
        vec!["resume", &id],
        vec!["limit"],
        vec!["limit", "task", "2s"],
        vec!["ps"],
    ] {
        let output = command(&words).uid(NOBODY).gid(NOBODY).output();
        let error = refusal_of(REFUSED, &words, output.context(COMMAND)?)?;
        one_line(&error, "is not permitted").with_context(|| words.join(" "))?;
    }
    ensure!(
        shown(endless.id)?["deadline"]["state"] == "runs",
        "the program is stopped"
    );
    ensure!(Limits::now()? == before, "limits are not what they were");
    Ok(())
}

fn usage(_: &Armed) -> Result<()> {
    let before = Limits::now()?;
    for words in [
        vec![],
        vec!["stop", "1"],
        vec!["kill"],
        vec!["kill", "one"],
        vec!["kill", "-1"],
        vec!["kill", "4294967296"],
        vec!["limit", "nmi", "1s"],
        vec!["limit", "task", "250"],
        vec!["limit", "task", "1.5s"],
        vec!["limit", "row", "10ms"],
        vec!["ps", "--sort", "colour"],
        vec!["ps", "--watch", "0"],
    ] {
        refused(USAGE, &words)?;
    }
    ensure!(Limits::now()? == before, "limits are not what they were");
    Ok(())
}

fn module_missing(_: &Armed) -> Result<()> {
    unload_unused(MODULE)?;
    let outcome = [vec!["kill", "1"], vec!["limit"], vec!["ps"]]
        .iter()
        .try_for_each(|words| {
            let error = refused(REFUSED, words)?;
            one_line(&error, "modprobe bpf_deadline").with_context(|| words.join(" "))
        });
    load_module(MODULE, "")?;
    outcome
}

/// The program that takes hours, loaded.
struct Endless {
    id: u32,
    fd: OwnedFd,
    state: Section,
}

/// struct runs of progs/operator/endless.bpf.c
struct State {
    begun: u64,
    finished: u64,
}

impl Endless {
    fn load() -> Result<Self> {
        let object = loader::load(object("operator", "endless")?, &["endless"])??;
        let id = program_id(&object, "endless")?;
        Ok(Self {
            id,
            fd: Program::fd_from_id(id)?,
            state: Section::of(&object, ".data.runs")?,
        })
    }

    fn state(&self) -> Result<State> {
        let [_, begun, finished] = self.state.words()?;
        Ok(State { begun, finished })
    }

    /// Runs end at once from now on.
    fn be_brief(&self) -> Result<()> {
        let [_, begun, finished] = self.state.words()?;
        let bytes = [1, begun, finished].map(u64::to_ne_bytes).concat();
        self.state.write(&bytes)
    }

    fn run(&self) -> Result<()> {
        run_fd(self.fd.as_fd()).map(drop)
    }

    /// Runs it until no run begins any more. Its deadline may end runs of a machine that is slow; another
    /// one begins then.
    fn run_until_stopped(&self) -> Result<()> {
        let until = Instant::now() + DEADLINE;
        loop {
            let before = self.state()?.begun;
            self.run()?;
            if self.state()?.begun == before {
                return Ok(());
            }
            ensure!(Instant::now() < until, "runs still begin");
        }
    }

    fn await_begun(&self) -> Result<()> {
        wait_until("no run begins", || Ok(self.state()?.begun != 0))
    }
}

/// What `backstop limit` shows: names and values.
#[derive(Debug, PartialEq)]
struct Limits(Vec<(String, String)>);

impl Limits {
    fn now() -> Result<Self> {
        let text = done(&["limit"])?;
        let rows = text.lines().skip(1).map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            words.next().zip(words.next())
        });
        let rows: Vec<_> = rows.collect::<Option<_>>().context("a line is cut short")?;
        let names: Vec<_> = rows.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(
            names == ["sleepable", "task", "atomic", "irq", "row"],
            "other limits are shown\n{text}"
        );
        Ok(Self(rows))
    }

    fn restore(&self, name: &str) -> Result<()> {
        let row = self.0.iter().find(|(row, _)| row == name);
        let (name, value) = row.context("no such limit")?;
        done(&["limit", name, value]).map(drop)
    }
}

/// A program as `backstop ps` shows it to machines.
fn shown(id: u32) -> Result<Value> {
    let mut programs = list(&["--all"])?.into_iter();
    let program = programs.find(|program| program["id"] == id);
    program.with_context(|| format!("program {id} is not shown"))
}

fn list(options: &[&str]) -> Result<Vec<Value>> {
    let text = done(&[&["ps", "--json"], options].concat())?;
    serde_json::from_str(&text).context(text)
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(COMMAND);
    command.args(words);
    command
}

/// Runs the command and returns what it prints; it must not complain.
fn done(words: &[&str]) -> Result<String> {
    let output = command(words).output().context(COMMAND)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && error.is_empty(),
        "{COMMAND} {}: {}\n{error}",
        words.join(" "),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs the command, which must refuse with this exit code, and returns what it complains of.
fn refused(code: i32, words: &[&str]) -> Result<String> {
    refusal_of(code, words, command(words).output().context(COMMAND)?)
}

fn refusal_of(code: i32, words: &[&str], output: Output) -> Result<String> {
    let error = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(code) && !error.is_empty(),
        "{COMMAND} {}: {}, where exit code {code} was expected\n{error}",
        words.join(" "),
        output.status
    );
    Ok(error)
}

fn one_line(error: &str, text: &str) -> Result<()> {
    ensure!(
        error.lines().count() == 1 && error.starts_with("backstop: ") && error.contains(text),
        "one line with '{text}' was expected\n{error}"
    );
    Ok(())
}
