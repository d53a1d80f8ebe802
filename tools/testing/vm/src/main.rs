//! Boots, watches and judges virtual machines.

mod accelerator;
mod bench;
mod boot;
mod conformance;
mod console;
mod demonstration;
mod difference;
mod fuzz;
mod host;
mod image;
mod images;
mod initramfs;
mod kernel;
mod ktap;
mod kunit;
mod mutants;
mod outcome;
mod plan;
mod plot;
mod qemu;
mod qmp;
mod relay;
mod saved;
mod schedule;
mod shell;
mod soak;
mod test;
mod test_progs;
mod trial;
mod veristat;
mod vmcore;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::accelerator::Wanted;

/// Boots, watches and judges virtual machines
///
/// Exit status: 0 pass, 1 fail, 4 skip, 2 wrong use or no way to run.
#[derive(Parser)]
#[command(name = "vm")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the guest tests, each in a machine it may stop
    Test(test::Options),
    /// Boot one machine: a shell, or one command
    Boot(boot::Options),
    /// The demonstration: a cgroup runs out of memory, a BPF program dumps the machine
    Run(demonstration::Options),
    /// Run the KUnit suites of the kernel
    Kunit(kunit::Options),
    /// Count the instructions BPF programs take, on the unpatched kernel and on the patched one
    Bench(bench::Options),
    /// Run the kernel's own test_progs on the unpatched kernel and on the patched one, and show what differs
    Conformance(conformance::Options),
    /// A machine under load while BPF programs run away in it
    Soak(soak::Options),
    /// Make mistakes in the module that unwinds programs, and show which tests notice
    Mutants(mutants::Options),
    /// Run random programs that throw or expire beside twins that release by hand, and show what differs
    Fuzz(fuzz::Options),
    /// Have the unpatched kernel and the patched one load the programs of the kernel's own BPF selftests, and show what differs
    Veristat(veristat::Options),
    /// A machine to work in, with the tool root as its file system
    Shell(shell::Options),
}

/// What all commands take.
#[derive(Args)]
struct Common {
    /// The kernel's build directory
    #[arg(long, value_name = "DIR", default_value = "build/linux")]
    kernel: PathBuf,
    /// auto: KVM if it boots the kernel, else TCG
    #[arg(long, value_name = "HOW", default_value = "auto", env = "ACCEL")]
    accel: Wanted,
    /// Where logs go: one directory a machine
    #[arg(long, value_name = "DIR", default_value = "build/vm")]
    log_dir: PathBuf,
    /// Say more while it runs
    #[arg(long, short)]
    verbose: bool,
}

/// What commands take that run the guest's test program.
#[derive(Args)]
struct TestProgram {
    /// The guest's test program
    #[arg(
        id = "program",
        long = "program",
        value_name = "FILE",
        default_value = "build/cargo/selftests/release/backstop_selftests"
    )]
    path: PathBuf,
}

/// What commands take that compare the two kernels.
#[derive(Args)]
struct Unpatched {
    /// The unpatched kernel's build directory
    #[arg(
        id = "unpatched",
        long = "unpatched",
        value_name = "DIR",
        default_value = "build/linux-pristine"
    )]
    dir: PathBuf,
}

/// What commands take that run what is built of the kernel's own BPF selftests.
#[derive(Args)]
struct BpfTests {
    /// test_progs, veristat and BPF objects of the unpatched source, and the modules for its kernel
    #[arg(
        id = "tests",
        long = "tests",
        value_name = "DIR",
        default_value = "build/test_progs/unpatched"
    )]
    unpatched: PathBuf,
    /// The modules for the patched kernel, and test_progs of its source where that has other tests
    #[arg(
        id = "own-tests",
        long = "own-tests",
        value_name = "DIR",
        default_value = "build/test_progs/patched"
    )]
    own: PathBuf,
}

async fn run(command: Command) -> Result<u8> {
    match command {
        Command::Test(options) => test::main(options).await,
        Command::Boot(options) => boot::main(options).await,
        Command::Run(options) => demonstration::main(options).await,
        Command::Kunit(options) => kunit::main(options).await,
        Command::Bench(options) => bench::main(options).await,
        Command::Conformance(options) => conformance::main(options).await,
        Command::Soak(options) => soak::main(options).await,
        Command::Mutants(options) => mutants::main(options).await,
        Command::Fuzz(options) => fuzz::main(options).await,
        Command::Veristat(options) => veristat::main(options).await,
        Command::Shell(options) => shell::main(options).await,
    }
}

/// Waits for a signal that is to end this process.
async fn interrupted() -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
        _ = hangup.recv() => bail!("hung up"),
    }
}

/// One thread does it all. QEMU dies with the thread that started it, so it must be the main one;
/// and what an interrupt drops unfinished kills its machines and removes its files.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = tokio::select! {
        result = run(cli.command) => result,
        result = interrupted() => result,
    };
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("vm: {error:#}");
            2.into()
        }
    }
}
