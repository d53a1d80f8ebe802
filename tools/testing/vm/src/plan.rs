//! Which test runs in which machine: those that return share one, each of the others has its own.
//!
//! What the guest's test program does for the host:
//!
//! * `--list --json` prints its tests as an array of [`Test`].
//! * `--wait` gets ready, prints `# ready`, and takes what follows here from a line of its input.
//! * `NAME...` runs tests that return, and prints KTAP. Round each it writes
//!   `backstop_selftests: begin NAME` and `backstop_selftests: end NAME` to /dev/kmsg.
//! * `--arm NAME` sets up a test that ends the machine, prints `# armed NAME`, and ends it, or waits
//!   for the NMI that the host then injects. It prints `Bail out! why` when it cannot be set up, and
//!   `ok 1 NAME # SKIP why` when it does not apply; it never says that it passed.

use std::fmt;
use std::iter;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use glob::Pattern as Glob;
use regex::Regex;
use serde::Deserialize;

use crate::host;

/// How a test is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Return,
    Panic,
    Reset,
    PowerOff,
    Halt,
    CrashDump,
}

impl End {
    /// Whether the kernel may say that it panics.
    pub fn panics(self) -> bool {
        matches!(self, Self::Panic | Self::CrashDump)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Return => "a result",
            Self::Panic => "a guest panic reported by pvpanic",
            Self::Reset => "a guest reset",
            Self::PowerOff => "a guest power-off",
            Self::Halt => "a guest halt",
            Self::CrashDump => "a crash dump",
        })
    }
}

/// A regular expression that a line of the console must match.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl Pattern {
    pub fn is_match(&self, line: &str) -> bool {
        self.0.is_match(line)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Pattern {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Regex::new(text).map(Self)
    }
}

impl TryFrom<String> for Pattern {
    type Error = regex::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A way in which a test may end, and what the console then shows.
#[derive(Clone, Debug, Deserialize)]
pub struct Way {
    pub end: End,
    /// Each of them in some line.
    #[serde(default)]
    pub console: Vec<Pattern>,
    /// None of them in any line.
    #[serde(default)]
    pub not_console: Vec<Pattern>,
}

/// A test, as the guest's test program lists it.
#[derive(Clone, Debug, Deserialize)]
pub struct Test {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(flatten)]
    pub way: Way,
    /// Complaints of the kernel that may come.
    #[serde(default)]
    pub complaints: Vec<Pattern>,
    /// Other ways that are as good as the first.
    #[serde(default)]
    pub or: Vec<Way>,
    /// A crash kernel is loaded before the test.
    #[serde(default)]
    pub crash_kernel: bool,
    /// The host injects an NMI when the guest is armed.
    #[serde(default)]
    pub nmi: bool,
    /// Added to the kernel's command line.
    #[serde(default)]
    pub append: String,
}

/// What a test wants of the machine it runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Needs<'a> {
    pub append: &'a str,
    pub crash_kernel: bool,
}

impl Test {
    pub fn needs(&self) -> Needs<'_> {
        Needs {
            append: &self.append,
            crash_kernel: self.crash_kernel,
        }
    }

    pub fn ways(&self) -> impl Iterator<Item = &Way> {
        iter::once(&self.way).chain(&self.or)
    }

    pub fn may_end_by(&self, end: End) -> bool {
        self.ways().any(|way| way.end == end)
    }

    /// Its ends, for people.
    pub fn ends(&self) -> String {
        let mut ends: Vec<_> = self.ways().map(|way| way.end.to_string()).collect();
        ends.dedup();
        ends.join(" or ")
    }
}

/// As the end of a file's name.
impl fmt::Display for Needs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.crash_kernel {
            f.write_str("-crash-kernel")?;
        }
        if !self.append.is_empty() {
            let words = self
                .append
                .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            write!(f, "-{words}")?;
        }
        Ok(())
    }
}

/// The tests of one machine: several that return, or a single one that ends it.
#[derive(Clone, Debug)]
pub struct Run {
    pub tests: Vec<Test>,
}

impl Run {
    /// Whether this is one test that ends the machine.
    pub fn alone(&self) -> Option<&Test> {
        self.tests
            .first()
            .filter(|test| !test.may_end_by(End::Return))
    }

    /// A name for the logs.
    pub fn name(&self) -> String {
        match self.alone() {
            Some(test) => test.name.replace('/', "-"),
            None => {
                let nmi = if self.first().nmi { "-nmi" } else { "" };
                format!("shared{nmi}{}", self.first().needs())
            }
        }
    }

    /// All tests of a run want the same machine.
    pub fn first(&self) -> &Test {
        &self.tests[0]
    }
}

/// Asks the test program what it has.
pub fn list(program: &Path) -> Result<Vec<Test>> {
    ensure!(
        program.is_file(),
        "{} is missing: build the tests first (make selftests)",
        program.display()
    );
    let asked = || format!("{} --list --json", program.display());
    let listed =
        host::output(Command::new(program).args(["--list", "--json"])).with_context(asked)?;
    let tests: Vec<Test> = serde_json::from_slice(&listed).with_context(asked)?;
    let mut names: Vec<_> = tests.iter().map(|test| &test.name).collect();
    names.sort();
    for pair in names.windows(2) {
        ensure!(
            pair[0] != pair[1],
            "{}: two tests are called {}",
            asked(),
            pair[0]
        );
    }
    for test in &tests {
        ensure!(
            test.or.is_empty() || !test.may_end_by(End::Return),
            "{}: {} ends its machine or returns",
            asked(),
            test.name
        );
    }
    Ok(tests)
}

/// The tests that one of the globs matches, all if there is none. A glob that matches nothing is an
/// error: a check that does not run must not look clean.
pub fn filter(tests: Vec<Test>, globs: &[String]) -> Result<Vec<Test>> {
    let mut wanted = vec![globs.is_empty(); tests.len()];
    for glob in globs {
        let pattern = Glob::new(glob).with_context(|| format!("'{glob}' is no glob"))?;
        let mut matched = false;
        for (test, wanted) in tests.iter().zip(&mut wanted) {
            if pattern.matches(&test.name) {
                (*wanted, matched) = (true, true);
            }
        }
        ensure!(
            matched,
            "no test matches '{glob}': see the names with --list"
        );
    }
    Ok(tests
        .into_iter()
        .zip(wanted)
        .filter(|(_, wanted)| *wanted)
        .map(|(test, _)| test)
        .collect())
}

/// Distributes tests over machines; those that take longest come first.
pub fn plan(tests: &[Test]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for test in tests {
        let same = |run: &&mut Run| {
            let other = run.first();
            run.alone().is_none() && (other.needs(), other.nmi) == (test.needs(), test.nmi)
        };
        match runs
            .iter_mut()
            .find(same)
            .filter(|_| test.may_end_by(End::Return))
        {
            Some(run) => run.tests.push(test.clone()),
            None => runs.push(Run {
                tests: vec![test.clone()],
            }),
        }
    }
    runs.sort_by_key(|run| match run.alone() {
        None => 0,
        Some(test) if test.may_end_by(End::CrashDump) => 1,
        Some(_) => 2,
    });
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<Test> {
        let json = r#"[
            {"name": "d/reset", "end": "reset"},
            {"name": "d/a", "end": "return", "description": "does a"},
            {"name": "d/dump", "end": "crash_dump", "crash_kernel": true, "console": ["why \\d"]},
            {"name": "d/b", "end": "return"},
            {"name": "d/n", "end": "return", "nmi": true},
            {"name": "l/c", "end": "return", "append": "loglevel=1"},
            {"name": "l/panic", "end": "panic"}
        ]"#;
        serde_json::from_str(json).unwrap()
    }

    fn names(runs: &[Run]) -> Vec<Vec<&str>> {
        runs.iter()
            .map(|run| run.tests.iter().map(|test| test.name.as_str()).collect())
            .collect()
    }

    #[test]
    fn tests_that_want_the_same_machine_share_it() {
        let runs = plan(&tests());
        assert_eq!(
            names(&runs),
            [
                vec!["d/a", "d/b"],
                vec!["d/n"],
                vec!["l/c"],
                vec!["d/dump"],
                vec!["d/reset"],
                vec!["l/panic"]
            ]
        );
        let names: Vec<_> = runs.iter().map(Run::name).collect();
        let expected = [
            "shared",
            "shared-nmi",
            "shared-loglevel-1",
            "d-dump",
            "d-reset",
            "l-panic",
        ];
        assert_eq!(names, expected);
        assert!(runs[0].alone().is_none());
        assert_eq!(runs[3].alone().unwrap().name, "d/dump");
    }

    #[test]
    fn filters() {
        let filtered = |globs: &[&str]| {
            let globs: Vec<_> = globs.iter().map(|&glob| glob.to_owned()).collect();
            filter(tests(), &globs).map(|tests| tests.len())
        };
        assert_eq!(filtered(&[]).unwrap(), 7);
        assert_eq!(filtered(&["d/*"]).unwrap(), 5);
        assert_eq!(filtered(&["d/a", "*panic"]).unwrap(), 2);
        assert!(filtered(&["d/*", "nothing"]).is_err());
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        let json = r#"{"name": "a", "end": "return", "console": ["("]}"#;
        assert!(serde_json::from_str::<Test>(json).is_err());
    }
}
