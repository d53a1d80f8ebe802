//! A run of test_progs on one kernel: suite after suite in one machine, in a new one whenever it ends, and
//! in one that counts instructions those that depend on time.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use crate::accelerator::Accelerator;
use crate::console;
use crate::difference::{Found, Outcome};
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::outcome::Ending;
use crate::qemu::{Event, Machine, Share};
use crate::schedule::Slots;
use crate::test_progs::{self, Status};
use crate::watch::{self, Orders, Record};

const MEMORY_MIB: u32 = 2048;
const CPUS: u32 = 2;
/// A suite tells its results all at once, when it ends. Machines of this size are slow to start, too.
const PATIENCE: u32 = 10;
/// So much earlier than the host gives the machine up, test_progs ends the suite itself.
const HEADWAY_SECONDS: u64 = 30;

/// A suite of test_progs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    pub name: String,
    /// It expects that something has happened after so much time, which a busy host may not give it: its
    /// machine has time pass with the instructions.
    pub timed: bool,
}

/// What is run, and on which kernel.
pub struct Trial<'a> {
    pub name: &'static str,
    pub kernel: &'a Kernel,
    /// test_progs and what it reads.
    pub tests: &'a Path,
    /// Where the test modules for this kernel lie.
    pub modules: &'a Path,
    /// Whether the kernel's own BPF modules are loaded: much of what the patch set does is done by them.
    pub loaded: bool,
    pub suites: &'a [Suite],
    /// Each machine makes a directory there.
    pub logs: &'a Path,
}

/// What came of it.
#[derive(Default)]
pub struct Results {
    pub outcome: Outcome,
    /// What there is to say of tests that did not pass.
    pub notes: BTreeMap<String, Vec<String>>,
}

impl Results {
    fn add(&mut self, name: &str, found: Found, notes: Vec<String>) {
        self.outcome.found.insert(name.to_owned(), found);
        if found != Found::Pass {
            self.notes.insert(name.to_owned(), notes);
        }
    }

    fn cut(&mut self, suite: &str, why: String) {
        self.add(suite, Found::Lost, vec![why]);
        self.outcome.cut.insert(suite.to_owned());
    }
}

impl Trial<'_> {
    pub fn images(&self) -> Result<Images> {
        let mut guest = Initramfs::base()?;
        guest.script("/bin/run-suites", include_str!("../guest/run-suites"));
        guest.libraries(&self.tests.join("test_progs"))?;
        if self.loaded {
            guest.modules(&self.kernel.modules("kernel/bpf/"))?;
        }
        Images::make(self.kernel, &guest, self.logs)
    }

    pub async fn run(&self, accelerator: &Accelerator, slots: &Slots) -> Result<Results> {
        let images = self.images()?;
        let mut results = Results::default();
        let mut machines = 0;
        for timed in [false, true] {
            let suites = self.suites.iter().filter(|suite| suite.timed == timed);
            let suites = Vec::from_iter(suites.map(|suite| suite.name.clone()));
            let mut left = &suites[..];
            while !left.is_empty() {
                machines += 1;
                let _slot = slots.take(MEMORY_MIB).await;
                let name = format!("conformance-{}-{machines}", self.name);
                let record = self.boot(accelerator, &images, left, timed, &name).await?;
                let ran = judge(left, &record, &mut results)
                    .with_context(|| format!("Linux {}", self.kernel.release))?;
                left = &left[ran..];
            }
        }
        Ok(results)
    }

    async fn boot(
        &self,
        accelerator: &Accelerator,
        images: &Images,
        suites: &[String],
        timed: bool,
        name: &str,
    ) -> Result<Record> {
        let accelerator = match timed {
            true => &Accelerator::tcg("instructions are counted"),
            false => accelerator,
        };
        let mut orders = Orders::new(accelerator.deadlines(self.kernel));
        orders.deadlines.boot *= PATIENCE;
        orders.deadlines.test *= PATIENCE;
        let seconds = orders.deadlines.test.as_secs() - HEADWAY_SECONDS;
        let share = |tag, directory: &Path| Share {
            tag,
            directory: directory.to_owned(),
            writable: false,
        };
        let machine = Machine {
            accelerator: accelerator.clone(),
            kernel: self.kernel.image.clone(),
            initrd: Some(images.initrd()),
            append: String::new(),
            memory_mib: MEMORY_MIB,
            cpus: if timed { 1 } else { CPUS },
            command: Some(format!("exec run-suites {seconds} {}", suites.join(" "))),
            shares: vec![share("tests", self.tests), share("modules", self.modules)],
            icount: timed,
            saved: None,
            logs: self.logs.join(name),
        };
        let mut began = Instant::now();
        watch::run_observed(&machine, &orders, &mut |event| {
            let Event::Channel(line) = event else { return };
            if line.starts_with(test_progs::BEGIN) {
                began = Instant::now();
            } else if let Some(suite) = line.strip_prefix(test_progs::END) {
                let suite = suite.split(' ').next().unwrap_or_default();
                let took = began.elapsed().as_secs_f32();
                eprintln!("    {}: {suite}, {took:.1} s", self.name);
            }
        })
        .await
    }
}

/// Adds what a machine that was to run `suites` tells, and returns how many of them are settled: those
/// that ran, the one that ended the machine included.
fn judge(suites: &[String], record: &Record, results: &mut Results) -> Result<usize> {
    let ran = test_progs::parse(record.channel.iter().map(String::as_str));
    let finished = matches!(record.ending, Ending::Finished { status: 0 });
    let asked = suites
        .iter()
        .zip(&ran)
        .all(|(name, suite)| *name == suite.name);
    if ran.is_empty() || !asked || (finished && ran.len() != suites.len()) {
        let logs = record.logs.display();
        bail!("test_progs does not run: {}; logs: {logs}", record.ending);
    }
    for suite in &ran {
        for result in &suite.results {
            let found = match result.status {
                Status::Pass => Found::Pass,
                Status::Fail => Found::Fail,
                Status::Skip => Found::Skip,
            };
            results.add(&result.name, found, result.log.clone());
        }
        // 0: nothing failed, 1: something did.
        if let Some(status) = suite.status.filter(|status| !matches!(status, 0 | 1)) {
            results.cut(
                &suite.name,
                format!("test_progs ended with status {status}"),
            );
        }
    }
    if let Some(last) = ran.last().filter(|_| !finished) {
        results.cut(&last.name, record.ending.to_string());
    }
    for (suite, lines) in console::segments(&record.console).tests {
        let splats = console::unexpected(lines, &[], false);
        if !splats.is_empty() {
            let texts = splats
                .iter()
                .map(|splat| console::without_prefix(&splat.text).to_owned());
            results.add(
                &format!("{suite} (kernel log)"),
                Found::Fail,
                texts.collect(),
            );
        }
    }
    Ok(ran.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::difference::Found::{Fail, Lost, Pass};

    const SUITES: [&str; 3] = ["a", "b", "c"];

    /// How many suites are settled, and what was found.
    fn judged(ending: Ending, channel: &str, console: &str) -> Result<(usize, Results)> {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        let record = Record {
            ending,
            channel: lines(channel),
            console: lines(console),
            took: Duration::ZERO,
            logs: "logs".into(),
        };
        let mut results = Results::default();
        let settled = judge(&SUITES.map(str::to_owned), &record, &mut results)?;
        Ok((settled, results))
    }

    fn found(results: &Results) -> Vec<(&str, Found)> {
        let found = results.outcome.found.iter();
        found.map(|(name, &found)| (name.as_str(), found)).collect()
    }

    const A: &str = "# begin a\n#1 a:OK\n# end a 0\n";
    const B: &str = "# begin b\n#2/1 b/x:OK\n#2/2 b/y:FAIL\n#2 b:FAIL\n# end b 1\n";
    const C: &str = "# begin c\n#3 c:OK\n# end c 0\n";
    const DONE: Ending = Ending::Finished { status: 0 };

    #[test]
    fn all_suites_run() {
        let (settled, results) = judged(DONE, &[A, B, C].concat(), "").unwrap();
        assert_eq!(settled, 3);
        assert_eq!(
            found(&results),
            [
                ("a", Pass),
                ("b", Fail),
                ("b/x", Pass),
                ("b/y", Fail),
                ("c", Pass)
            ]
        );
        assert!(results.outcome.cut.is_empty());
    }

    #[test]
    fn the_suite_that_ended_the_machine_is_cut_and_the_rest_waits() {
        let (settled, results) = judged(Ending::Reset, &format!("{A}# begin b\n"), "").unwrap();
        assert_eq!(settled, 2);
        assert_eq!(found(&results), [("a", Pass), ("b", Lost)]);
        assert!(results.notes["b"][0].contains("reset"));
        // Also when the machine ended a moment after the suite.
        let (settled, results) = judged(Ending::Reset, A, "").unwrap();
        assert_eq!(settled, 1);
        assert_eq!(found(&results), [("a", Lost)]);
    }

    #[test]
    fn a_suite_whose_process_dies_is_cut() {
        let a = "# begin a\n#1/1 a/x:OK\n# end a 139\n";
        let (settled, results) = judged(DONE, &[a, B, C].concat(), "").unwrap();
        assert_eq!(settled, 3);
        assert_eq!(results.outcome.found["a"], Lost);
        assert_eq!(results.outcome.found["a/x"], Pass);
        assert!(results.outcome.cut.contains("a"));
    }

    #[test]
    fn a_complaint_of_the_kernel_is_a_failure_of_its_own() {
        let console = "[1] test_progs: begin a\n[2] test_progs: end a\n\
                       [3] test_progs: begin b\n[4] BUG: x\n[5] test_progs: end b\n";
        let (_, results) = judged(DONE, &[A, B, C].concat(), console).unwrap();
        assert_eq!(results.outcome.found["b (kernel log)"], Fail);
        assert!(!results.outcome.found.contains_key("a (kernel log)"));
    }

    #[test]
    fn a_machine_that_runs_nothing_is_an_error() {
        assert!(judged(Ending::Reset, "# boot\n", "").is_err());
        assert!(judged(DONE, A, "").is_err());
        assert!(judged(DONE, C, "").is_err());
    }
}
