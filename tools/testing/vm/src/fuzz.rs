//! `vm fuzz`: the differential fuzzer of what exceptions and deadlines release, some hundred programs a
//! machine.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;

use crate::accelerator::Accelerator;
use crate::console;
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::outcome::Ending;
use crate::qemu::Machine;
use crate::schedule::Slots;
use crate::watch::{self, Orders, Record};
use crate::{Common, TestProgram};

const PROGRAM: &str = "backstop_selftests";
/// Programs a machine, so that what one leaves behind ends soon.
const PROGRAMS: u64 = 250;
/// So many of a hundred the verifier has to accept.
const ACCEPTED: u64 = 90;
/// With BPF_F_TEST_STATE_FREQ the verifier keeps a state of each instruction that it processes: 1 KiB
/// for each of up to a million.
const MEMORY_MIB: u32 = 2048;
/// Of a hundred runs, so many may say nothing because memory was short.
const SHORT: u64 = 1;
/// Reasons of refusal that are shown.
const REASONS: usize = 12;
/// The last lines of a console.
const TAIL: usize = 30;

/// Beginnings of lines by which the guest shows that it gets on.
pub const PROGRESS: [&str; 2] = ["{\"begins\"", "{\"shrinks\""];

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// What the programs are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The first program of the seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// How many programs
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    count: u64,
    /// Machines at a time [default: as many as cores, if memory allows]
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    #[command(flatten)]
    program: TestProgram,
}

/// A line of what the guest's program prints.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Begins(u64),
    Shrinks(#[expect(dead_code)] u64),
    Difference(Difference),
    Summary(Summary),
}

#[derive(Debug, Deserialize)]
struct Difference {
    program: u64,
    how: String,
    bits: u32,
    countdown: u32,
    listing: String,
}

#[derive(Debug, Default, Deserialize)]
struct Summary {
    programs: u64,
    accepted: u64,
    runs: u64,
    short: u64,
    /// Pairs that a deadline has ended.
    expired: u64,
    refused: BTreeMap<String, Reason>,
    differences: u64,
}

/// Why programs were refused: how many, and which first.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
struct Reason {
    programs: u64,
    first: u64,
}

/// Programs that one machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    first: u64,
    count: u64,
}

/// What a machine has told of its batch.
#[derive(Debug, Default)]
struct Told {
    summary: Summary,
    differences: Vec<Difference>,
    /// What went wrong, and at which program.
    fault: Option<(u64, String)>,
    /// What it has not come to.
    rest: Option<Batch>,
}

pub async fn main(options: Options) -> Result<u8> {
    let common = &options.common;
    let kernel = Kernel::open(&common.kernel)?;
    let mut guest = Initramfs::guest()?;
    guest.program(&format!("/bin/{PROGRAM}"), &options.program.path)?;
    guest.modules(&kernel.modules("kernel/bpf/"))?;
    let images = Images::make(&kernel, &guest, &common.log_dir)?;
    let accelerator = common.accelerator(&kernel, &images).await?;
    for fact in common.facts(&kernel, &accelerator).await? {
        println!("# {fact}");
    }

    let slots = Slots::new(options.jobs)?;
    let mut waiting = batches(options.first, options.count);
    let mut running = FuturesUnordered::new();
    let mut total = Summary::default();
    let mut faults = 0;
    loop {
        while let Some(batch) = waiting.pop_front() {
            running.push(run(&options, &kernel, &images, &accelerator, &slots, batch));
        }
        let Some(told) = running.next().await else {
            break;
        };
        let told = told?;
        waiting.extend(told.rest);
        for difference in &told.differences {
            show(&options, difference);
        }
        if let Some((program, fault)) = &told.fault {
            faults += 1;
            println!("not ok program {program}: {fault}");
            print!("{}", listing(&options, *program)?);
            reproduce(&options, *program);
        }
        total.add(told.summary);
        println!("# of {} programs: {total}, {faults} faults", options.count);
    }
    Ok(u8::from(!total.judge(faults)))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            programs,
            accepted,
            runs,
            short,
            expired,
            differences,
            ..
        } = self;
        write!(
            f,
            "{programs} programs, {accepted} accepted, {runs} pairs of runs, {expired} of them \
             ended by a deadline, {short} short of memory, {differences} differences"
        )
    }
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.programs += other.programs;
        self.accepted += other.accepted;
        self.runs += other.runs;
        self.short += other.short;
        self.expired += other.expired;
        self.differences += other.differences;
        for (why, reason) in other.refused {
            let sum = self.refused.entry(why).or_insert(Reason {
                programs: 0,
                first: reason.first,
            });
            sum.programs += reason.programs;
            sum.first = sum.first.min(reason.first);
        }
    }

    /// Why the verifier refused programs, the most frequent reason first.
    fn reasons(&self) -> Vec<(&str, Reason)> {
        let refused = self.refused.iter();
        let mut reasons: Vec<_> = refused
            .map(|(why, &reason)| (why.as_str(), reason))
            .collect();
        reasons.sort_by_key(|(_, reason)| (u64::MAX - reason.programs, reason.first));
        reasons
    }

    /// Shows what came of all, and says whether all is well.
    fn judge(&self, faults: u64) -> bool {
        for (why, Reason { programs, first }) in self.reasons().into_iter().take(REASONS) {
            println!("# refused {programs}, first program {first}: {why}");
        }
        let enough = self.accepted * 100 >= self.programs * ACCEPTED;
        if !enough {
            println!("not ok fewer than {ACCEPTED} of 100 programs were accepted");
        }
        let told = self.short * 100 <= self.runs * SHORT;
        if !told {
            println!(
                "not ok memory was short in {} of {} runs",
                self.short, self.runs
            );
        }
        let well = enough && told && faults == 0 && self.differences == 0 && self.accepted > 0;
        let verdict = if well { "ok" } else { "not ok" };
        println!("{verdict} {self}, {faults} faults");
        well
    }
}

fn batches(first: u64, count: u64) -> VecDeque<Batch> {
    (first..first + count)
        .step_by(PROGRAMS as usize)
        .map(|begin| Batch {
            first: begin,
            count: PROGRAMS.min(first + count - begin),
        })
        .collect()
}

async fn run(
    options: &Options,
    kernel: &Kernel,
    images: &Images,
    accelerator: &Accelerator,
    slots: &Slots,
    batch: Batch,
) -> Result<Told> {
    let common = &options.common;
    let memory_mib = kernel.memory_mib().max(MEMORY_MIB);
    let _slot = slots.take(memory_mib).await;
    let Batch { first, count } = batch;
    let seed = options.seed;
    let machine = Machine {
        accelerator: accelerator.clone(),
        kernel: kernel.image.clone(),
        initrd: Some(images.initrd()),
        append: kernel.append().to_owned(),
        memory_mib,
        cpus: 1,
        command: Some(format!(
            "exec {PROGRAM} --fuzz {seed} --first {first} --count {count} 2>&1"
        )),
        shares: Vec::new(),
        icount: false,
        saved: None,
        logs: common.log_dir.join(format!("fuzz-{seed}-{first}")),
    };
    let orders = Orders::new(accelerator.deadlines(kernel));
    let record = watch::run(&machine, &orders).await?;
    told(batch, &record)
}

/// What became of a batch.
fn told(batch: Batch, record: &Record) -> Result<Told> {
    let mut told = Told::default();
    let mut began = None;
    let mut summary = None;
    for line in record.channel.iter().filter(|line| line.starts_with('{')) {
        match serde_json::from_str(line).with_context(|| line.clone())? {
            Line::Begins(program) => began = Some(program),
            Line::Shrinks(_) => (),
            Line::Difference(difference) => told.differences.push(difference),
            Line::Summary(all) => summary = Some(all),
        }
    }
    let splats = console::unexpected(&record.console, &[], false);
    let ended = matches!(record.ending, Ending::Finished { status: 0 });
    let last = began.unwrap_or(batch.first);
    if let Some(splat) = splats.first() {
        told.fault = Some((last, format!("on the console: {}", splat.text)));
    }
    if !ended {
        let said = record.channel.last().map_or("", String::as_str);
        let tail = &record.console[record.console.len().saturating_sub(TAIL)..];
        told.fault = Some((
            last,
            format!("{}\n{said}\n{}", record.ending, tail.join("\n")),
        ));
    }
    if let Some((_, fault)) = &mut told.fault {
        let logs = record.logs.display();
        *fault = format!("{fault}\nlogs: {logs}");
    }
    let end = batch.first + batch.count;
    match (summary, began) {
        (Some(summary), _) => told.summary = summary,
        // What was accepted is not known. A fault fails anyway.
        (None, Some(last)) => {
            told.summary.programs = last - batch.first + 1;
            told.summary.differences = told.differences.len() as u64;
            told.rest = (last + 1 < end).then(|| Batch {
                first: last + 1,
                count: end - last - 1,
            });
        }
        (None, None) => (),
    }
    Ok(told)
}

fn show(options: &Options, difference: &Difference) {
    let Difference {
        program,
        how,
        bits,
        countdown,
        listing,
    } = difference;
    println!("not ok program {program} and its twin differ, made smaller:");
    print!("{listing}");
    println!("with bits {bits:#b}, ended at point {countdown}:\n{how}");
    reproduce(options, *program);
}

fn reproduce(options: &Options, program: u64) {
    println!("again: make fuzz SEED={} FIRST={program} N=1", options.seed);
}

/// A program as text, by the guest's program, which needs no guest for that.
fn listing(options: &Options, program: u64) -> Result<String> {
    let shown = Command::new(&options.program.path)
        .args(["--show", "--fuzz", &options.seed.to_string()])
        .args(["--first", &program.to_string()])
        .output()
        .with_context(|| format!("running {}", options.program.path.display()))?;
    Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BATCH: Batch = Batch {
        first: 10,
        count: 5,
    };
    const SUMMARY: &str = r#"{"summary":{"programs":5,"accepted":4,"runs":40,"short":0,"expired":9,"refused":{"bad":{"programs":1,"first":12}},"differences":0}}"#;

    fn record(ending: Ending, channel: &[&str], console: &str) -> Record {
        Record {
            ending,
            channel: channel.iter().map(|&line| line.to_owned()).collect(),
            console: console.lines().map(str::to_owned).collect(),
            took: Duration::ZERO,
            logs: "logs".into(),
        }
    }

    const DONE: Ending = Ending::Finished { status: 0 };

    #[test]
    fn programs_are_spread_over_machines() {
        assert_eq!(
            batches(3, PROGRAMS + 1),
            [
                Batch {
                    first: 3,
                    count: PROGRAMS
                },
                Batch {
                    first: 3 + PROGRAMS,
                    count: 1
                }
            ]
        );
        assert!(batches(0, 0).is_empty());
    }

    #[test]
    fn a_machine_tells_what_became_of_its_batch() {
        let told = told(BATCH, &record(DONE, &[r#"{"begins":10}"#, SUMMARY], "")).unwrap();
        assert!(told.fault.is_none() && told.rest.is_none());
        assert_eq!(told.summary.accepted, 4);
        let mut total = Summary::default();
        total.add(told.summary);
        total.add(serde_json::from_str(r#"{"programs":2,"accepted":0,"runs":0,"short":0,"expired":0,"refused":{"bad":{"programs":1,"first":2},"worse":{"programs":3,"first":7}},"differences":0}"#).unwrap());
        let reasons = total.reasons();
        assert_eq!(reasons[0].0, "worse");
        let bad = Reason {
            programs: 2,
            first: 2,
        };
        assert_eq!(reasons[1], ("bad", bad));
    }

    #[test]
    fn a_machine_that_dies_leaves_the_rest() {
        let said = [r#"{"begins":10}"#, r#"{"begins":12}"#];
        let told = told(BATCH, &record(Ending::Reset, &said, "")).unwrap();
        assert_eq!(told.fault.unwrap().0, 12);
        let rest = Batch {
            first: 13,
            count: 2,
        };
        assert_eq!(told.rest, Some(rest));
        assert_eq!(told.summary.programs, 3);
    }

    #[test]
    fn a_complaint_of_the_kernel_is_a_fault() {
        let said = [r#"{"begins":14}"#, SUMMARY];
        let told = told(BATCH, &record(DONE, &said, "[1] BUG: x")).unwrap();
        assert_eq!(told.fault.unwrap().0, 14);
        assert!(told.rest.is_none());
    }

    #[test]
    fn a_machine_that_runs_nothing_is_a_fault() {
        let told = told(BATCH, &record(Ending::Reset, &[], "")).unwrap();
        assert!(told.fault.is_some() && told.rest.is_none());
        assert_eq!(told.summary.programs, 0);
    }

    #[test]
    fn what_fails() {
        let good = || Summary {
            programs: 10,
            accepted: 9,
            runs: 100,
            short: 1,
            ..Summary::default()
        };
        assert!(good().judge(0));
        assert!(!good().judge(1));
        let changes: [fn(&mut Summary); 4] = [
            |summary| summary.accepted = 8,
            |summary| summary.short = 2,
            |summary| summary.differences = 1,
            |summary| *summary = Summary::default(),
        ];
        for change in changes {
            let mut bad = good();
            change(&mut bad);
            assert!(!bad.judge(0));
        }
    }
}
