// SPDX-License-Identifier: GPL-2.0
//! Compares what a program that threw has done and left with what its twin has.

use anyhow::{Result, ensure};

use super::emit::Side;
use super::state::{Cpu, Remains, State};
use super::tree::Rank;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub retval: i32,
    pub state: State,
    pub before: Remains,
    pub remains: Remains,
}

/// What both sides have to do alike.
#[derive(PartialEq, Debug)]
struct Seen {
    returned: i32,
    thrown: Option<u64>,
    trace: u64,
    released_itself: u32,
    acquired: u32,
    released: u32,
    /// In any order.
    log: String,
    stashed: u32,
}

/// As many labels as the log takes.
const LOG: u32 = 128;

impl Outcome {
    /// Nothing is left of the run, and it has let go of nothing that it did not hold.
    fn check(&self) -> Result<()> {
        let (before, now) = (&self.before, &self.remains);
        let ledger = &now.ledger;
        ensure!(
            ledger.faults == 0,
            "{} releases of what was not held",
            ledger.faults
        );
        ensure!(ledger.live == 0, "{} counted objects are left", ledger.live);
        ensure!(now.locked == 0, "locks are held: {:#b}", now.locked);
        ensure!(
            now.locks == before.locks,
            "the CPU believes to hold {} resilient locks, not {}",
            now.locks,
            before.locks
        );
        ensure!(
            now.task_users == before.task_users,
            "the task has {} users, not {}",
            now.task_users,
            before.task_users
        );
        ensure!(now.ring == 0, "{} bytes stay in the ring buffer", now.ring);
        let counts = |remains: &Remains| {
            let Remains {
                objects,
                percpu_objects,
                cpumasks,
                ..
            } = remains;
            [*objects, *percpu_objects, *cpumasks]
        };
        ensure!(
            counts(now) == counts(before),
            "objects, per-CPU objects, cpumasks in use: {:?}, not {:?}",
            counts(now),
            counts(before)
        );
        ensure!(
            now.cpu == before.cpu,
            "the CPU is {:?}, not {:?}",
            now.cpu,
            before.cpu
        );
        ensure!(
            self.state.after == Cpu::default() || self.state.after == self.state.before,
            "the CPU is {:?} at the end, {:?} in the beginning",
            self.state.after,
            self.state.before
        );
        Ok(())
    }

    fn seen(&self) -> Seen {
        let ledger = &self.remains.ledger;
        let mut log: Vec<_> = ledger.log.chars().collect();
        log.sort_unstable();
        Seen {
            returned: self.retval,
            thrown: self.state.thrown.then_some(self.state.cookie),
            trace: self.state.trace,
            released_itself: self.state.released,
            acquired: ledger.acquired,
            released: ledger.released,
            log: log.into_iter().collect(),
            stashed: self.remains.stashed,
        }
    }

    /// What the program has released itself, what went with the throw.
    fn log(&self) -> (&[u8], &[u8]) {
        let log = self.remains.ledger.log.as_bytes();
        // What was in the map is released last, by the one who looks.
        let end = log.len() - usize::from(self.remains.stashed != 0).min(log.len());
        log[..end].split_at((self.state.released as usize).min(end))
    }
}

/// What is wrong.
pub fn judge(throwing: &Outcome, twin: &Outcome, ranks: &[Rank]) -> Result<()> {
    for (side, outcome) in [(Side::Throwing, throwing), (Side::Twin, twin)] {
        outcome
            .check()
            .map_err(|error| error.context(format!("{side:?}: {outcome:?}")))?;
    }
    let (ours, theirs) = (throwing.seen(), twin.seen());
    ensure!(ours == theirs, "throwing {ours:?}\ntwin     {theirs:?}");
    if throwing.remains.ledger.released > LOG {
        return Ok(());
    }
    let ((released, thrown), (by_twin, _)) = (throwing.log(), twin.log());
    ensure!(
        released == by_twin,
        "before the throw, {} were released, {} by the twin",
        String::from_utf8_lossy(released),
        String::from_utf8_lossy(by_twin)
    );
    ensure!(
        is_in_order(thrown, ranks),
        "the throw released {}, which is not the order of the documentation",
        String::from_utf8_lossy(thrown)
    );
    Ok(())
}

/// By callback, the innermost first, and by kind there.
fn is_in_order(log: &[u8], ranks: &[Rank]) -> bool {
    let places: Vec<_> = log
        .iter()
        .filter_map(|label| ranks.iter().find(|rank| rank.label == *label))
        .map(|rank| (u8::MAX - rank.boundary, rank.kind))
        .collect();
    places.is_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Entries;

    const RANKS: [Rank; 3] = [
        Rank {
            label: b'i',
            boundary: 0,
            kind: 0,
        },
        Rank {
            label: b'r',
            boundary: 0,
            kind: 1,
        },
        Rank {
            label: b'c',
            boundary: 1,
            kind: 1,
        },
    ];

    fn outcome(log: &str, released: u32) -> Outcome {
        let count = log.len() as u32;
        Outcome {
            retval: 1,
            state: State {
                thrown: true,
                released,
                ..State::default()
            },
            before: Remains::default(),
            remains: Remains {
                ledger: Entries {
                    acquired: count,
                    released: count,
                    log: log.into(),
                    ..Entries::default()
                },
                ..Remains::default()
            },
        }
    }

    fn holds(throwing: &Outcome, twin: &Outcome) -> bool {
        judge(throwing, twin, &RANKS).is_ok()
    }

    #[test]
    fn what_a_throw_releases_has_an_order() {
        assert!(holds(&outcome("rcir", 1), &outcome("rcri", 1)));
        assert!(!holds(&outcome("rcri", 1), &outcome("rcri", 1)));
        assert!(!holds(&outcome("rirc", 1), &outcome("rcri", 1)));
        assert!(holds(&outcome("1c1ir", 0), &outcome("cri11", 0)));
    }

    #[test]
    fn what_was_released_before_is_the_same() {
        assert!(holds(&outcome("ri", 2), &outcome("ri", 2)));
        assert!(!holds(&outcome("ri", 2), &outcome("ir", 2)));
        assert!(!holds(&outcome("ri", 1), &outcome("ri", 2)));
        assert!(!holds(&outcome("r", 1), &outcome("i", 1)));
    }

    #[test]
    fn nothing_is_left() {
        let good = outcome("r", 0);
        let changes: [fn(&mut Outcome); 11] = [
            |outcome| outcome.remains.ledger.live = 1,
            |outcome| outcome.remains.ledger.faults = 1,
            |outcome| outcome.remains.locked = 1,
            |outcome| outcome.remains.locks = 1,
            |outcome| outcome.remains.task_users = 1,
            |outcome| outcome.remains.ring = 8,
            |outcome| outcome.remains.objects = 1,
            |outcome| outcome.remains.cpu.preempt_count = 1,
            |outcome| outcome.state.after.rcu_nesting = 1,
            |outcome| outcome.retval = 2,
            |outcome| outcome.state.trace = 2,
        ];
        assert!(holds(&good, &good));
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(!holds(&bad, &good));
            assert!(!holds(&good, &bad));
        }
    }
}
