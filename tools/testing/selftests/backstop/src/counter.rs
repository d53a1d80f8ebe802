// SPDX-License-Identifier: GPL-2.0
//! Counts how often this process calls functions of the kernel, see progs/unwind/counter.bpf.c.

use anyhow::{Context, Result, ensure};
use libbpf_rs::{Link, Object as LoadedObject};

use crate::catalogue::object;
use crate::expectation::Calls;
use crate::loaded::program;
use crate::loader;
use crate::section::Section;

const SECTION: &str = ".data.counter";

/// A program on each of the functions, all with one count.
pub struct Counter<'a> {
    calls: &'a Calls,
    counting: Vec<(LoadedObject, Link)>,
}

impl<'a> Counter<'a> {
    pub fn new(calls: &'a Calls) -> Result<Self> {
        let counting = calls
            .functions
            .iter()
            .map(|function| {
                count(function).with_context(|| format!("counting calls of {function}"))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { calls, counting })
    }

    /// So many runs called the functions as often as expected.
    pub fn check(self, runs: usize) -> Result<()> {
        let mut count = 0;
        for (object, _) in &self.counting {
            let [counted, _] = Section::of(object, SECTION)?.words()?;
            count += counted;
        }
        let expected = self.calls.count * runs as u64;
        let functions = self.calls.functions.join(" or ");
        ensure!(
            count == expected,
            "{functions} was called {count} times in {runs} runs, not {expected}"
        );
        Ok(())
    }
}

fn count(function: &str) -> Result<(LoadedObject, Link)> {
    let loaded = loader::load_with(object("unwind", "counter")?, &["count"], |program| {
        Ok(program.set_attach_target(0, Some(function.into()))?)
    })??;
    let start = [0, u64::from(std::process::id())]
        .map(u64::to_ne_bytes)
        .concat();
    Section::of(&loaded, SECTION)?.write(&start)?;
    let link = program(&loaded, "count")?.attach().context("attaching")?;
    Ok((loaded, link))
}
