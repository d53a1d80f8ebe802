// SPDX-License-Identifier: GPL-2.0
//! Keeps the machine busy while programs run away in it, and looks whether it goes on. Every stretch
//! of time is a test, and so is what is left behind.

use std::fs;
use std::io::stdout;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use libbpf_rs::{Link, Object as LoadedObject};
use rustix::process::{Pid, getpgid};

use crate::catalogue::{self, object};
use crate::cpus::{CPUS, stay_on};
use crate::expectation::Expectation;
use crate::ktap::{Ktap, Outcome};
use crate::ledger::Ledger;
use crate::loaded::program;
use crate::loader;
use crate::machine::load_module;
use crate::section::Section;
use crate::test_run;

/// So long is each stretch.
const STRETCH: Duration = Duration::from_secs(10);
const MODULES: [&str; 3] = ["bpf_unwind", "bpf_unwind_test", "bpf_deadline"];
/// In the object, but no program that runs away.
const OTHERS: [&str; 2] = ["watch", "settings"];

pub fn run(seconds: u64) -> Result<ExitCode> {
    for module in MODULES {
        load_module(module, "")?;
    }
    let ledger = Ledger::open()?;
    let soak = object("deadline", "soak")?;
    let names: Vec<_> = catalogue::function_tags(soak)?
        .into_iter()
        .map(|(function, _)| function)
        .filter(|name| name.ends_with("_locked") || name.ends_with("_called_back"))
        .filter(|name| !name.starts_with("stay_"))
        .collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.extend(OTHERS);
    let loaded = loader::load(soak, &all)??;
    let status = test_run::run(&loaded, "settings")?;
    ensure!(status == 0, "setting the deadlines: error {status}");

    let stretches = seconds.div_ceil(STRETCH.as_secs()).max(1);
    let mut ktap = Ktap::new(stdout(), stretches as usize + 1)?;
    let workers = Workers::start();
    let links = attach(&loaded, &all)?;
    for stretch in 1..=stretches {
        let before = (workers.rounds(), Seen::read(&loaded)?);
        thread::sleep(STRETCH);
        let outcome = outcome(goes_on(&before, &workers, &loaded));
        ktap.result(&format!("{} s", stretch * STRETCH.as_secs()), &outcome)?;
    }
    drop(links);
    workers.stop()?;
    let left = ledger.settle(&Expectation::default(), 0);
    ktap.result("nothing is left behind", &outcome(left))?;
    Ok(ktap.finish()?.exit_code())
}

fn outcome(result: Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Pass,
        Err(error) => Outcome::Fail(format!("{error:#}")),
    }
}

fn attach(loaded: &LoadedObject, names: &[&str]) -> Result<Vec<Link>> {
    names
        .iter()
        .filter(|&&name| name != "settings")
        .map(|name| {
            program(loaded, name)?
                .attach()
                .with_context(|| format!("attaching {name}"))
        })
        .collect()
}

/// Whether each worker got on in the stretch, and every run away was ended.
fn goes_on(before: &(Vec<u64>, Seen), workers: &Workers, loaded: &LoadedObject) -> Result<()> {
    for (worker, (before, now)) in before.0.iter().zip(workers.rounds()).enumerate() {
        ensure!(now > *before, "worker {worker} hangs");
    }
    let seen = Seen::read(loaded)?;
    ensure!(seen.ended > before.1.ended, "no program ran away");
    ensure!(seen.survived == 0, "{} runs were not ended", seen.survived);
    Ok(())
}

/// struct soak of progs/deadline/soak.bpf.c
struct Seen {
    ended: u64,
    survived: u64,
}

impl Seen {
    fn read(loaded: &LoadedObject) -> Result<Self> {
        let [ended, survived] = Section::of(loaded, ".data.soak")?.words()?;
        Ok(Self { ended, survived })
    }
}

/// Threads that do what programs are attached to, on every CPU.
struct Workers {
    stop: Arc<AtomicBool>,
    workers: Vec<(Arc<AtomicU64>, JoinHandle<Result<()>>)>,
}

impl Workers {
    fn start() -> Self {
        const WORK: [fn() -> Result<()>; 4] = [call, sleep, spawn, read];
        let stop = Arc::new(AtomicBool::new(false));
        let workers = CPUS
            .into_iter()
            .flat_map(|cpu| WORK.map(|work| (cpu, work)))
            .map(|(cpu, work)| {
                let rounds = Arc::new(AtomicU64::new(0));
                let (stop, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
                let thread = thread::spawn(move || -> Result<()> {
                    stay_on(cpu)?;
                    while !stop.load(Ordering::Relaxed) {
                        work()?;
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                });
                (rounds, thread)
            })
            .collect();
        Self { stop, workers }
    }

    fn rounds(&self) -> Vec<u64> {
        self.workers
            .iter()
            .map(|(rounds, _)| rounds.load(Ordering::Relaxed))
            .collect()
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for (_, thread) in self.workers {
            thread.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(())
    }
}

fn call() -> Result<()> {
    for _ in 0..100 {
        getpgid(None::<Pid>)?;
    }
    Ok(())
}

fn sleep() -> Result<()> {
    thread::sleep(Duration::from_millis(1));
    Ok(())
}

fn spawn() -> Result<()> {
    let status = Command::new("busybox").arg("true").status()?;
    ensure!(status.success(), "busybox true: {status}");
    Ok(())
}

fn read() -> Result<()> {
    fs::read("/proc/self/status")?;
    Ok(())
}
