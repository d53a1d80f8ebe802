// SPDX-License-Identifier: GPL-2.0
//! A differential fuzzer of what exceptions release.
//!
//! It draws programs (`draw`, from `choice`) as trees (`tree`) of what is held while what runs, with
//! points at which a run may end, and makes each into two (`emit`, `assemble`): one that throws there,
//! and a twin that releases by hand and returns. Both run with the same inputs (`ground`, `state`), end at
//! each point in turn, and have to do and leave the same (`judge`). Where they do not, the smallest
//! program is looked for that still shows it (`shrink`).

mod assemble;
mod choice;
mod draw;
mod emit;
mod ground;
mod judge;
mod shrink;
mod state;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Write, stdout};
use std::ops::Range;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::load_module;
use choice::Choices;
use emit::{Side, emit};
use ground::Ground;
use state::Input;
use tree::{Rank, Tree};

/// So many of a hundred programs the verifier has to accept.
const ACCEPTED: u32 = 90;
/// Of a hundred runs, so many may say nothing because memory was short.
const SHORT: u64 = 1;

/// Unwinds, and counts.
pub const MODULES: &[&str] = &["bpf_unwind", "bpf_unwind_test"];

/// Ways through a program.
const WAYS: u32 = 4;
/// Points that a way is ended at.
const POINTS: u32 = 24;
/// Programs that are tried to make one smaller that shows a difference.
const TRIES: usize = 1500;

/// A program and what it is run with.
struct Case {
    tree: Tree,
    ranks: Vec<Rank>,
    ways: Vec<u32>,
}

enum Verdict {
    Same {
        runs: u32,
        short: u32,
    },
    Refused {
        side: Side,
        reason: String,
        log: String,
    },
    Differs {
        input: Input,
        how: String,
    },
}

/// What came of many programs.
#[derive(Default, Debug, Serialize)]
pub struct Summary {
    pub programs: u32,
    pub accepted: u32,
    /// Pairs of runs.
    pub runs: u64,
    /// Of these, those where an allocation failed, which says nothing.
    pub short: u64,
    /// How often the verifier refused a program for what reason.
    pub refused: BTreeMap<String, Reason>,
    pub differences: u32,
}

/// How many programs were refused for the same reason, and which first.
#[derive(Debug, Serialize)]
pub struct Reason {
    pub programs: u32,
    pub first: u64,
}

/// A program whose two sides do not do the same.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub seed: u64,
    pub program: u64,
    /// Of the smallest program that was found.
    pub how: String,
    pub bits: u32,
    pub countdown: u32,
    pub listing: String,
}

impl Summary {
    /// No difference, in programs that say something.
    pub fn is_well(&self) -> bool {
        self.differences == 0
            && self.accepted > 0
            && self.accepted * 100 >= self.programs * ACCEPTED
            && self.short * 100 <= self.runs * SHORT
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            program,
            how,
            bits,
            countdown,
            listing,
        } = self;
        writeln!(
            f,
            "program {program} of seed {seed} and its twin differ, made smaller:"
        )?;
        write!(f, "{listing}")?;
        write!(f, "with bits {bits:#b}, ended at point {countdown}:\n{how}")
    }
}

impl Case {
    fn draw(choices: &mut Choices) -> Self {
        let ways = (0..WAYS).map(|_| choices.below(1 << draw::BITS)).collect();
        let (tree, ranks) = draw::draw(choices);
        Self { tree, ranks, ways }
    }

    /// Each program has a seed of its own, so that it can be had alone.
    fn choices(seed: u64, program: u64) -> Choices {
        Choices::of_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ program)
    }

    fn judge(&self, ground: &mut Ground) -> Result<Verdict> {
        let Tree {
            network,
            many_states,
            ..
        } = self.tree;
        let mut sides = Vec::new();
        for side in [Side::Throwing, Side::Twin] {
            match ground.load(&emit(&self.tree, side), network, many_states)? {
                Ok(loaded) => sides.push(loaded),
                Err(refused) => {
                    return Ok(Verdict::Refused {
                        side,
                        reason: refused.reason,
                        log: refused.log,
                    });
                }
            }
        }
        let (mut runs, mut short) = (0, 0);
        for &bits in &self.ways {
            for countdown in (1..=POINTS).chain([0]) {
                let input = Input { bits, countdown };
                let throwing = ground.run(&sides[0], input)?;
                let twin = ground.run(&sides[1], input)?;
                runs += 1;
                if throwing.state.short_of | twin.state.short_of != 0 {
                    short += 1;
                    continue;
                }
                if let Err(error) = judge::judge(&throwing, &twin, &self.ranks) {
                    let how = format!("{error:#}");
                    return Ok(Verdict::Differs { input, how });
                }
                if !throwing.state.thrown {
                    break;
                }
            }
        }
        Ok(Verdict::Same { runs, short })
    }
}

/// Runs these programs of the seed, and tells what happens meanwhile.
pub fn run(
    seed: u64,
    programs: Range<u64>,
    mut tell: impl FnMut(Line) -> Result<()>,
) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut ground = Ground::new()?;
    for program in programs {
        tell(Line::Begins(program))?;
        let mut choices = Case::choices(seed, program);
        let case = Case::draw(&mut choices);
        summary.programs += 1;
        let verdict = case
            .judge(&mut ground)
            .with_context(|| format!("program {program} of seed {seed}"))?;
        match verdict {
            Verdict::Same { runs, short } => {
                summary.accepted += 1;
                summary.runs += u64::from(runs);
                summary.short += u64::from(short);
            }
            Verdict::Refused { side, reason, .. } => {
                let reason = summary
                    .refused
                    .entry(format!("{side:?}: {reason}"))
                    .or_insert(Reason {
                        programs: 0,
                        first: program,
                    });
                reason.programs += 1;
            }
            Verdict::Differs { input, how } => {
                summary.accepted += 1;
                summary.differences += 1;
                let found = Found { case, input, how };
                // What is left of a difference is not to be seen as another one.
                ground = Ground::new()?;
                let record = choices.into_record();
                let Found { case, input, how } =
                    smallest(record, found, &mut ground, || tell(Line::Shrinks(program)))?;
                tell(Line::Difference(Difference {
                    seed,
                    program,
                    how,
                    bits: input.bits,
                    countdown: input.countdown,
                    listing: case.tree.to_string(),
                }))?;
            }
        }
    }
    Ok(summary)
}

/// A program that shows a difference, and how.
struct Found {
    case: Case,
    input: Input,
    how: String,
}

/// The smallest program found that shows a difference. Says at each that it is smaller.
fn smallest(
    record: Vec<u32>,
    found: Found,
    ground: &mut Ground,
    mut smaller: impl FnMut() -> Result<()>,
) -> Result<Found> {
    let mut best = found;
    let mut failed = Ok(());
    shrink::shrink(record, TRIES, |record| {
        let mut choices = Choices::of_record(record);
        let case = Case::draw(&mut choices);
        let verdict = case.judge(ground);
        match verdict {
            Ok(Verdict::Differs { input, how }) => {
                best = Found { case, input, how };
                let again = Ground::new().map(|new| *ground = new);
                failed = again.and_then(|()| smaller());
                failed.is_ok().then(|| choices.into_record())
            }
            Ok(_) => None,
            Err(error) => {
                failed = Err(error);
                None
            }
        }
    });
    failed.map(|()| best)
}

/// A program as text.
fn listing(seed: u64, program: u64) -> String {
    let case = Case::draw(&mut Case::choices(seed, program));
    case.tree.to_string()
}

/// What the verifier says of those that it refuses.
pub fn refusals(seed: u64, programs: Range<u64>) -> Result<()> {
    load_modules()?;
    let mut ground = Ground::new()?;
    for program in programs {
        let case = Case::draw(&mut Case::choices(seed, program));
        if let Verdict::Refused { side, log, .. } = case.judge(&mut ground)? {
            println!("program {program} of seed {seed}, {side:?}\n{log}");
        }
    }
    Ok(())
}

pub fn show(seed: u64, programs: Range<u64>) {
    for program in programs {
        println!("program {program} of seed {seed}");
        print!("{}", listing(seed, program));
    }
}

/// A line of output, for the host.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// This program is run next. It may end the machine.
    Begins(u64),
    /// It shows a difference, and so does a smaller one.
    Shrinks(u64),
    Difference(Difference),
    Summary(Summary),
}

fn say(line: &Line) -> Result<()> {
    let mut out = stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

fn load_modules() -> Result<()> {
    MODULES
        .iter()
        .try_for_each(|module| load_module(module, ""))
}

/// Runs programs in a machine of its own, and tells the host.
pub fn report(seed: u64, programs: Range<u64>) -> Result<ExitCode> {
    load_modules()?;
    let summary = run(seed, programs, |line| say(&line))?;
    say(&Line::Summary(summary))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_same_each_time() {
        for program in 0..200 {
            assert_eq!(listing(1, program), listing(1, program));
        }
        assert_ne!(listing(1, 0), listing(2, 0));
    }

    #[test]
    fn a_program_comes_back_from_its_record() {
        for program in 0..200 {
            let mut choices = Case::choices(1, program);
            let case = Case::draw(&mut choices);
            let again = Case::draw(&mut Choices::of_record(choices.into_record()));
            assert_eq!(again.tree.to_string(), case.tree.to_string());
            assert_eq!(again.ways, case.ways);
        }
    }

    #[test]
    fn too_little_is_noticed() {
        let summary = |programs, accepted, short, differences| Summary {
            programs,
            accepted,
            runs: 100,
            short,
            differences,
            ..Summary::default()
        };
        assert!(summary(10, 9, 1, 0).is_well());
        assert!(!summary(100, 89, 0, 0).is_well());
        assert!(!summary(10, 10, 2, 0).is_well());
        assert!(!summary(10, 10, 0, 1).is_well());
        assert!(!summary(0, 0, 0, 0).is_well());
    }
}
