// SPDX-License-Identifier: GPL-2.0
//! Selftests of the Backstop BPF controls. Lists its tests, and runs them on the machine it is on.

mod arm;
mod bench;
mod catalogue;
mod console;
mod counter;
mod cpus;
mod expectation;
mod fault;
mod fuzz;
mod ktap;
mod leak;
mod ledger;
mod list;
mod loaded;
mod loader;
mod machine;
mod perform;
mod run;
mod section;
mod soak;
mod test_run;
mod tests;
mod trigger;
mod wait;
mod watch;

use std::io::stdin;
use std::iter;
use std::process::ExitCode;

use anyhow::{Context, Result};
use catalogue::Test;
use clap::Parser;
use glob::Pattern;

/// Runs tests of the Backstop BPF controls on this machine and reports in KTAP.
///
/// Exit codes: 0 passed, 1 failed, 2 wrong usage, 4 skipped.
#[derive(Parser)]
#[command(name = "backstop_selftests")]
struct Cli {
    /// Names of tests to run; all if neither names nor globs are given
    names: Vec<String>,
    /// Run tests whose names match
    #[arg(short, long, value_name = "GLOB")]
    filter: Vec<Pattern>,
    /// List the tests instead of running them
    #[arg(short, long)]
    list: bool,
    /// List as JSON, with what the host must know to judge them
    #[arg(long, requires = "list")]
    json: bool,
    /// Set up a test that ends the machine, say '# armed NAME', and trigger it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["names", "filter", "list"])]
    arm: Option<String>,
    /// Allow tests that stop this machine, although it is not booted with backstop.vm=1
    #[arg(long)]
    destructive: bool,
    /// Get ready, say '# ready', and take the other arguments from a line of standard input
    #[arg(long, exclusive = true)]
    wait: bool,
    /// Measure instead of testing, one JSON line a row
    #[arg(long, conflicts_with_all = ["names", "filter", "list", "arm"])]
    bench: bool,
    /// Keep the machine busy for so many seconds while programs run away in it
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["names", "filter", "list", "arm", "bench"])]
    soak: Option<u64>,
    /// Fuzz what exceptions release, with the programs of this seed, one JSON line for what happens
    #[arg(long, value_name = "SEED", conflicts_with_all = ["names", "filter", "list", "arm", "bench"])]
    fuzz: Option<u64>,
    /// The first program of the seed
    #[arg(long, value_name = "N", default_value_t = 0, requires = "fuzz")]
    first: u64,
    /// How many programs
    #[arg(long, value_name = "N", default_value_t = 1, requires = "fuzz")]
    count: u64,
    /// Show the programs instead of running them
    #[arg(long, requires = "fuzz")]
    show: bool,
    /// Say why the verifier refuses programs
    #[arg(long, requires = "fuzz", conflicts_with = "show")]
    refusals: bool,
    /// Do a test in this process
    #[arg(long, hide = true, value_name = "NAME")]
    here: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            println!("Bail out! {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    if cli.bench {
        bench::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seconds) = cli.soak {
        return soak::run(seconds);
    }
    if let Some(seed) = cli.fuzz {
        let programs = cli.first..cli.first + cli.count;
        if cli.show {
            fuzz::show(seed, programs);
            return Ok(ExitCode::SUCCESS);
        }
        if cli.refusals {
            fuzz::refusals(seed, programs)?;
            return Ok(ExitCode::SUCCESS);
        }
        return fuzz::report(seed, programs);
    }
    let all = catalogue::all()?;
    if !cli.wait {
        return run_tests(cli, &all);
    }
    match Cli::try_parse_from(await_arguments()?) {
        Ok(cli) => run_tests(&cli, &all),
        Err(error) => Ok(usage(error.to_string())),
    }
}

/// The words of a line of input, after a name of this program.
fn await_arguments() -> Result<Vec<String>> {
    println!("# ready");
    let mut line = String::new();
    stdin().read_line(&mut line).context("reading arguments")?;
    let words = line.split_whitespace().map(str::to_owned);
    Ok(iter::once(String::new()).chain(words).collect())
}

fn run_tests(cli: &Cli, all: &[Test]) -> Result<ExitCode> {
    let permission = machine::Permission::new(cli.destructive);
    if let Some(name) = &cli.here {
        return Ok(one(all, name).map_or_else(usage, run::run_here));
    }
    if let Some(name) = &cli.arm {
        return match one(all, name) {
            Ok(test) => run::arm(test, permission),
            Err(error) => Ok(usage(error)),
        };
    }
    match select(all, &cli.names, &cli.filter) {
        Err(error) => Ok(usage(error)),
        Ok(tests) if cli.list => {
            if cli.json {
                list::json(&tests)
            } else {
                list::text(&tests)
            }?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(tests) => run::run_all(&tests, permission),
    }
}

fn usage(error: String) -> ExitCode {
    eprintln!("error: {error}; see --list");
    ExitCode::from(2)
}

fn one<'a>(all: &'a [Test], name: &str) -> Result<&'a Test, String> {
    all.iter()
        .find(|test| test.name == name)
        .ok_or_else(|| format!("no test is called {name}"))
}

/// Tests by name and by glob, in the order of the list.
fn select<'a>(
    all: &'a [Test],
    names: &[String],
    globs: &[Pattern],
) -> Result<Vec<&'a Test>, String> {
    for name in names {
        one(all, name)?;
    }
    for glob in globs {
        if !all.iter().any(|test| glob.matches(&test.name)) {
            return Err(format!("no test matches {glob}"));
        }
    }
    let everything = names.is_empty() && globs.is_empty();
    Ok(all
        .iter()
        .filter(|test| {
            everything
                || names.contains(&test.name)
                || globs.iter().any(|glob| glob.matches(&test.name))
        })
        .collect())
}

#[cfg(test)]
mod tests_of_main {
    use super::*;

    #[test]
    fn names_and_globs_select() {
        let all = catalogue::all().unwrap();
        let names = |names: &[&str], globs: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
            let globs: Vec<_> = globs
                .iter()
                .map(|glob| Pattern::new(glob).unwrap())
                .collect();
            select(&all, &names, &globs).map(|tests| {
                tests
                    .iter()
                    .map(|test| test.name.clone())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names(&[], &[]).unwrap().len(), all.len());
        assert_eq!(
            names(&["destructive/panic_nmi"], &[]).unwrap(),
            ["destructive/panic_nmi"]
        );
        let globbed = names(&["destructive/halt_nmi"], &["*/panic_[nr]*"]).unwrap();
        assert!(globbed.contains(&"destructive/panic_raw_tp".into()));
        assert!(globbed.contains(&"destructive/halt_nmi".into()));
        assert!(!globbed.contains(&"destructive/panic_kprobe".into()));
        assert!(names(&["no/such"], &[]).is_err());
        assert!(names(&[], &["no*such"]).is_err());
    }

    #[test]
    fn options_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
