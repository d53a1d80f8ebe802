//! `vm conformance`: the kernel's own test_progs on the unpatched kernel and on the patched one, and what
//! differs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::FutureExt;
use futures::future::{OptionFuture, try_join4};
use glob::Pattern;
use serde::Serialize;

use crate::difference::{self, Expectations, Found, Judgement, Outcome, Row};
use crate::kernel::Kernel;
use crate::schedule::Slots;
use crate::trial::{Suite, Trial};
use crate::{BpfTests, Common, Unpatched};

/// The suites to run, unless others are asked for.
const SUITES: &str = include_str!("../conformance.suites");
/// What the patch set changes on purpose.
const EXPECTED: &str = include_str!("../conformance.expected");
/// In a build of test_progs: the names of its suites, and the modules that it loads.
const SUITES_FILE: &str = "suites";
const MODULES: &str = "modules";
/// So much of what a test printed goes into the report.
const TAIL: usize = 20;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    unpatched: Unpatched,
    #[command(flatten)]
    tests: BpfTests,
    /// Only suites that match one of these globs [default: those of conformance.suites]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    filter: Vec<String>,
    /// What the patch set changes on purpose [default: conformance.expected]
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// List the suites, and run nothing
    #[arg(long)]
    list: bool,
    /// Machines at a time [default: as many as cores, if memory allows]
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    /// Where the results go, as JSON
    #[arg(long, value_name = "FILE", default_value = "build/conformance.json")]
    out: PathBuf,
}

pub async fn main(options: Options) -> Result<u8> {
    let common = &options.common;
    let (tests, own_tests) = (&*options.tests.unpatched, &*options.tests.own);
    let has_own = own_tests.join(SUITES_FILE).is_file();
    let expectations = match &options.expected {
        Some(file) => fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))
            .and_then(|text| difference::expectations(&text))?,
        None => difference::expectations(EXPECTED)?,
    };
    let listed = Listed::read(SUITES)?;
    let available = suites_of(tests)?;
    let own_available = match has_own {
        true => suites_of(own_tests)?,
        false => Vec::new(),
    };
    let globs = match &options.filter[..] {
        [] => listed.globs(),
        filter => globs(filter)?,
    };
    let suites = listed.choose(&available, &globs);
    let own_suites = listed.choose(&own_available, &globs);
    if let Some(glob) = globs.iter().find(|glob| {
        let mut chosen = suites.iter().chain(&own_suites);
        !chosen.any(|suite| glob.matches(&suite.name))
    }) {
        bail!("no suite of test_progs matches '{glob}'");
    }
    if options.list {
        suites.iter().for_each(|suite| println!("{}", suite.name));
        return Ok(0);
    }

    let unpatched = Kernel::open(&options.unpatched.dir)?;
    let patched = Kernel::open(&common.kernel)?;
    let logs = common.log_dir.as_path();
    let before = Trial {
        name: "unpatched",
        kernel: &unpatched,
        tests,
        modules: &tests.join(MODULES),
        loaded: false,
        suites: &suites,
        logs,
    };
    let after = Trial {
        name: "patched",
        kernel: &patched,
        modules: &own_tests.join(MODULES),
        loaded: true,
        ..before
    };
    let own = Trial {
        name: "patched-own-tests",
        tests: own_tests,
        suites: &own_suites,
        ..after
    };
    // What is expected comes with the modules, and not without them.
    let changed = suites_with(&own_suites, &expectations);
    let bare = Trial {
        name: "patched-without-modules",
        loaded: false,
        suites: &changed,
        ..own
    };
    let accelerator = common.accelerator(&patched, &after.images()?).await?;
    let slots = Slots::new(options.jobs)?;
    let run_own = has_own.then(|| own.run(&accelerator, &slots));
    let run_bare = has_own.then(|| bare.run(&accelerator, &slots));
    let (before, after, own, bare) = try_join4(
        before.run(&accelerator, &slots),
        after.run(&accelerator, &slots),
        OptionFuture::from(run_own).map(Option::transpose),
        OptionFuture::from(run_bare).map(Option::transpose),
    )
    .await?;

    let mut rows = difference::compare(
        &before.outcome,
        &after.outcome,
        own.as_ref().map(|own| &own.outcome),
        bare.as_ref().map(|bare| &bare.outcome),
        &expectations,
    );
    ensure!(
        rows.iter().any(|row| row.unpatched == Found::Pass),
        "no test passes on the unpatched kernel; logs: {}",
        logs.display()
    );
    let mut notes = after.notes;
    notes.extend(own.map(|own| own.notes).unwrap_or_default());
    if let Some(bare) = bare {
        rows.extend(without_modules(&before.outcome, &bare.outcome, &changed));
        notes.extend(
            bare.notes
                .into_iter()
                .map(|(name, note)| (bare_name(&name), note)),
        );
    }
    let loaded = patched.modules("kernel/bpf/");
    println!("loaded on the patched kernel: {}", names(&loaded).join(" "));
    print!("{}", text(&rows, &notes));
    let worse = rows.iter().any(|row| row.judgement == Judgement::Worse);

    let report = Report {
        unpatched: common.facts_by_name(&unpatched, &accelerator).await?,
        patched: common.facts_by_name(&patched, &accelerator).await?,
        rows,
    };
    let out = &options.out;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    fs::write(out, json).with_context(|| format!("cannot write {}", out.display()))?;
    eprintln!(
        "with versions, as JSON: {}; logs: {}",
        out.display(),
        logs.display()
    );
    Ok(worse.into())
}

/// The suites that a build of test_progs has.
fn suites_of(tests: &Path) -> Result<Vec<String>> {
    let file = tests.join(SUITES_FILE);
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}: make conformance builds it", file.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn globs(filter: &[String]) -> Result<Vec<Pattern>> {
    filter.iter().map(|glob| pattern(glob)).collect()
}

fn pattern(glob: &str) -> Result<Pattern> {
    Pattern::new(glob).with_context(|| format!("'{glob}' is no glob"))
}

/// What conformance.suites says: globs, and whether what they match depends on time.
struct Listed(Vec<(Pattern, bool)>);

impl Listed {
    fn read(text: &str) -> Result<Self> {
        let mut listed = Vec::new();
        for line in text.lines() {
            let words = line.split('#').next().unwrap_or_default();
            match Vec::from_iter(words.split_whitespace())[..] {
                [] => {}
                [glob] => listed.push((pattern(glob)?, false)),
                [glob, "timed"] => listed.push((pattern(glob)?, true)),
                _ => bail!("conformance.suites: '{line}' is not 'GLOB' or 'GLOB timed'"),
            }
        }
        Ok(Self(listed))
    }

    fn globs(&self) -> Vec<Pattern> {
        self.0.iter().map(|(glob, _)| glob.clone()).collect()
    }

    fn timed(&self, suite: &str) -> bool {
        self.0
            .iter()
            .any(|(glob, timed)| *timed && glob.matches(suite))
    }

    fn choose(&self, available: &[String], globs: &[Pattern]) -> Vec<Suite> {
        let chosen = available
            .iter()
            .filter(|suite| globs.iter().any(|glob| glob.matches(suite)));
        let suite = |name: &String| Suite {
            name: name.clone(),
            timed: self.timed(name),
        };
        chosen.map(suite).collect()
    }
}

fn suite_of(test: &str) -> &str {
    test.split(['/', ' ']).next().unwrap_or(test)
}

/// Those of the suites in which something is expected to change.
fn suites_with(suites: &[Suite], expectations: &Expectations) -> Vec<Suite> {
    let expected = |suite: &&Suite| expectations.keys().any(|name| suite_of(name) == suite.name);
    suites.iter().filter(expected).cloned().collect()
}

fn bare_name(name: &str) -> String {
    format!("{name} (without the modules)")
}

/// The rows of the suites that ran without modules as well: there nothing is expected to change.
fn without_modules(unpatched: &Outcome, bare: &Outcome, suites: &[Suite]) -> Vec<Row> {
    let of = |outcome: &Outcome| Outcome {
        found: outcome
            .found
            .iter()
            .filter(|(name, _)| suites.iter().any(|suite| suite.name == suite_of(name)))
            .map(|(name, &found)| (name.clone(), found))
            .collect(),
        cut: outcome.cut.clone(),
    };
    let (unpatched, bare) = (of(unpatched), of(bare));
    let rows = difference::compare(&unpatched, &bare, None, None, &Expectations::new());
    let row = |row: Row| Row {
        name: bare_name(&row.name),
        ..row
    };
    rows.into_iter().map(row).collect()
}

fn names(modules: &[PathBuf]) -> Vec<String> {
    let names = modules.iter().filter_map(|module| module.file_stem());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// What the results are written down with.
#[derive(Serialize)]
struct Report {
    unpatched: BTreeMap<String, String>,
    patched: BTreeMap<String, String>,
    rows: Vec<Row>,
}

/// What is not the same, what passes nowhere, and how many of each there are.
fn text(rows: &[Row], notes: &BTreeMap<String, Vec<String>>) -> String {
    let is = |judgement| move |row: &&Row| row.judgement == judgement;
    let same = |found: &'static [Found]| {
        move |row: &&Row| row.judgement == Judgement::Same && found.contains(&row.unpatched)
    };
    let mut text = String::new();
    let mut counts = Vec::new();
    let mut section = |title: &str, rows: Vec<&Row>, told: bool| {
        counts.push(format!("{} {title}", rows.len()));
        if !told || rows.is_empty() {
            return;
        }
        text.push_str(&format!("{title}:\n"));
        for row in rows {
            text.push_str(&format!("  {}\n", describe(row)));
            let log = notes
                .get(&row.name)
                .filter(|_| row.judgement == Judgement::Worse);
            let log = log.map_or(&[][..], Vec::as_slice);
            for line in &log[log.len().saturating_sub(TAIL)..] {
                text.push_str(&format!("    | {line}\n"));
            }
        }
    };
    section(
        "pass on both",
        rows.iter().filter(same(&[Found::Pass])).collect(),
        false,
    );
    section(
        "skipped on both",
        rows.iter().filter(same(&[Found::Skip])).collect(),
        true,
    );
    section(
        "fail on both",
        rows.iter()
            .filter(same(&[Found::Fail, Found::Lost]))
            .collect(),
        true,
    );
    section(
        "differ, none for the worse",
        rows.iter().filter(is(Judgement::Differs)).collect(),
        true,
    );
    section(
        "changed by the patch set's tests",
        rows.iter().filter(is(Judgement::Changed)).collect(),
        true,
    );
    section(
        "expected to fail, as the patch set changes it",
        rows.iter().filter(is(Judgement::Expected)).collect(),
        true,
    );
    section(
        "worse on the patched kernel",
        rows.iter().filter(is(Judgement::Worse)).collect(),
        true,
    );
    text.push_str(&counts.join(", "));
    text.push('\n');
    text
}

/// A test, and what became of it where that is not one word.
fn describe(row: &Row) -> String {
    let Row {
        name,
        unpatched,
        patched,
        own_tests,
        judgement,
        reason,
    } = row;
    if *judgement == Judgement::Same {
        return name.clone();
    }
    if let (Judgement::Expected, Some(reason)) = (judgement, reason) {
        return format!("{name}: {reason}");
    }
    let mut text = format!("{name}: {} -> {}", unpatched.name(), patched.name());
    if let Some(own) = own_tests {
        text.push_str(&format!(", by the patch set's tests {}", own.name()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::difference::Outcome;

    fn outcome(found: &[(&str, Found)]) -> Outcome {
        let found = found.iter().map(|&(name, found)| (name.to_owned(), found));
        Outcome {
            found: found.collect(),
            ..Outcome::default()
        }
    }

    #[test]
    fn what_differs_is_told() {
        use Found::{Fail, Pass, Skip};
        let unpatched = outcome(&[
            ("a", Pass),
            ("b", Fail),
            ("c", Skip),
            ("d", Fail),
            ("e", Pass),
            ("f", Pass),
        ]);
        let patched = outcome(&[
            ("a", Pass),
            ("b", Fail),
            ("c", Skip),
            ("d", Pass),
            ("e", Fail),
            ("f", Fail),
        ]);
        let own = outcome(&[
            ("a", Pass),
            ("b", Fail),
            ("c", Skip),
            ("d", Pass),
            ("f", Fail),
            ("g", Pass),
        ]);
        let notes = [("f".to_owned(), vec!["why".to_owned()])].into();
        let rows = difference::compare(
            &unpatched,
            &patched,
            Some(&own),
            None,
            &difference::expectations("e  g  a reason of its own\n").unwrap(),
        );
        assert_eq!(
            text(&rows, &notes),
            "\
skipped on both:
  c
fail on both:
  b
differ, none for the worse:
  d: fail -> pass, by the patch set's tests pass
changed by the patch set's tests:
  g: absent -> absent, by the patch set's tests pass
expected to fail, as the patch set changes it:
  e: a reason of its own
worse on the patched kernel:
  f: pass -> fail, by the patch set's tests fail
    | why
1 pass on both, 1 skipped on both, 1 fail on both, 1 differ, none for the worse, \
1 changed by the patch set's tests, 1 expected to fail, as the patch set changes it, 1 worse on the patched kernel
"
        );
    }

    #[test]
    fn suites_are_chosen_by_globs() {
        let available = ["iters", "irq", "iter", "wq"].map(str::to_owned);
        let listed = Listed::read("# all\niters*\n\nirq # and\nwq timed\n").unwrap();
        let chosen = |globs: &[Pattern]| {
            let chosen = listed.choose(&available, globs).into_iter();
            Vec::from_iter(chosen.map(|suite| (suite.name, suite.timed)))
        };
        let suite = |name: &str, timed| (name.to_owned(), timed);
        assert_eq!(
            chosen(&listed.globs()),
            [
                suite("iters", false),
                suite("irq", false),
                suite("wq", true)
            ]
        );
        let asked = |filter: &[&str]| {
            let filter = Vec::from_iter(filter.iter().map(|&glob| glob.to_owned()));
            chosen(&globs(&filter).unwrap())
        };
        assert_eq!(
            asked(&["i*r*", "nothing"]),
            [
                suite("iters", false),
                suite("irq", false),
                suite("iter", false)
            ]
        );
        assert_eq!(asked(&["w?"]), [suite("wq", true)]);
        assert!(globs(&["a**b".to_owned()]).is_err());
        assert!(Listed::read("a b\n").is_err());
        assert!(Listed::read("a timed twice\n").is_err());
    }

    #[test]
    fn the_lists_of_this_directory_can_be_read() {
        let expectations = difference::expectations(EXPECTED).unwrap();
        let listed = Listed::read(SUITES).unwrap();
        for name in expectations.keys() {
            let suite = suite_of(name).to_owned();
            assert_eq!(listed.choose(&[suite], &listed.globs()).len(), 1, "{name}");
        }
    }

    #[test]
    fn without_modules_nothing_is_expected() {
        use Found::{Fail, Pass};
        let suites = [Suite {
            name: "a".to_owned(),
            timed: false,
        }];
        let unpatched = outcome(&[("a", Pass), ("a/x", Pass), ("ab/x", Pass)]);
        let bare = outcome(&[("a", Pass), ("a/x", Fail)]);
        let rows = without_modules(&unpatched, &bare, &suites);
        let judged = rows.iter().map(|row| (row.name.as_str(), row.judgement));
        assert_eq!(
            Vec::from_iter(judged),
            [
                ("a (without the modules)", Judgement::Same),
                ("a/x (without the modules)", Judgement::Worse),
            ]
        );
        let expectations = difference::expectations("a/x  a/y  why\n").unwrap();
        assert_eq!(suites_with(&suites, &expectations), suites);
        let expectations = difference::expectations("ab/x  ab/y  why\n").unwrap();
        assert!(suites_with(&suites, &expectations).is_empty());
    }
}
