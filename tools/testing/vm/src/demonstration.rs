//! `vm run`: the demonstration. A BPF program dumps the machine at the moment a cgroup runs out of
//! memory, a crash kernel saves the dump, and the dump shows what happened.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tokio::process::Command;
use tokio::time::Instant;

use crate::Common;
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::outcome::Ending;
use crate::qemu::{Event, Machine};
use crate::watch::{self, Orders};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// The program that watches the cgroup
    #[arg(
        long,
        value_name = "FILE",
        default_value = "build/cargo/oom_dump/release/oom_dump"
    )]
    program: PathBuf,
    /// Where the dump, the console and the report go
    #[arg(long, value_name = "DIR", default_value = "build/run")]
    out: PathBuf,
}

pub async fn main(options: Options) -> Result<u8> {
    let Options {
        common,
        program,
        out,
    } = options;
    let kernel = Kernel::open(&common.kernel)?;
    ensure!(
        program.is_file(),
        "{} is missing: build it first (make selftests)",
        program.display()
    );
    let mut guest = Initramfs::guest()?;
    guest.program("/bin/oom_dump", &program)?;
    guest.script("/bin/memory-hog", include_str!("../guest/memory-hog"));
    guest.modules(&kernel.modules("kernel/bpf/"))?;
    let images = Images::make(&kernel, &guest, &common.log_dir)?;
    let accelerator = common.accelerator(&kernel, &images).await?;

    let machine = Machine {
        accelerator,
        kernel: kernel.image.clone(),
        initrd: Some(images.initrd()),
        append: kernel.crash_append().to_owned(),
        memory_mib: kernel.memory_mib(),
        cpus: 2,
        command: Some(include_str!("../guest/out-of-memory").to_owned()),
        shares: images.crash_shares(&out)?,
        icount: false,
        saved: None,
        logs: out.clone(),
    };
    let mut orders = Orders::new(machine.accelerator.deadlines(&kernel));
    orders.dump = Some(out.clone());

    let mut stages = Stages::new();
    stages.say(&format!(
        "Linux {} boots with {} CPUs and {} MiB, by {}",
        kernel.release,
        machine.cpus,
        machine.memory_mib,
        machine.accelerator.name()
    ));
    let record = watch::run_observed(&machine, &orders, &mut |event| stages.show(event)).await?;
    match record.ending {
        Ending::CrashDump(_) => stages.say("the machine is off"),
        ending => bail!(
            "expected a crash dump, found {ending}; logs: {}",
            out.display()
        ),
    }

    let report = Command::new("python3")
        .args([REPORT, "--kernel"])
        .arg(&common.kernel)
        .arg(out.join("vmcore"))
        .kill_on_drop(true)
        .output()
        .await
        .context("python3 does not run")?;
    fs::write(out.join("report.txt"), &report.stdout).context("cannot write the report")?;
    let text = String::from_utf8_lossy(&report.stdout);
    print!("\n{text}");
    ensure!(
        report.status.success(),
        "{}",
        String::from_utf8_lossy(&report.stderr).trim()
    );

    let out = out.display();
    print!(
        "
Files
  {out}/vmcore       the dump
  {out}/report.txt   what stands above
  {out}/dmesg        the log of the kernel that crashed
  {out}/console.log  what both kernels wrote to the console

Next
  scripts/enter tools/testing/vm/report.py --interactive
                         look round in the dump with drgn
  tools/bpf/backstop/oom_dump/src/bpf/oom_dump.bpf.c
                         the program: another event, another condition
  make shell             a machine to try it in by hand
"
    );
    Ok(0)
}

const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/report.py");

/// Tells what happens while it does, with the time since the start.
struct Stages {
    started: Instant,
    kernels: Kernels,
}

impl Stages {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            kernels: Kernels::default(),
        }
    }

    fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.started.elapsed().as_secs_f32());
    }

    fn show(&mut self, event: &Event) {
        if let Some(what) = self.kernels.stage(event) {
            self.say(&what);
        }
    }
}

/// Reads stages from what a machine says, in which one kernel boots after another.
#[derive(Default)]
struct Kernels {
    booted: u32,
}

impl Kernels {
    fn stage(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Channel(line) if line == "# boot" => Some("user space is up".to_owned()),
            Event::Channel(line) if line.starts_with('#') => None,
            Event::Channel(line) => Some(line.clone()),
            Event::Console(line) => {
                let text = without_time(line);
                if let Some(version) = text.strip_prefix("Linux version ") {
                    self.booted += 1;
                    let release = version.split(' ').next().unwrap_or_default();
                    return (self.booted == 2)
                        .then(|| format!("the crash kernel takes over: Linux {release}"));
                }
                let told = text.starts_with("bpf_destructive: bpf_")
                    || text.starts_with("Kernel panic")
                    || text.starts_with("capture: ");
                told.then(|| text.to_owned())
            }
            _ => None,
        }
    }
}

/// A line of the kernel's log without the time at its head.
fn without_time(line: &str) -> &str {
    match line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        Some((time, text)) if time.trim().parse::<f64>().is_ok() => text,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_of_a_dump() {
        let console = |line: &str| Event::Console(line.to_owned());
        let channel = |line: &str| Event::Channel(line.to_owned());
        let events = [
            console("[    0.000000] Linux version 7.3.4-backstop (backstop@backstop) #1"),
            console("[    0.000000] Command line: console=ttyS0"),
            channel("# boot"),
            channel("oom_dump: watching cgroup shop (id 16)"),
            channel("# armed out-of-memory"),
            console("[    3.570107] bpf_destructive: bpf_crash_dump by program \"p\""),
            console("[    0.000000] Linux version 7.3.4-backstop (backstop@backstop) #1"),
            console("capture: the dump is saved"),
            console("[    1.491689] bpf_destructive: loading out-of-tree module taints kernel."),
            console("[    4.836097] reboot: Power down"),
            Event::Stopped,
        ];
        let mut kernels = Kernels::default();
        let stages: Vec<_> = events
            .iter()
            .filter_map(|event| kernels.stage(event))
            .collect();
        assert_eq!(
            stages,
            [
                "user space is up",
                "oom_dump: watching cgroup shop (id 16)",
                "bpf_destructive: bpf_crash_dump by program \"p\"",
                "the crash kernel takes over: Linux 7.3.4-backstop",
                "capture: the dump is saved",
            ]
        );
    }

    #[test]
    fn only_a_time_is_taken_off() {
        assert_eq!(without_time("[    3.570107] text"), "text");
        assert_eq!(without_time("[text] text"), "[text] text");
        assert_eq!(without_time("text"), "text");
    }
}
