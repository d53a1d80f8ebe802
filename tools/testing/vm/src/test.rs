//! `vm test`: runs the guest tests in machines and reports them as KTAP.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use futures::future;
use futures::stream::FuturesUnordered;

use crate::accelerator::Accelerator;
use crate::console;
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::ktap::{self, Totals, Writer};
use crate::outcome::{self, Ending, Verdict};
use crate::plan::{self, End, Needs, Run, Test};
use crate::qemu::{self, Machine};
use crate::saved::{Saved, Store};
use crate::schedule::Slots;
use crate::watch::{self, Orders, Ready, Record};
use crate::{Common, TestProgram};

/// Where the tests lie in the guest.
const PROGRAM: &str = "backstop_selftests";
/// Modules beneath this directory of the kernel are loaded into the guest.
pub const MODULES: &str = "kernel/bpf/";
/// So much of the console goes into the report of a failure.
const TAIL: usize = 30;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Only tests whose names match one of these globs
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    filter: Vec<String>,
    /// List the tests and how each is to end, and run nothing
    #[arg(long)]
    list: bool,
    /// Machines at a time [default: as many as cores, if memory allows]
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    #[command(flatten)]
    program: TestProgram,
    /// The operator's command, which tests run in the guest
    #[arg(
        long,
        value_name = "FILE",
        default_value = "build/cargo/backstop/release/backstop"
    )]
    command: PathBuf,
}

/// A test with its verdict, and what a reader of a failure should know.
struct Judged {
    name: String,
    verdict: Verdict,
    notes: Vec<String>,
}

pub async fn main(options: Options) -> Result<u8> {
    let tests = plan::filter(plan::list(&options.program.path)?, &options.filter)?;
    if options.list {
        for test in &tests {
            println!(
                "{}: ends by {}; {}",
                test.name,
                test.ends(),
                test.description
            );
        }
        return Ok(0);
    }
    let common = &options.common;
    let kernel = Kernel::open(&common.kernel)?;
    let modules = kernel.modules(MODULES);
    let programs = [
        (PROGRAM, &*options.program.path),
        ("backstop", &*options.command),
    ];
    let images = images(&kernel, &modules, &programs, &common.log_dir)?;
    let accelerator = common.accelerator(&kernel, &images).await?;

    let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
    let facts = common.facts(&kernel, &accelerator).await?;
    let mut writer = Writer::new(io::stdout(), &facts, &names)?;

    let runs = plan::plan(&tests);
    let mut runner = Runner {
        common,
        logs: &common.log_dir,
        kernel: &kernel,
        images: &images,
        accelerator,
        slots: Slots::new(options.jobs)?,
        starts: HashMap::new(),
    };
    runner.starts = runner.prepare(&runs).await?;
    let mut running: FuturesUnordered<_> = runs.iter().map(|run| runner.run(run)).collect();
    while let Some(judged) = running.next().await {
        for Judged {
            name,
            verdict,
            notes,
        } in judged?
        {
            writer.record(&name, verdict, notes)?;
        }
    }
    drop(running);
    Ok(Totals::exit_code(writer.finish(&[])?))
}

/// Runs tests in a guest that has these modules, each machine from its boot on, and returns the names
/// of those that fail.
pub async fn failures(
    common: &Common,
    logs: &Path,
    kernel: &Kernel,
    modules: &[PathBuf],
    program: &Path,
    tests: &[Test],
) -> Result<Vec<String>> {
    let images = images(kernel, modules, &[(PROGRAM, program)], logs)?;
    let runner = Runner {
        common,
        logs,
        kernel,
        images: &images,
        accelerator: common.accelerator(kernel, &images).await?,
        slots: Slots::new(None)?,
        starts: HashMap::new(),
    };
    let mut failed = Vec::new();
    for run in plan::plan(tests) {
        let judged = runner.run(&run).await?.into_iter();
        failed.extend(
            judged
                .filter(|judged| judged.verdict != Verdict::Pass)
                .map(|judged| judged.name),
        );
    }
    Ok(failed)
}

/// What a guest boots from that has these modules, and these programs by their names in /bin.
fn images(
    kernel: &Kernel,
    modules: &[PathBuf],
    programs: &[(&str, &Path)],
    logs: &Path,
) -> Result<Images> {
    let mut guest = Initramfs::guest()?;
    for (name, program) in programs {
        guest.program(&format!("/bin/{name}"), program)?;
    }
    guest.modules(modules)?;
    Images::make(kernel, &guest, logs)
}

/// What all machines of one invocation share.
struct Runner<'a> {
    common: &'a Common,
    /// Beneath this, each machine has a directory for its logs.
    logs: &'a Path,
    kernel: &'a Kernel,
    images: &'a Images,
    accelerator: Accelerator,
    slots: Slots,
    /// Where tests with these needs begin, if not with a boot.
    starts: HashMap<Needs<'a>, Start>,
}

enum Start {
    /// With a machine that is ready for them.
    Saved(Saved),
    /// They do not: a machine did not get ready, and this is how.
    Failed(Rc<Record>),
}

impl<'a> Runner<'a> {
    /// Boots one machine for the needs that several runs share, and saves it when it is ready.
    async fn prepare(&self, runs: &'a [Run]) -> Result<HashMap<Needs<'a>, Start>> {
        let dir = self.logs.join("saved");
        let store = &Store::open(&dir, &self.images.files()).await?;
        let mut shared: HashMap<_, usize> = HashMap::new();
        for run in runs {
            *shared.entry(run.first().needs()).or_default() += 1;
        }
        let starts = shared.into_iter().map(async |(needs, runs)| {
            let start = self.start(needs, runs > 1, store).await?;
            Ok::<_, anyhow::Error>(start.map(|start| (needs, start)))
        });
        let starts = future::try_join_all(starts).await?;
        Ok(starts.into_iter().flatten().collect())
    }

    /// A machine that was saved before, or is saved now if that is worth a boot.
    async fn start(&self, needs: Needs<'_>, worth: bool, store: &Store) -> Result<Option<Start>> {
        let (machine, mut orders) = self.machine(needs, &format!("ready{needs}"))?;
        if let Some(saved) = store.get(&machine) {
            return Ok(Some(Start::Saved(saved)));
        }
        if !worth {
            return Ok(None);
        }
        let _slot = self.slots.take(self.kernel.memory_mib()).await;
        let saving = store.begin(&machine)?;
        orders.ready = Some(Ready::Save(saving.memory()));
        let record = watch::run(&machine, &orders).await?;
        Ok(match &record.ending {
            Ending::Saved => Some(Start::Saved(saving.finish(&record.logs)?)),
            Ending::VmmError(what) => {
                eprintln!("each machine boots, for none can be saved: {what}");
                None
            }
            _ => Some(Start::Failed(Rc::new(record))),
        })
    }

    async fn run(&self, run: &Run) -> Result<Vec<Judged>> {
        let _slot = self.slots.take(self.kernel.memory_mib()).await;
        match run.alone() {
            Some(test) => Ok(vec![self.run_alone(run, test).await?]),
            None => self.run_shared(run).await,
        }
    }

    /// A machine for tests with these needs, and how to watch it.
    fn machine(&self, needs: Needs<'_>, name: &str) -> Result<(Machine, Orders)> {
        let logs = self.logs.join(name);
        let mut machine = Machine {
            accelerator: self.accelerator.clone(),
            kernel: self.kernel.image.clone(),
            initrd: Some(self.images.initrd()),
            append: format!("{} {}", self.kernel.append(), needs.append),
            memory_mib: self.kernel.memory_mib(),
            cpus: 2,
            command: Some(command(needs)),
            shares: Vec::new(),
            icount: false,
            saved: None,
            logs: logs.clone(),
        };
        let mut orders = Orders::new(self.accelerator.deadlines(self.kernel));
        if needs.crash_kernel {
            let dump = self.dump(name);
            machine.shares = self.images.crash_shares(&dump)?;
            machine.append = format!("{} {}", self.kernel.crash_append(), machine.append);
            orders.dump = Some(dump);
        }
        Ok((machine, orders))
    }

    fn dump(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.dump"))
    }

    fn discard_dump(&self, name: &str) -> Result<()> {
        let dump = self.dump(name);
        fs::remove_dir_all(&dump).with_context(|| format!("cannot remove {}", dump.display()))
    }

    /// What becomes of a machine whose test program gets these arguments.
    async fn watch(&self, run: &Run, arguments: String, name: &str) -> Result<Rc<Record>> {
        let test = run.first();
        let (mut machine, mut orders) = self.machine(test.needs(), name)?;
        match self.starts.get(&test.needs()) {
            Some(Start::Failed(record)) => return Ok(Rc::clone(record)),
            Some(Start::Saved(saved)) => machine.saved = Some(saved.clone()),
            None => (),
        }
        orders.nmi = test.nmi;
        orders.halt = test.may_end_by(End::Halt);
        orders.ready = Some(Ready::Tell(arguments));
        let record = watch::run(&machine, &orders).await?;
        Ok(Rc::new(record))
    }

    async fn run_alone(&self, run: &Run, test: &Test) -> Result<Judged> {
        let name = run.name();
        let record = self
            .watch(run, format!("--arm {}", test.name), &name)
            .await?;
        let verdict = outcome::judge_alone(test, &record, &self.kernel.release);
        self.tell(&test.name, &verdict, &record);
        if test.crash_kernel && verdict == Verdict::Pass {
            self.discard_dump(&name)?;
        }
        let notes = notes(&record, &record.console, true);
        Ok(Judged {
            name: test.name.clone(),
            verdict,
            notes,
        })
    }

    /// Tests that share a machine. When it ends under one of them, that one has failed, and those
    /// that did not get their turn run in another.
    async fn run_shared(&self, run: &Run) -> Result<Vec<Judged>> {
        let mut judged = Vec::new();
        let mut left = run.tests.clone();
        let mut machines = 0;
        while !left.is_empty() {
            machines += 1;
            let name = match machines {
                1 => run.name(),
                _ => format!("{}-{machines}", run.name()),
            };
            let names: Vec<_> = left.iter().map(|test| test.name.as_str()).collect();
            let record = self.watch(run, names.join(" "), &name).await?;
            let verdicts = judge_shared(&left, &record);
            left.retain(|test| verdicts.iter().all(|judged| judged.name != test.name));
            for judged in &verdicts {
                self.tell(&judged.name, &judged.verdict, &record);
            }
            judged.extend(verdicts);
        }
        Ok(judged)
    }

    /// A line for who watches.
    fn tell(&self, name: &str, verdict: &Verdict, record: &Record) {
        if self.common.verbose {
            let verdict = match verdict {
                Verdict::Pass => "pass",
                Verdict::Skip(_) => "skip",
                Verdict::Fail(_) => "FAIL",
            };
            let took = record.took.as_secs_f32();
            eprintln!(
                "{name}: {verdict}, {}, machine ran {took:.1} s",
                record.ending
            );
        }
    }
}

/// The script that /init runs. Descriptor 3 is the channel, from which the test program's arguments come.
fn command(needs: Needs<'_>) -> String {
    let load = match needs.crash_kernel {
        true => "load-crash-kernel || { echo 'Bail out! no crash kernel'; exit 2; }\n",
        false => "",
    };
    format!("{load}exec {PROGRAM} --wait <&3 3>&-\n")
}

/// Judges what can be judged of `tests`: those that have run, and the one that ended the machine.
fn judge_shared(tests: &[Test], record: &Record) -> Vec<Judged> {
    let stream = ktap::parse(record.channel.iter().map(String::as_str));
    let segments = console::segments(&record.console);
    let finished = matches!(record.ending, Ending::Finished { .. });
    let has_result = |test: &Test| stream.results.iter().any(|result| result.name == test.name);
    let guilty = tests
        .iter()
        .find(|test| Some(&test.name) == segments.open.as_ref() && !has_result(test))
        .or_else(|| tests.iter().find(|test| !has_result(test)))
        .map(|test| test.name.as_str());

    let mut judged = Vec::new();
    let mut whole_told = false;
    for test in tests {
        // Beside what was said while it ran, what was found out later.
        let said: Vec<_> = segments
            .tests
            .iter()
            .filter(|(name, _)| *name == test.name)
            .flat_map(|(_, lines)| lines.iter().cloned())
            .collect();
        let console = said.as_slice();
        let result = stream
            .results
            .iter()
            .find(|result| result.name == test.name);
        let verdict = match (result, &stream.bail) {
            (Some(result), _) => outcome::judge_returned(test, result, console),
            (None, Some(reason)) => Verdict::Fail(vec![format!("the guest bailed out: {reason}")]),
            (None, None) if finished => {
                Verdict::Fail(vec![format!("no result; {}", record.ending)])
            }
            (None, None) if guilty == Some(&test.name) => {
                outcome::judge_interrupted(record, console)
            }
            (None, None) => continue,
        };
        // The whole console tells about those that never began; once is enough.
        let failed = matches!(verdict, Verdict::Fail(_));
        let whole = failed && console.is_empty() && !std::mem::replace(&mut whole_told, true);
        let console = if whole { &record.console } else { console };
        let notes = notes(record, console, !console.is_empty() && result.is_none());
        judged.push(Judged {
            name: test.name.clone(),
            verdict,
            notes,
        });
    }
    // What went wrong and is no single test's doing falls to the first: something must fail.
    let faults = outcome::run_faults(record, &segments.outside, &stream);
    if let (false, Some(first)) = (faults.is_empty(), judged.first_mut()) {
        let mut reasons = match std::mem::replace(&mut first.verdict, Verdict::Pass) {
            Verdict::Fail(reasons) => reasons,
            _ => Vec::new(),
        };
        reasons.extend(faults);
        first.verdict = Verdict::Fail(reasons);
    }
    judged
}

/// How the machine ended, the last lines of the console, where the rest is; if `channel`, also what
/// the test program said last.
fn notes(record: &Record, console: &[String], channel: bool) -> Vec<String> {
    let tail = |lines: &[String], mark: char| -> Vec<String> {
        let lines = &lines[lines.len().saturating_sub(TAIL)..];
        lines.iter().map(|line| format!("{mark} {line}")).collect()
    };
    let took = record.took.as_secs_f32();
    let mut notes = vec![format!("machine: {} after {took:.1} s", record.ending)];
    if channel {
        notes.extend(tail(&record.channel, '>'));
    }
    notes.extend(tail(console, '|'));
    notes.push(format!("logs: {}", record.logs.display()));
    notes
}

impl Common {
    /// The lines of a result's header.
    pub async fn facts(&self, kernel: &Kernel, accelerator: &Accelerator) -> Result<Vec<String>> {
        let mut facts = kernel.facts();
        facts.push(format!("qemu: {}", qemu::version().await?));
        facts.push(format!("accelerator: {}", accelerator.describe()));
        Ok(facts)
    }

    /// The same by their names.
    pub async fn facts_by_name(
        &self,
        kernel: &Kernel,
        accelerator: &Accelerator,
    ) -> Result<BTreeMap<String, String>> {
        let facts = self.facts(kernel, accelerator).await?;
        let pairs = facts.iter().filter_map(|fact| fact.split_once(": "));
        Ok(pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    pub async fn accelerator(&self, kernel: &Kernel, images: &Images) -> Result<Accelerator> {
        Accelerator::choose(self.accel, kernel, &images.crash_initrd(), &self.log_dir).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tests(names: &[&str]) -> Vec<Test> {
        let test = |name: &&str| serde_json::json!({ "name": name, "end": "return" });
        let tests = names
            .iter()
            .map(|name| serde_json::from_value(test(name)).unwrap());
        tests.collect()
    }

    fn record(ending: Ending, channel: &str, console: &str) -> Record {
        Record {
            ending,
            channel: channel.lines().map(str::to_owned).collect(),
            console: console.lines().map(str::to_owned).collect(),
            took: Duration::ZERO,
            logs: "logs".into(),
        }
    }

    fn failed(judged: &[Judged]) -> Vec<(&str, bool)> {
        let is_fail = |judged: &Judged| matches!(judged.verdict, Verdict::Fail(_));
        judged
            .iter()
            .map(|judged| (judged.name.as_str(), is_fail(judged)))
            .collect()
    }

    const OK: &str = "# boot\nKTAP version 1\n1..2\nok 1 s/a\nok 2 s/b\n# exit 0\n";
    const DONE: Ending = Ending::Finished { status: 0 };

    #[test]
    fn all_pass() {
        let judged = judge_shared(&tests(&["s/a", "s/b"]), &record(DONE, OK, ""));
        assert_eq!(failed(&judged), [("s/a", false), ("s/b", false)]);
    }

    #[test]
    fn the_test_that_ended_the_machine_fails_and_the_rest_waits() {
        let record = record(
            Ending::Reset,
            "# boot\nKTAP version 1\n1..3\nok 1 s/a\n",
            "backstop_selftests: begin s/a\nbackstop_selftests: end s/a\n\
             backstop_selftests: begin s/c\n",
        );
        let judged = judge_shared(&tests(&["s/a", "s/b", "s/c"]), &record);
        assert_eq!(failed(&judged), [("s/a", false), ("s/c", true)]);
    }

    #[test]
    fn a_machine_that_never_began_convicts_a_test() {
        let judged = judge_shared(&tests(&["s/a", "s/b"]), &record(Ending::Reset, "", ""));
        assert_eq!(failed(&judged), [("s/a", true)]);
    }

    #[test]
    fn a_test_without_a_result_fails() {
        let channel = "# boot\n1..1\nok 1 s/a\n# exit 0\n";
        let judged = judge_shared(&tests(&["s/a", "s/b"]), &record(DONE, channel, ""));
        assert_eq!(failed(&judged), [("s/a", false), ("s/b", true)]);
    }

    #[test]
    fn a_warning_fails_its_test_and_one_outside_the_first() {
        let inside = "backstop_selftests: begin s/b\nBUG: x\nbackstop_selftests: end s/b\n";
        let judged = judge_shared(&tests(&["s/a", "s/b"]), &record(DONE, OK, inside));
        assert_eq!(failed(&judged), [("s/a", false), ("s/b", true)]);
        let judged = judge_shared(&tests(&["s/a", "s/b"]), &record(DONE, OK, "BUG: x\n"));
        assert_eq!(failed(&judged), [("s/a", true), ("s/b", false)]);
    }

    #[test]
    fn what_is_found_out_later_fails_the_test_that_did_it() {
        let later = "backstop_selftests: begin s/a\nbackstop_selftests: end s/a\n\
                     backstop_selftests: begin s/b\nbackstop_selftests: end s/b\n\
                     backstop_selftests: begin s/a\nBUG: x\nbackstop_selftests: end s/a\n";
        let judged = judge_shared(&tests(&["s/a", "s/b"]), &record(DONE, OK, later));
        assert_eq!(failed(&judged), [("s/a", true), ("s/b", false)]);
    }

    #[test]
    fn a_status_that_contradicts_the_results_is_a_failure() {
        let ending = Ending::Finished { status: 139 };
        let judged = judge_shared(&tests(&["s/a", "s/b"]), &record(ending, OK, ""));
        assert_eq!(failed(&judged), [("s/a", true), ("s/b", false)]);
    }
}
