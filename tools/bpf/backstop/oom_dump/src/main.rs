// SPDX-License-Identifier: GPL-2.0
//! oom_dump: boots the crash kernel when a cgroup runs out of memory.

mod preflight;
mod watch;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use preflight::Cgroup;

/// Boot the crash kernel when a cgroup runs out of memory.
///
/// A BPF program waits where the out-of-memory killer has chosen a victim and has not yet killed
/// it. If the cgroup that ran out is NAME, it names the victim on the console and calls
/// bpf_crash_dump(): the dump shows the machine as it was at that moment. For any other cgroup,
/// and for the system as a whole, nothing changes.
///
/// Runs until it is interrupted; then the program is gone.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// The cgroup, as a path below /sys/fs/cgroup
    #[arg(long, value_name = "NAME")]
    cgroup: String,
}

const AFTER_HELP: &str = "\
Needs CAP_SYS_BOOT, CAP_BPF and CAP_PERFMON, the module bpf_destructive, and a loaded crash kernel.

Example:
  oom_dump --cgroup system.slice/shop.service";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = run(&arguments.cgroup) {
        eprintln!("oom_dump: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(name: &str) -> Result<(), Box<dyn Error>> {
    preflight::machine()?;
    let cgroup = Cgroup::open(name)?;
    match watch::watch(&cgroup)? {}
}
