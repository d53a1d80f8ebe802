//! How the results of one kernel's tests differ from another's, and whether they are worse.
//!
//! The tests of the unpatched source judge both kernels. Where the patch set changes tests, those of
//! the patched source judge the patched kernel too. A test of the unpatched source that fails on purpose
//! is named as expected, with what takes its place and has to pass: a test of the patched source, or the
//! same one where the patched kernel's modules are not loaded.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    Pass,
    Fail,
    Skip,
    /// Its suite ended early: it did not get its turn.
    Lost,
    /// There is no such test.
    Absent,
}

impl Found {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Lost => "lost",
            Self::Absent => "absent",
        }
    }

    /// Whether going from this to `other` is for the worse.
    fn worsens_to(self, other: Self) -> bool {
        match self {
            Self::Pass => other != Self::Pass,
            Self::Absent => matches!(other, Self::Fail | Self::Lost),
            Self::Fail | Self::Skip => other == Self::Lost,
            Self::Lost => false,
        }
    }
}

/// What all tests of one run became.
#[derive(Default)]
pub struct Outcome {
    pub found: BTreeMap<String, Found>,
    /// Suites that ended early.
    pub cut: BTreeSet<String>,
}

impl Outcome {
    fn get(&self, name: &str) -> Found {
        let suite = name.split('/').next().unwrap_or(name);
        match self.found.get(name) {
            Some(&found) => found,
            None if self.cut.contains(suite) => Found::Lost,
            None => Found::Absent,
        }
    }
}

/// What the patch set changes on purpose, by the name of the test that fails because of it.
pub type Expectations = BTreeMap<String, Expectation>;

#[derive(Debug, PartialEq, Eq)]
pub struct Expectation {
    pub successor: Successor,
    pub reason: String,
}

/// What has to pass instead.
#[derive(Debug, PartialEq, Eq)]
pub enum Successor {
    /// The test of the patched source with this name.
    Own(String),
    /// The same test, without the modules.
    Bare,
}

/// The successor of tests that pass without the modules.
const BARE: &str = "without-modules";

/// Reads lines of test, successor and reason, with two blanks or more between them: names have blanks, too.
pub fn expectations(text: &str) -> Result<Expectations> {
    let mut expectations = Expectations::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns = line.split("  ").map(str::trim);
        let [name, successor, reason] =
            Vec::from_iter(columns.filter(|column| !column.is_empty()))[..]
        else {
            bail!("'{line}' is not 'TEST  SUCCESSOR  REASON'");
        };
        let expectation = Expectation {
            successor: match successor {
                BARE => Successor::Bare,
                name => Successor::Own(name.to_owned()),
            },
            reason: reason.to_owned(),
        };
        let before = expectations.insert(name.to_owned(), expectation);
        ensure!(before.is_none(), "'{name}' is expected twice");
    }
    Ok(expectations)
}

/// What a test's results on both kernels mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// The same on both.
    Same,
    /// Not the same, and not worse.
    Differs,
    /// The patch set's tests find something else, and nothing worse.
    Changed,
    /// Worse by the tests of the unpatched source, as the patch set intends.
    Expected,
    /// The patched kernel does worse.
    Worse,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub name: String,
    pub unpatched: Found,
    /// By the tests of the unpatched source.
    pub patched: Found,
    /// By the tests of the patched source, if they are not the same.
    pub own_tests: Option<Found>,
    pub judgement: Judgement,
    /// Why it is expected, if it is.
    pub reason: Option<String>,
}

/// `successor` is what became of the test that has to pass where this one is expected to fail.
fn judge(
    unpatched: Found,
    patched: Found,
    own: Option<Found>,
    successor: Option<Found>,
) -> Judgement {
    let worse = unpatched.worsens_to(patched);
    // A test that the patched source has no longer cannot fail.
    let worse_by_own = own.is_some_and(|own| own != Found::Absent && unpatched.worsens_to(own));
    match successor {
        Some(Found::Pass) if worse && !worse_by_own => Judgement::Expected,
        // The patch set does not do what it is to do.
        Some(_) => Judgement::Worse,
        None if worse || worse_by_own => Judgement::Worse,
        None if own.is_some_and(|own| own != patched) => Judgement::Changed,
        None if unpatched == patched => Judgement::Same,
        None => Judgement::Differs,
    }
}

/// Puts the results beside each other, by name. `own` is what the tests of the patched source find, `bare`
/// what they find without the modules.
pub fn compare(
    unpatched: &Outcome,
    patched: &Outcome,
    own: Option<&Outcome>,
    bare: Option<&Outcome>,
    expectations: &Expectations,
) -> Vec<Row> {
    let outcomes = [Some(unpatched), Some(patched), own];
    let names: BTreeSet<_> = outcomes
        .iter()
        .flatten()
        .flat_map(|outcome| outcome.found.keys())
        .collect();
    let row = |name: &String| {
        let (unpatched, patched) = (unpatched.get(name), patched.get(name));
        let expectation = expectations.get(name);
        let of = |outcome: Option<&Outcome>, name: &str| {
            outcome.map_or(Found::Absent, |outcome| outcome.get(name))
        };
        let own_found = own.map(|own| own.get(name));
        let (judging, successor) = match expectation.map(|expectation| &expectation.successor) {
            None => (own_found, None),
            Some(Successor::Own(successor)) => (own_found, Some(of(own, successor))),
            // The patched source has the same test, which fails for the same reason.
            Some(Successor::Bare) => (None, Some(of(bare, name))),
        };
        Row {
            name: name.clone(),
            unpatched,
            patched,
            own_tests: own_found,
            judgement: judge(unpatched, patched, judging, successor),
            reason: expectation.map(|expectation| expectation.reason.clone()),
        }
    };
    names.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::Found::{Absent, Fail, Lost, Pass, Skip};
    use super::Judgement::{Changed, Differs, Expected, Same, Worse};
    use super::*;

    #[test]
    fn with_the_same_tests() {
        for (unpatched, patched, expected) in [
            (Pass, Pass, Same),
            (Fail, Fail, Same),
            (Skip, Skip, Same),
            (Lost, Lost, Same),
            (Pass, Fail, Worse),
            (Pass, Skip, Worse),
            (Pass, Lost, Worse),
            (Pass, Absent, Worse),
            (Fail, Pass, Differs),
            (Skip, Fail, Differs),
            (Skip, Pass, Differs),
            (Fail, Lost, Worse),
            (Skip, Lost, Worse),
            (Lost, Fail, Differs),
            (Lost, Absent, Differs),
            (Absent, Pass, Differs),
            (Absent, Skip, Differs),
            (Absent, Fail, Worse),
            (Absent, Lost, Worse),
        ] {
            assert_eq!(
                judge(unpatched, patched, None, None),
                expected,
                "{unpatched:?} {patched:?}"
            );
        }
    }

    #[test]
    fn with_tests_of_the_patched_source() {
        for (unpatched, patched, own, expected) in [
            (Pass, Pass, Pass, Same),
            (Fail, Fail, Fail, Same),
            // Nobody has said that it may fail.
            (Pass, Fail, Pass, Worse),
            (Pass, Fail, Absent, Worse),
            // Broken whatever the tests say.
            (Pass, Fail, Fail, Worse),
            (Pass, Pass, Fail, Worse),
            (Pass, Pass, Lost, Worse),
            (Pass, Pass, Skip, Worse),
            // Removed, added, made stricter.
            (Pass, Pass, Absent, Changed),
            (Absent, Absent, Pass, Changed),
            (Absent, Absent, Fail, Worse),
            (Fail, Fail, Pass, Changed),
        ] {
            assert_eq!(
                judge(unpatched, patched, Some(own), None),
                expected,
                "{unpatched:?} {patched:?} {own:?}"
            );
        }
    }

    #[test]
    fn what_is_expected_has_a_successor_that_passes() {
        for (unpatched, patched, own, successor, expected) in [
            (Pass, Fail, Absent, Pass, Expected),
            (Pass, Fail, Pass, Pass, Expected),
            (Pass, Fail, Absent, Fail, Worse),
            (Pass, Fail, Absent, Skip, Worse),
            (Pass, Fail, Absent, Absent, Worse),
            (Pass, Fail, Fail, Pass, Worse),
            // It does not change what it is to change.
            (Pass, Pass, Absent, Pass, Worse),
        ] {
            assert_eq!(
                judge(unpatched, patched, Some(own), Some(successor)),
                expected,
                "{unpatched:?} {patched:?} {own:?} {successor:?}"
            );
        }
    }

    fn outcome(found: &[(&str, Found)]) -> Outcome {
        let found = found.iter().map(|&(name, found)| (name.to_owned(), found));
        Outcome {
            found: found.collect(),
            ..Outcome::default()
        }
    }

    #[test]
    fn an_expectation_holds_for_its_test_only() {
        let expectations = expectations("a  b  because\n").unwrap();
        let unpatched = outcome(&[("a", Pass), ("c", Pass)]);
        let patched = outcome(&[("a", Fail), ("c", Fail)]);
        let judged = |own: Option<&Outcome>| {
            let rows = compare(&unpatched, &patched, own, None, &expectations);
            let row = |row: Row| (row.name, row.judgement, row.reason);
            Vec::from_iter(rows.into_iter().map(row))
        };
        let because = Some("because".to_owned());
        assert_eq!(
            judged(Some(&outcome(&[("b", Pass)]))),
            [
                ("a".to_owned(), Expected, because.clone()),
                ("b".to_owned(), Changed, None),
                ("c".to_owned(), Worse, None),
            ]
        );
        // Without tests of the patched source nothing can take its place.
        assert_eq!(
            judged(None),
            [
                ("a".to_owned(), Worse, because),
                ("c".to_owned(), Worse, None)
            ]
        );
    }

    #[test]
    fn a_test_that_passes_without_the_modules_may_fail_with_them() {
        let expectations = expectations("a  without-modules  because\n").unwrap();
        let (passes, fails) = (outcome(&[("a", Pass)]), outcome(&[("a", Fail)]));
        let judged = |patched: &Outcome, bare: Option<&Outcome>| {
            let rows = compare(&passes, patched, Some(patched), bare, &expectations);
            rows[0].judgement
        };
        assert_eq!(judged(&fails, Some(&passes)), Expected);
        assert_eq!(judged(&fails, Some(&fails)), Worse);
        assert_eq!(judged(&fails, None), Worse);
        // It does not change what it is to change.
        assert_eq!(judged(&passes, Some(&passes)), Worse);
    }

    #[test]
    fn expectations_say_why() {
        let read = expectations("# a comment\n\na/x, y   a/y   two words\n").unwrap();
        let expectation = Expectation {
            successor: Successor::Own("a/y".to_owned()),
            reason: "two words".to_owned(),
        };
        assert_eq!(read, [("a/x, y".to_owned(), expectation)].into());
        assert!(expectations("a/x  a/y why\n").is_err());
        assert!(expectations("a/x\n").is_err());
        assert!(expectations("a/x  a/y  why\na/x  a/z  why\n").is_err());
    }

    #[test]
    fn tests_of_a_suite_that_was_cut_are_lost() {
        let unpatched = outcome(&[("a", Pass), ("a/x", Pass), ("b", Pass)]);
        let mut patched = outcome(&[("b", Pass)]);
        patched.cut.insert("a".to_owned());
        let rows = compare(&unpatched, &patched, None, None, &Expectations::new());
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.patched, row.judgement))
            .collect();
        assert_eq!(
            found,
            [("a", Lost, Worse), ("a/x", Lost, Worse), ("b", Pass, Same)]
        );
    }
}
