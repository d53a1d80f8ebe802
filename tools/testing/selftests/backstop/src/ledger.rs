// SPDX-License-Identifier: GPL-2.0
//! What became of the counted objects of module bpf_unwind_test, see progs/unwind/ledger.bpf.c.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libbpf_rs::Object as LoadedObject;

use crate::catalogue::object;
use crate::expectation::Expectation;
use crate::loader;
use crate::perform::DEADLINE;
use crate::section::Section;
use crate::test_run::run;

/// An account that was opened when nothing was held.
pub struct Ledger {
    object: LoadedObject,
}

/// struct bpf_unwind_ledger
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    pub live: u32,
    pub faults: u32,
    pub acquired: u32,
    pub released: u32,
    /// Labels in the order of release.
    pub log: String,
}

impl Entries {
    const WORDS: usize = 4;

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.chunks_exact(size_of::<u32>());
        let mut word = || Some(u32::from_ne_bytes(words.next()?.try_into().ok()?));
        Some(Self {
            live: word()?,
            faults: word()?,
            acquired: word()?,
            released: word()?,
            log: bytes
                .get(Self::WORDS * size_of::<u32>()..)?
                .iter()
                .take_while(|&&label| label != 0)
                .map(|&label| char::from(label))
                .collect(),
        })
    }

    /// What is wrong after so many runs that each let go of what is expected.
    fn check(&self, expectation: &Expectation, runs: usize) -> Result<()> {
        ensure!(
            self.faults == 0,
            "{} releases of what was not held: {self:?}",
            self.faults
        );
        ensure!(self.live == 0, "{} objects are left: {self:?}", self.live);
        if let Some(released) = &expectation.released {
            let expected = released.repeat(runs);
            let same = match expectation.in_order {
                true => self.log == expected,
                false => sorted(&self.log) == sorted(&expected),
            };
            ensure!(same, "{expected} were to be released: {self:?}");
        }
        Ok(())
    }
}

fn sorted(labels: &str) -> Vec<char> {
    let mut labels: Vec<_> = labels.chars().collect();
    labels.sort_unstable();
    labels
}

impl Ledger {
    pub fn open() -> Result<Self> {
        let object = loader::load(object("unwind", "ledger")?, &["look", "reset"])??;
        let ledger = Self { object };
        run(&ledger.object, "reset")?;
        Ok(ledger)
    }

    pub fn entries(&self) -> Result<Entries> {
        run(&self.object, "look")?;
        let bytes = Section::of(&self.object, ".data.ledger")?.read()?;
        Entries::from_bytes(&bytes).context("the ledger has another size")
    }

    /// After so many runs all is let go of as expected: at once, when an asynchronous callback ends,
    /// or with the maps of the program, which are freed some time after their last descriptor.
    pub fn settle(&self, expectation: &Expectation, runs: usize) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let checked = self.entries()?.check(expectation, runs);
            if checked.is_ok() || Instant::now() >= deadline {
                return checked;
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// The same where each run is to let go of these objects, by label and in any order.
    pub fn settle_released(&self, labels: &str, runs: usize) -> Result<()> {
        let expectation = Expectation {
            released: Some(labels.into()),
            ..Expectation::default()
        };
        self.settle(&expectation, runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(log: &str) -> Entries {
        Entries {
            log: log.into(),
            ..Entries::default()
        }
    }

    fn expected(released: &str, in_order: bool) -> Expectation {
        Expectation {
            released: Some(released.into()),
            in_order,
            ..Expectation::default()
        }
    }

    #[test]
    fn entries_are_read_from_bytes() {
        let mut bytes: Vec<u8> = [1u32, 2, 3, 4]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        bytes.extend(b"ab\0\0");
        let read = Entries::from_bytes(&bytes).unwrap();
        let counts = [read.live, read.faults, read.acquired, read.released];
        assert_eq!(counts, [1, 2, 3, 4]);
        assert_eq!(read.log, "ab");
        assert_eq!(Entries::from_bytes(&[0; 3]), None);
    }

    #[test]
    fn order_matters_where_it_is_expected() {
        assert!(entries("ba").check(&expected("ab", false), 1).is_ok());
        assert!(entries("ba").check(&expected("ab", true), 1).is_err());
        assert!(entries("abab").check(&expected("ab", true), 2).is_ok());
        assert!(entries("ab").check(&expected("ab", false), 2).is_err());
        assert!(entries("aab").check(&expected("ab", false), 1).is_err());
        assert!(entries("").check(&expected("", false), 2).is_ok());
    }

    #[test]
    fn faults_and_what_is_left_are_errors() {
        let expectation = Expectation::default();
        assert!(entries("a").check(&expectation, 1).is_ok());
        for wrong in [(1, 0), (0, 1)] {
            let entries = Entries {
                live: wrong.0,
                faults: wrong.1,
                ..Entries::default()
            };
            assert!(entries.check(&expectation, 1).is_err());
        }
    }
}
