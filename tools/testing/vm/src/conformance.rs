//! `vm conformance`: the kernel's own test_progs on the unpatched kernel and on the patched one, and what
//! differs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::FutureExt;
use futures::future::{OptionFuture, try_join3};
use glob::Pattern;
use serde::Serialize;

use crate::Common;
use crate::difference::{self, Found, Judgement, Row};
use crate::kernel::Kernel;
use crate::schedule::Slots;
use crate::trial::Trial;

/// The suites to run, unless others are asked for.
const SUITES: &str = include_str!("../conformance.suites");
/// In a build of test_progs: the names of its suites, and the modules that it loads.
const SUITES_FILE: &str = "suites";
const MODULES: &str = "modules";
/// So much of what a test printed goes into the report.
const TAIL: usize = 20;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// The unpatched kernel's build directory
    #[arg(long, value_name = "DIR", default_value = "build/linux-pristine")]
    unpatched: PathBuf,
    /// test_progs of the unpatched source, and the modules for its kernel
    #[arg(long, value_name = "DIR", default_value = "build/test_progs/unpatched")]
    tests: PathBuf,
    /// The modules for the patched kernel, and test_progs of its source where that has other tests
    #[arg(long, value_name = "DIR", default_value = "build/test_progs/patched")]
    own_tests: PathBuf,
    /// Only suites that match one of these globs [default: those of conformance.suites]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    filter: Vec<String>,
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
    let (tests, own_tests) = (options.tests.as_path(), options.own_tests.as_path());
    let has_own = own_tests.join(SUITES_FILE).is_file();
    let available = suites_of(tests)?;
    let own_available = match has_own {
        true => suites_of(own_tests)?,
        false => Vec::new(),
    };
    let globs = globs(&options.filter)?;
    let suites = choose(&available, &globs);
    let own_suites = choose(&own_available, &globs);
    if let Some(glob) = globs.iter().find(|glob| {
        let mut chosen = suites.iter().chain(&own_suites);
        !chosen.any(|suite| glob.matches(suite))
    }) {
        bail!("no suite of test_progs matches '{glob}'");
    }
    if options.list {
        suites.iter().for_each(|suite| println!("{suite}"));
        return Ok(0);
    }

    let unpatched = Kernel::open(&options.unpatched)?;
    let patched = Kernel::open(&common.kernel)?;
    let logs = common.log_dir.as_path();
    let before = Trial {
        name: "unpatched",
        kernel: &unpatched,
        tests,
        modules: &tests.join(MODULES),
        suites: &suites,
        logs,
    };
    let after = Trial {
        name: "patched",
        kernel: &patched,
        modules: &own_tests.join(MODULES),
        ..before
    };
    let own = Trial {
        name: "patched-own-tests",
        tests: own_tests,
        suites: &own_suites,
        ..after
    };
    let accelerator = common.accelerator(&patched, &after.images()?).await?;
    let slots = Slots::new(options.jobs)?;
    let run_own = has_own.then(|| own.run(&accelerator, &slots));
    let (before, after, own) = try_join3(
        before.run(&accelerator, &slots),
        after.run(&accelerator, &slots),
        OptionFuture::from(run_own).map(Option::transpose),
    )
    .await?;

    let own_outcome = own.as_ref().map(|own| &own.outcome);
    let rows = difference::compare(&before.outcome, &after.outcome, own_outcome);
    ensure!(
        rows.iter().any(|row| row.unpatched == Found::Pass),
        "no test passes on the unpatched kernel; logs: {}",
        logs.display()
    );
    let mut notes = after.notes;
    notes.extend(own.map(|own| own.notes).unwrap_or_default());
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

/// The globs that are asked for, else those of conformance.suites.
fn globs(filter: &[String]) -> Result<Vec<Pattern>> {
    let listed = SUITES
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    let listed: Vec<_> = listed.filter(|line| !line.is_empty()).collect();
    let wanted = match filter {
        [] => listed,
        filter => filter.iter().map(String::as_str).collect(),
    };
    let glob = |glob| Pattern::new(glob).with_context(|| format!("'{glob}' is no glob"));
    wanted.into_iter().map(glob).collect()
}

fn choose(available: &[String], globs: &[Pattern]) -> Vec<String> {
    let chosen = available
        .iter()
        .filter(|suite| globs.iter().any(|glob| glob.matches(suite)));
    chosen.cloned().collect()
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
    } = row;
    if *judgement == Judgement::Same {
        return name.clone();
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
            ("e", Pass),
            ("f", Fail),
        ]);
        let notes = [("f".to_owned(), vec!["why".to_owned()])].into();
        let rows = difference::compare(&unpatched, &patched, Some(&own));
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
  e: pass -> fail, by the patch set's tests pass
worse on the patched kernel:
  f: pass -> fail, by the patch set's tests fail
    | why
1 pass on both, 1 skipped on both, 1 fail on both, 1 differ, none for the worse, \
1 changed by the patch set's tests, 1 worse on the patched kernel
"
        );
    }

    #[test]
    fn suites_are_chosen_by_globs() {
        let available = ["iters", "irq", "iter"].map(str::to_owned);
        let chosen = |filter: &[&str]| {
            let filter: Vec<_> = filter.iter().map(|&glob| glob.to_owned()).collect();
            choose(&available, &globs(&filter).unwrap())
        };
        assert_eq!(chosen(&["iters*"]), ["iters"]);
        assert_eq!(chosen(&["i*r*", "nothing"]), ["iters", "irq", "iter"]);
        assert_eq!(chosen(&[]), ["iters", "irq"]);
        assert!(globs(&["a**b".to_owned()]).is_err());
    }
}
