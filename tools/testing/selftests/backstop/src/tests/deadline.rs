// SPDX-License-Identifier: GPL-2.0
//! Runs that take too long, where that takes more than to run one program: a machine that would
//! freeze, reports, programs that are stopped.

use std::os::fd::{AsFd, AsRawFd};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libbpf_rs::{Link, Object as LoadedObject};
use rustix::process::getpgid;

use super::code;
use crate::arm::Armed;
use crate::catalogue::{Test, object};
use crate::cpus::{CPUS, on_both_cpus, stay_on};
use crate::expectation::Event;
use crate::ledger::Ledger;
use crate::loaded::{program, program_id, stderr};
use crate::loader;
use crate::machine::{ensure_busy, unload_unused};
use crate::perform::DEADLINE;
use crate::section::Section;
use crate::test_run::{PACKET, ensure_done, run, run_fd, run_fd_with};
use crate::trigger::Trigger;
use crate::wait::wait_until;
use crate::watch::{LATE, Seen, Watch};

const MODULE: &str = "bpf_deadline";
/// Runs that are ended in succession before a program is stopped.
const ROW: u64 = 10;
/// What a map of progs/deadline/above.bpf.c consists of, so that it is always loaded.
const TAIL: &str = "tail";
/// What a classifier that is ended, or not run, returns: TC_ACT_UNSPEC.
const UNSPEC: i32 = -1;

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "freeze",
            "a program that would freeze the machine is ended on all CPUs, and stopped at last",
            freeze,
        ),
        test(
            "report",
            "the stderr stream of a program says that a run was ended, and why",
            report,
        ),
        test(
            "stops",
            "a program whose runs are ended again and again is not run any more",
            stops,
        ),
        test(
            "in_time",
            "a run that takes less than its deadline is left alone",
            in_time,
        ),
        test(
            "classes",
            "the deadline depends on what a run keeps others from",
            classes,
        ),
        test(
            "hardened",
            "programs whose constants the JIT blinds are ended as well",
            hardened,
        ),
        test(
            "freplace",
            "a program that replaces a function is ended, and the function's caller goes on",
            freplace,
        ),
        test(
            "freplace_arguments",
            "a program that replaces a function gets all arguments of that",
            freplace_arguments,
        ),
        test(
            "freplace_main",
            "a program that replaces a whole one has the hook go on as that would",
            freplace_main,
        ),
        test(
            "below",
            "a program on a function's entry is ended, and the one that calls the function goes on",
            below,
        ),
        test(
            "above",
            "a run that is busy with those of another program is ended as soon as with its own work",
            above,
        ),
        test(
            "above_load",
            "the same where the other program is left by a load that fails",
            above_load,
        ),
        test(
            "above_kicked",
            "a run that is busy with that of another program is ended at once when it is stopped",
            above_kicked,
        ),
        test(
            "chain",
            "programs that tail call one another have one deadline together, and each chain its own",
            chain,
        ),
        test(
            "chain_last",
            "the program with which long chains of tail calls end is not stopped for those before",
            chain_last,
        ),
        test(
            "both_cpus",
            "runs of one program are ended on both CPUs at once",
            both_cpus,
        ),
        test(
            "module_busy",
            "the module cannot go while a program has a deadline, and can afterwards",
            module_busy,
        ),
    ]
}

fn test(name: &str, description: &str, run: fn(&Armed) -> Result<()>) -> Test {
    const MODULES: &[&str] = &["bpf_unwind", "bpf_unwind_test", MODULE];
    code("deadline", name, MODULES, description, run)
}

fn load(programs: &[&str]) -> Result<LoadedObject> {
    load_from("freeze", programs)
}

fn load_from(name: &str, programs: &[&str]) -> Result<LoadedObject> {
    Ok(loader::load(object("deadline", name)?, programs)??)
}

/// Two threads, one on each CPU, that give way to others as long as the machine lets them.
fn freeze(_: &Armed) -> Result<()> {
    let watch = Watch::open()?;
    let loaded = load(&["freeze"])?;
    let frozen = program(&loaded, "freeze")?.attach()?;
    let until = Instant::now() + DEADLINE;
    on_both_cpus(|cpu| {
        for _ in 0..2 * ROW {
            sleep(Duration::from_millis(1));
            ensure!(
                Instant::now() < until,
                "CPU {cpu} hardly runs anything else"
            );
        }
        Ok(())
    })?;
    drop(frozen);

    let seen = watch.seen()?;
    let id = program_id(&loaded, "freeze")?;
    ensure!(seen.prog_id == id, "program {} was ended", seen.prog_id);
    ensure!(
        seen.cpus == 0b11,
        "runs were ended on CPUs {:#b}",
        seen.cpus
    );
    ensure!(
        (ROW..=ROW + 1).contains(&seen.runs) && seen.runs + seen.stopped <= ROW + 1,
        "{} runs were ended for their deadline, not {ROW}, and {} because the program was stopped",
        seen.runs,
        seen.stopped
    );
    seen.check_late()?;
    let text = stderr(&loaded, "freeze")?;
    ensure!(
        text.contains("ERROR: Deadline exceeded") && text.contains("ERROR: Not run any more"),
        "the stream says:\n{text}"
    );
    Ok(())
}

fn report(_: &Armed) -> Result<()> {
    let loaded = load(&["slow"])?;
    let result = run(&loaded, "slow")?;
    ensure!(result == UNSPEC, "the run returned {result}");
    let text = stderr(&loaded, "slow")?;
    let expected = regex::Regex::new(
        r"(?s)^ERROR: Deadline exceeded\nDeadline         = 30000 us\nElapsed          = (\d+) us\nTotal released   = 0\nCPU: .*Call trace:\n.*slow",
    )?;
    let elapsed: u64 = expected
        .captures(&text)
        .with_context(|| format!("the stream says:\n{text}"))?[1]
        .parse()?;
    let late = Duration::from_micros(elapsed.saturating_sub(30_000));
    ensure!(
        elapsed >= 30_000 && late <= LATE,
        "ended after {elapsed} us"
    );
    Ok(())
}

fn stops(_: &Armed) -> Result<()> {
    let watch = Watch::open()?;
    let loaded = load(&["slow"])?;
    for _ in 0..ROW + 3 {
        let result = run(&loaded, "slow")?;
        ensure!(result == UNSPEC, "a run returned {result}");
    }
    let seen = watch.seen()?;
    ensure!(
        seen.runs == ROW,
        "{} runs were ended, the others not run",
        seen.runs
    );
    let text = stderr(&loaded, "slow")?;
    ensure!(
        text.contains(&format!(
            "ERROR: Not run any more\nRuns ended in row = {ROW}\n"
        )),
        "the stream says:\n{text}"
    );
    Ok(())
}

fn in_time(_: &Armed) -> Result<()> {
    let watch = Watch::open()?;
    let loaded = load(&["timed"])?;
    let rounds = Section::of(&loaded, ".data.rounds")?;
    // Some milliseconds, and tens of times the fuel.
    for n in [0u32, 1, 10, 100, 1000] {
        rounds.write(&n.to_ne_bytes())?;
        let result = run(&loaded, "timed")?;
        ensure!(result == 7, "{n} rounds returned {result}");
    }
    let seen = watch.seen()?;
    ensure!(seen.runs == 0, "{} runs were ended", seen.runs);
    Ok(())
}

/// Programs of progs/deadline/class.bpf.c, and what ends them.
fn classes(_: &Armed) -> Result<()> {
    const CLASSES: [(&str, u64); 5] = [
        ("sleepable", 2_000),
        ("task", 250),
        ("atomic", 100),
        ("irq", 50),
        ("sections", 400),
    ];
    for (name, expected) in CLASSES {
        let watch = Watch::open()?;
        let loaded = load_from("class", &[name])?;
        if name == "task" {
            let _link = program(&loaded, name)?.attach()?;
            let trigger = Trigger::of(&loaded)?;
            trigger.cock(Event::Syscall)?;
            getpgid(None)?;
        } else {
            run_fd(program(&loaded, name)?.as_fd())?;
        }
        let seen = watch.seen()?;
        ensure!(
            (seen.runs, seen.stopped) == (1, 0),
            "{name}: {} runs were ended for their deadline, and {} otherwise",
            seen.runs,
            seen.stopped
        );
        let Seen {
            deadline, spent, ..
        } = seen;
        ensure!(
            deadline == Duration::from_millis(expected),
            "the deadline of {name} was {deadline:?}"
        );
        ensure!(
            spent > deadline,
            "{name} was ended after {spent:?}, before its deadline"
        );
    }
    Ok(())
}

fn hardened(_: &Armed) -> Result<()> {
    const HARDEN: &str = "/proc/sys/net/core/bpf_jit_harden";
    let before = std::fs::read_to_string(HARDEN).context(HARDEN)?;
    std::fs::write(HARDEN, "2").context(HARDEN)?;
    let result = load(&["slow"]).and_then(|loaded| run(&loaded, "slow"));
    std::fs::write(HARDEN, before.trim()).context(HARDEN)?;
    let result = result?;
    ensure!(result == UNSPEC, "the run returned {result}");
    Ok(())
}

fn freplace(_: &Armed) -> Result<()> {
    // 40 is added to what the function returns.
    ends_replacement("replacement", "replaceable", 40)
}

fn freplace_main(_: &Armed) -> Result<()> {
    const TC_ACT_UNSPEC: i32 = -1;
    ends_replacement("replacement_of_main", "replace_target", TC_ACT_UNSPEC)
}

fn freplace_arguments(_: &Armed) -> Result<()> {
    let loaded = load_from("stack", &["sum_target"])?;
    let (_replacing, _link) = replace(
        &loaded,
        "stack",
        "replacement_of_sum",
        "sum_target",
        "replaceable_sum",
    )?;
    let result = run(&loaded, "sum_target")?;
    ensure!(result == 54321, "the arguments add up to {result}");
    Ok(())
}

/// A program that replaces a function of another one is ended, and that one returns `expected`.
fn ends_replacement(replacement: &str, function: &str, expected: i32) -> Result<()> {
    let ledger = Ledger::open()?;
    let loaded = load_from("stack", &["replace_target"])?;
    let (_replacing, _link) = replace(&loaded, "stack", replacement, "replace_target", function)?;
    let result = run(&loaded, "replace_target")?;
    ensure!(
        result == expected,
        "the caller returned {result}, not {expected}"
    );
    ledger.settle_released("a", 1)
}

/// Has a program of the object `name` replace a function of a loaded one.
fn replace(
    loaded: &LoadedObject,
    name: &str,
    replacement: &str,
    target: &str,
    function: &str,
) -> Result<(LoadedObject, Link)> {
    let fd = program(loaded, target)?.as_fd().as_raw_fd();
    let replacing = loader::load_with(object("deadline", name)?, &[replacement], |program| {
        Ok(program.set_attach_target(fd, Some(function.into()))?)
    })??;
    let link = program(&replacing, replacement)?.attach()?;
    Ok((replacing, link))
}

fn below(_: &Armed) -> Result<()> {
    let ledger = Ledger::open()?;
    let loaded = load_from("stack", &["above", "below"])?;
    let _link = program(&loaded, "below")?.attach()?;
    let result = run(&loaded, "above")?;
    ensure!(result == 42, "the program above returned {result}");
    ledger.settle_released("ab", 1)
}

/// Programs of progs/deadline/above.bpf.c that take 2 ms on the entry of a function each time, below
/// one that may take 30 ms and does nothing but call the function.
fn above(_: &Armed) -> Result<()> {
    for below in [
        &["below_returns"][..],
        &["below_is_slow"],
        &["below_throws"],
        &["below_throws_and_counts"],
        &["below_tail_calls"],
        &["below_fails_to_tail_call"],
        &["middle", "below_middle"],
    ] {
        let ledger = Ledger::open()?;
        let loaded = load_from("above", &[&["above", TAIL], below].concat())?;
        let links = below
            .iter()
            .map(|name| Ok(program(&loaded, name)?.attach()?));
        let _links: Vec<_> = links.collect::<Result<_>>()?;
        ends_above(&loaded, &loaded, below[0])?;
        ledger.settle_released("a", 1)?;
    }
    Ok(())
}

/// The same with a program that replaces a function, and that ends when it loads from where no packet
/// is.
fn above_load(_: &Armed) -> Result<()> {
    let loaded = load_from("load", &["above"])?;
    let (replacing, _link) = replace(&loaded, "load", "below_loads", "above", "replaced")?;
    ends_above(&loaded, &replacing, "below_loads")
}

/// The one above is stopped while one below runs that was looked at: it ends as soon as that leaves.
fn above_kicked(_: &Armed) -> Result<()> {
    stay_on(CPUS[0])?;
    for below in ["below_is_kicked", "below_is_kicked_and_throws"] {
        let ledger = Ledger::open()?;
        let loaded = load_from("above", &["above", TAIL, below, "kicks"])?;
        let section = Section::of(&loaded, ".data.kick")?;
        section.write(&u64::from(program_id(&loaded, "above")?).to_ne_bytes())?;
        let _link = program(&loaded, below)?.attach()?;
        let above = program(&loaded, "above")?;
        let fd = above.as_fd();
        let result = thread::scope(|scope| {
            let runs = scope.spawn(|| {
                stay_on(CPUS[1])?;
                run_fd_with(fd, &PACKET, 0)
            });
            wait_until(&format!("{below} does not run"), || {
                let [_, ready, _] = section.words()?;
                Ok(ready != 0)
            })?;
            ensure_done(run(&loaded, "kicks")?)?;
            runs.join().expect("it does not panic")
        })?;
        let [_, _, kicked] = section.words()?;
        ensure!(kicked != 0, "{below} was not kicked");
        let [runs] = Section::of(&loaded, ".data.below")?.words()?;
        ensure!(
            runs == 1,
            "{below} ran {runs} times until the one above ended"
        );
        ensure!(result == UNSPEC, "{below}: the one above returned {result}");
        ledger.settle_released("a", 1)?;
    }
    Ok(())
}

/// The program `above` is ended when `below` has run as often as the deadline allows.
fn ends_above(loaded: &LoadedObject, counting: &LoadedObject, below: &str) -> Result<()> {
    // One more run may begin, and two before the run is looked at.
    const RUNS: u64 = 30 / 2 + 3;
    let result = run(loaded, "above")?;
    ensure!(result == UNSPEC, "{below}: the one above returned {result}");
    let [runs] = Section::of(counting, ".data.below")?.words()?;
    ensure!(runs <= RUNS, "{below}: {runs} runs below, more than {RUNS}");
    Ok(())
}

/// Chains of programs of progs/deadline/chain.bpf.c that take 2 ms each, and may take 30 ms.
struct Chains {
    loaded: LoadedObject,
    section: Section,
}

impl Chains {
    /// As many programs as a chain can have, of which the first takes no time.
    const ALL: u64 = 33;
    /// Together these take less than a deadline.
    const FEW: u64 = 4;

    fn load(names: &[&str]) -> Result<Self> {
        let loaded = load_from("chain", &[names, &["link", "link_by_index"]].concat())?;
        let section = Section::of(&loaded, ".data.chain")?;
        Ok(Self { loaded, section })
    }

    /// Runs a chain of `programs`. Returns the result, and how many were entered.
    fn run(&self, name: &str, programs: u64) -> Result<(i32, u64)> {
        self.section.write(&programs.to_ne_bytes())?;
        let result = run(&self.loaded, name)?;
        let [_, entered] = self.section.words()?;
        Ok((result, entered))
    }

    fn run_few(&self, name: &str) -> Result<()> {
        let few = self.run(name, Self::FEW)?;
        ensure!(few == (7, Self::FEW), "{name}, a few: {few:?}");
        Ok(())
    }

    fn run_all(&self, name: &str) -> Result<()> {
        // Those that fit, one that begins, and one that is not looked at for its first millisecond.
        const MOST: u64 = 30 / 2 + 2;
        let (result, entered) = self.run(name, Self::ALL)?;
        ensure!(result == 42, "{name} returned {result}, after {entered}");
        ensure!(
            entered <= MOST,
            "{name}: {entered} programs, more than {MOST}"
        );
        Ok(())
    }
}

fn chain(_: &Armed) -> Result<()> {
    const CHAINS: [&str; 3] = ["chain_direct", "chain_by_index", "chain_in_function"];
    let chains = Chains::load(&CHAINS)?;
    for name in CHAINS {
        chains.run_all(name)?;
        // Together they take longer than one may.
        for _ in 0..5 {
            chains.run_few(name)?;
        }
    }
    Ok(())
}

fn chain_last(_: &Armed) -> Result<()> {
    const CHAIN: &str = "chain_direct";
    let chains = Chains::load(&[CHAIN])?;
    for _ in 0..2 * ROW {
        chains.run_all(CHAIN)?;
    }
    chains.run_few(CHAIN)
}

fn both_cpus(_: &Armed) -> Result<()> {
    const RUNS: usize = 4;
    let ledger = Ledger::open()?;
    let loaded = load_from("stack", &["concurrent"])?;
    let concurrent = program(&loaded, "concurrent")?;
    let fd = concurrent.as_fd();
    on_both_cpus(|cpu| {
        for _ in 0..RUNS {
            let result = run_fd(fd)?;
            ensure!(
                result == -libc::ETIMEDOUT,
                "a run on CPU {cpu} returned {result}"
            );
        }
        Ok(())
    })?;
    ledger.settle_released("cd", 2 * RUNS)
}

fn module_busy(_: &Armed) -> Result<()> {
    let loaded = load(&["slow"])?;
    ensure_busy(MODULE)?;
    drop(loaded);
    unload_unused(MODULE)
}
