// SPDX-License-Identifier: GPL-2.0
//! The tests as a list, for people and for the host that judges them.

use std::io::{Write, stdout};

use anyhow::Result;
use serde::Serialize;

use crate::catalogue::Test;
use crate::expectation::{End, Event, Pattern, Way};
use crate::machine::VM_WORD;

/// What the host has to know of a test.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    description: &'a str,
    end: End,
    /// Regular expressions, found on the console in this order.
    console: Vec<String>,
    /// Regular expressions that are not found there.
    not_console: Vec<String>,
    /// Regular expressions: complaints of the kernel that may be found there.
    complaints: &'static [&'static str],
    or: Vec<Alternative>,
    crash_kernel: bool,
    nmi: bool,
    /// Kernel command line: the word that allows to stop the machine, and what the test wants.
    append: String,
}

/// Another way to end, as good as the first.
#[derive(Serialize)]
struct Alternative {
    end: End,
    console: Vec<String>,
    not_console: Vec<String>,
}

impl From<&Way> for Alternative {
    fn from(way: &Way) -> Self {
        Self {
            end: way.end,
            console: regexes(&way.console),
            not_console: regexes(&way.not_console),
        }
    }
}

fn regexes(patterns: &[Pattern]) -> Vec<String> {
    let regexes = patterns.iter().map(|pattern| pattern.regex().to_string());
    regexes.collect()
}

impl<'a> From<&'a Test> for Entry<'a> {
    fn from(test: &'a Test) -> Self {
        Self {
            name: &test.name,
            description: &test.expectation.description,
            end: test.expectation.end,
            console: test.console(),
            not_console: regexes(&test.expectation.not_console),
            complaints: test.expectation.complaints,
            or: test.expectation.or.iter().map(Alternative::from).collect(),
            crash_kernel: test.expectation.crash_kernel,
            nmi: test.expectation.event == Event::Nmi,
            append: [VM_WORD, &test.expectation.append]
                .join(" ")
                .trim_end()
                .to_owned(),
        }
    }
}

pub fn json(tests: &[&Test]) -> Result<()> {
    let entries: Vec<Entry<'_>> = tests.iter().map(|test| Entry::from(*test)).collect();
    let mut out = stdout().lock();
    serde_json::to_writer_pretty(&mut out, &entries)?;
    Ok(writeln!(out)?)
}

pub fn text(tests: &[&Test]) -> Result<()> {
    let mut out = stdout().lock();
    for test in tests {
        writeln!(out, "{:44} {}", test.name, test.expectation.description)?;
    }
    Ok(())
}
