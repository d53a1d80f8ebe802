// SPDX-License-Identifier: GPL-2.0
//! A differential fuzzer of what exceptions and deadlines release.
//!
//! It draws programs (`draw`, from `choice`) as trees (`tree`) of what is held while what runs, with
//! points at which a run may end, and makes each into two (`emit`, `assemble`): one that throws there, or
//! goes on there until its deadline ends it, and a twin that releases by hand and returns. Both run with
//! the same inputs (`ground`, `state`), end at each point in turn, and have to do and leave the same
//! (`judge`). Where they do not, the smallest program is looked for that still shows it (`shrink`).

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
use ground::{Ground, Loaded};
use judge::Outcome;
use state::Input;
use tree::{Rank, Tree};

/// So many of a hundred programs the verifier has to accept.
const ACCEPTED: u32 = 90;
/// Of a hundred runs, so many may say nothing because memory was short.
const SHORT: u64 = 1;

/// Unwinds, counts, and ends what takes too long.
pub const MODULES: &[&str] = &["bpf_unwind", "bpf_unwind_test", "bpf_deadline"];

/// Ways through a program.
const WAYS: u32 = 4;
/// Points that a way is ended at.
const POINTS: u32 = 24;
/// A run that was interrupted before its deadline is repeated until there were so many.
const WAITS: u32 = 4;
/// Programs that are tried to make one smaller that shows a difference.
const TRIES: usize = 1500;

/// A program and what it is run with.
struct Case {
    tree: Tree,
    ranks: Vec<Rank>,
    ways: Vec<u32>,
}

enum Verdict {
    Same(Runs),
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

/// Pairs of runs.
#[derive(Default)]
struct Runs {
    all: u32,
    /// Of these, those where an allocation failed, which says nothing.
    short: u32,
    /// Those that a deadline has ended.
    expired: u32,
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
    /// Those that a deadline has ended.
    pub expired: u64,
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
            expires,
            ..
        } = self.tree;
        let mut sides = Vec::new();
        for side in [Side::Throwing, Side::Twin] {
            match ground.load(&emit(&self.tree, side), network, many_states)? {
                Ok(Loaded {
                    no_deadline: Some(reason),
                    ..
                }) if expires && side == Side::Throwing => {
                    return Ok(Verdict::Refused {
                        side,
                        log: reason.clone(),
                        reason,
                    });
                }
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
        let mut runs = Runs::default();
        for &bits in &self.ways {
            for countdown in (1..=POINTS).chain([0]) {
                let input = Input { bits, countdown };
                let throwing = in_time(ground, &sides[0], input)?;
                let twin = ground.run(&sides[1], input)?;
                runs.all += 1;
                if throwing.state.is_short() || twin.state.is_short() {
                    runs.short += 1;
                    continue;
                }
                if let Err(error) = judge::judge(&throwing, &twin, &self.ranks) {
                    let how = format!("{error:#}");
                    return Ok(Verdict::Differs { input, how });
                }
                if !throwing.state.thrown {
                    break;
                }
                runs.expired += u32::from(emit::has_expired(&throwing.state));
            }
        }
        Ok(Verdict::Same(runs))
    }
}

/// Runs a program, again if it was kept from running for so long that what waits for the deadline has
/// not done so.
fn in_time(ground: &mut Ground, loaded: &Loaded, input: Input) -> Result<Outcome> {
    for _ in 1..WAITS {
        let outcome = ground.run(loaded, input)?;
        if !outcome.state.has_lapsed() {
            return Ok(outcome);
        }
    }
    ground.run(loaded, input)
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
            Verdict::Same(runs) => {
                summary.accepted += 1;
                summary.runs += u64::from(runs.all);
                summary.short += u64::from(runs.short);
                summary.expired += u64::from(runs.expired);
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

/// The smallest program found that shows a difference. Says of each that it is tried.
fn smallest(
    record: Vec<u32>,
    found: Found,
    ground: &mut Ground,
    mut tries: impl FnMut() -> Result<()>,
) -> Result<Found> {
    let mut best = found;
    let mut failed = Ok(());
    shrink::shrink(record, TRIES, |record| {
        let mut choices = Choices::of_record(record);
        let case = Case::draw(&mut choices);
        let verdict = tries().and_then(|()| case.judge(ground));
        match verdict {
            Ok(Verdict::Differs { input, how }) => {
                best = Found { case, input, how };
                failed = Ground::new().map(|new| *ground = new);
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
    /// It shows a difference, and another one is tried that is smaller.
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
    fn points_end_a_program_in_every_way() {
        let all: Vec<_> = (0..500).map(|program| listing(1, program)).collect();
        for way in [
            "may throw ",
            " in may_goto\n",
            " in bpf_iter_num\n",
            " in bpf_iter_unwind '",
            " in bpf_loop\n",
            " in bpf_loop, inlined\n",
        ] {
            assert!(all.iter().any(|text| text.contains(way)), "{way}");
        }
        let has = |expires, throws| {
            all.iter().any(|text| {
                text.contains("may expire") == expires && text.contains("may throw") == throws
            })
        };
        assert!(has(false, true) && has(true, true) && has(true, false));
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
