//! `vm boot`: one machine, with a shell on its console or with a command.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::Common;
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::outcome::Ending;
use crate::qemu::{Event, Machine, Share};
use crate::watch::{self, Orders};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Run CMD in the guest's shell; its output and status become those of vm
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// Added to the kernel's command line
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// Put a program into the guest's /bin, with the libraries it needs
    #[arg(long, value_name = "FILE")]
    program: Vec<PathBuf>,
    /// Load kernel modules, in this order [default: those built beneath kernel/bpf]
    #[arg(long, value_name = "FILE")]
    module: Option<Vec<PathBuf>>,
    /// Offer DIR to the guest, writable: mount -t 9p -o trans=virtio,version=9p2000.L share /mnt
    #[arg(long, value_name = "DIR", conflicts_with = "crash_kernel")]
    share: Option<PathBuf>,
    /// Make room for a crash kernel; load-crash-kernel loads it, its dump goes to the log directory
    #[arg(long)]
    crash_kernel: bool,
    /// Memory in MiB
    #[arg(long, value_name = "N")]
    memory: Option<u32>,
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Guest time counts guest instructions (one CPU, TCG)
    #[arg(long)]
    icount: bool,
}

pub async fn main(options: Options) -> Result<u8> {
    let common = &options.common;
    let kernel = Kernel::open(&common.kernel)?;
    let mut guest = Initramfs::guest()?;
    for program in &options.program {
        let name = program.file_name().context("a program without a name")?;
        guest.program(&format!("/bin/{}", name.to_string_lossy()), program)?;
    }
    match &options.module {
        Some(modules) => guest.modules(modules)?,
        None => guest.modules(&kernel.modules("kernel/bpf/"))?,
    }
    let images = Images::make(&kernel, &guest, &common.log_dir)?;
    let accelerator = match options.icount {
        true => crate::accelerator::Accelerator::tcg("instructions are counted"),
        false => common.accelerator(&kernel, &images).await?,
    };
    let mut machine = Machine {
        accelerator,
        kernel: kernel.image.clone(),
        initrd: Some(images.initrd()),
        append: options.append.clone(),
        memory_mib: options.memory.unwrap_or(kernel.memory_mib()),
        cpus: if options.icount { 1 } else { options.cpus },
        command: options.exec.clone(),
        shares: Vec::new(),
        icount: options.icount,
        saved: None,
        logs: common.log_dir.join("boot"),
    };
    let mut orders = Orders::new(machine.accelerator.deadlines(&kernel));
    if options.crash_kernel {
        let dump = common.log_dir.join("boot.dump");
        machine.shares = images.crash_shares(&dump)?;
        machine.append = format!("{} {}", kernel.crash_append(), machine.append);
        orders.dump = Some(dump);
    }
    if let Some(directory) = options.share {
        machine.shares.push(Share {
            tag: "share",
            directory,
            writable: true,
        });
    }
    eprintln!("accelerator: {}", machine.accelerator.describe());
    if machine.command.is_none() {
        let status = machine.run_on_terminal().await?;
        return Ok(if status.success() { 0 } else { 2 });
    }
    let record = watch::run_observed(&machine, &orders, &mut |event| match event {
        Event::Console(line) if common.verbose => eprintln!("{line}"),
        Event::Channel(line) if !watch::is_init_line(line) => println!("{line}"),
        _ => (),
    })
    .await?;
    match record.ending {
        Ending::CrashDump(dump) => {
            eprintln!("{}", Ending::CrashDump(dump));
            Ok(0)
        }
        // Beyond a byte there are no statuses.
        Ending::Finished { status } => Ok(u8::try_from(status).unwrap_or(u8::MAX)),
        ending => bail!("{ending}; logs: {}", record.logs.display()),
    }
}
