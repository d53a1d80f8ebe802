// SPDX-License-Identifier: GPL-2.0
//! Times programs under BPF_PROG_TEST_RUN, one JSON line each. In a machine that counts
//! instructions (-icount shift=0) a nanosecond is one instruction. Modules are loaded when the first
//! program needs them, and not before: what comes earlier runs as on a kernel without any.
//!
//! Of a program that brings along a deadline, what runs take beyond it is counted.

use std::io::{Write, stdout};
use std::time::Duration;

use anyhow::{Context, Result};
use libbpf_rs::ProgramInput;
use serde::Serialize;

use crate::catalogue::{self, BENCH, OBJECTS, Object};
use crate::loaded::program;
use crate::loader;
use crate::machine::load_module;
use crate::test_run::PACKET;

#[derive(Serialize)]
struct Row<'a> {
    row: &'a str,
    #[serde(flatten)]
    result: Measured,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Measured {
    Ran {
        runs: u32,
        nanoseconds_per_run: u128,
    },
    /// The kernel, with the modules that are loaded, lacks this kfunc.
    Absent { absent: String },
}

pub fn run() -> Result<()> {
    for object in OBJECTS.iter().filter(|object| object.group == BENCH) {
        run_object(object)?;
    }
    Ok(())
}

fn run_object(object: &Object) -> Result<()> {
    for module in catalogue::kfunc_modules(object)?.values() {
        // Without it the kfuncs are absent, and so it is said.
        let _ = load_module(module, "");
    }
    for (function, tags) in catalogue::function_tags(object)? {
        let Some((repeat, row)) = tags
            .iter()
            .find_map(|tag| tag.strip_prefix("row:")?.split_once(':'))
        else {
            continue;
        };
        for module in tags.iter().filter_map(|tag| tag.strip_prefix("needs:")) {
            // An unpatched kernel does not have it, and runs the program without.
            let _ = load_module(module, "");
        }
        let repeat = repeat
            .parse()
            .with_context(|| format!("{function}: no number"))?;
        let deadline = deadline(&tags).with_context(|| function.clone())?;
        let result =
            measure(object, &function, repeat, deadline).with_context(|| row.to_owned())?;
        let mut out = stdout().lock();
        serde_json::to_writer(&mut out, &Row { row, result })?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

/// What a program brings along for itself, or zero.
fn deadline(tags: &[String]) -> Result<Duration> {
    let tag = tags.iter().find_map(|tag| tag.strip_prefix("deadline_us:"));
    let us = tag.map_or(Ok(0), str::parse).context("not a deadline")?;
    Ok(Duration::from_micros(us))
}

fn measure(object: &Object, function: &str, repeat: u32, deadline: Duration) -> Result<Measured> {
    let loaded = match loader::load(object, &[function])? {
        Ok(loaded) => loaded,
        Err(refusal) => {
            let absent = refusal.missing_kfunc().map(str::to_owned);
            return Ok(Measured::Absent {
                absent: absent.ok_or(refusal)?,
            });
        }
    };
    let input = ProgramInput {
        data_in: Some(&PACKET),
        repeat,
        ..ProgramInput::default()
    };
    let output = program(&loaded, function)?.test_run(input)?;
    let beyond = output.duration.checked_sub(deadline);
    Ok(Measured::Ran {
        runs: repeat,
        nanoseconds_per_run: beyond
            .with_context(|| format!("it ends {:?} after its beginning", output.duration))?
            .as_nanos(),
    })
}
