//! How the results of one kernel's tests differ from another's, and whether they are worse.
//!
//! The tests of the unpatched source judge both kernels. Where the patch set changes tests, those of
//! the patched source judge the patched kernel too, and tell what is changed on purpose from what broke.

use std::collections::{BTreeMap, BTreeSet};

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

/// What a test's results on both kernels mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// The same on both.
    Same,
    /// Not the same, and not worse.
    Differs,
    /// What the patch set expects is not what the unpatched source expects.
    Changed,
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
}

fn judge(unpatched: Found, patched: Found, own: Option<Found>) -> Judgement {
    let worse = unpatched.worsens_to(patched);
    let same = if unpatched == patched {
        Judgement::Same
    } else {
        Judgement::Differs
    };
    match own {
        None if worse => Judgement::Worse,
        None => same,
        // A test that the patched source has no longer cannot fail, nor can it vouch for anything
        // but its own removal.
        Some(Found::Absent) if worse || patched != Found::Absent => Judgement::Changed,
        Some(own) if unpatched.worsens_to(own) => Judgement::Worse,
        Some(own) if worse || own != patched => Judgement::Changed,
        Some(_) => same,
    }
}

/// Puts the results beside each other, by name.
pub fn compare(unpatched: &Outcome, patched: &Outcome, own: Option<&Outcome>) -> Vec<Row> {
    let outcomes = [Some(unpatched), Some(patched), own];
    let names: BTreeSet<_> = outcomes
        .iter()
        .flatten()
        .flat_map(|outcome| outcome.found.keys())
        .collect();
    let row = |name: &String| {
        let (unpatched, patched) = (unpatched.get(name), patched.get(name));
        let own = own.map(|own| own.get(name));
        Row {
            name: name.clone(),
            unpatched,
            patched,
            own_tests: own,
            judgement: judge(unpatched, patched, own),
        }
    };
    names.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::Found::{Absent, Fail, Lost, Pass, Skip};
    use super::Judgement::{Changed, Differs, Same, Worse};
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
            (Fail, Lost, Worse),
            (Lost, Fail, Differs),
            (Absent, Pass, Differs),
            (Absent, Fail, Worse),
        ] {
            assert_eq!(
                judge(unpatched, patched, None),
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
            // Lifted on purpose, and removed or renamed because of it.
            (Pass, Fail, Pass, Changed),
            (Pass, Fail, Absent, Changed),
            (Pass, Pass, Absent, Changed),
            // Broken whatever the tests say.
            (Pass, Fail, Fail, Worse),
            (Pass, Pass, Fail, Worse),
            (Pass, Pass, Lost, Worse),
            (Pass, Fail, Skip, Worse),
            // Added.
            (Absent, Absent, Pass, Changed),
            (Absent, Absent, Fail, Worse),
            (Fail, Fail, Pass, Changed),
        ] {
            assert_eq!(
                judge(unpatched, patched, Some(own)),
                expected,
                "{unpatched:?} {patched:?} {own:?}"
            );
        }
    }

    #[test]
    fn tests_of_a_suite_that_was_cut_are_lost() {
        let mut unpatched = Outcome::default();
        for name in ["a", "a/x", "b"] {
            unpatched.found.insert(name.to_owned(), Pass);
        }
        let mut patched = Outcome::default();
        patched.found.insert("b".to_owned(), Pass);
        patched.cut.insert("a".to_owned());
        let rows = compare(&unpatched, &patched, None);
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
