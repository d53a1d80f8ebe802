//! `vm soak`: a machine under load for as long as is wanted, while BPF programs run away in it.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, interval_at};

use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::ktap;
use crate::qemu::Machine;
use crate::relay::relay;
use crate::watch::{self, Orders};
use crate::{Common, TestProgram};

/// How often it is said that the machine still runs.
const WORD: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
    #[command(flatten)]
    program: TestProgram,
}

pub async fn main(options: Options) -> Result<u8> {
    let common = &options.common;
    let kernel = Kernel::open(&common.kernel)?;
    let mut guest = Initramfs::base()?;
    guest.program("/bin/backstop_selftests", &options.program.path)?;
    guest.idle_modules(&kernel.modules("kernel/bpf/"))?;
    let images = Images::make(&kernel, &guest, &common.log_dir)?;
    let accelerator = common.accelerator(&kernel, &images).await?;
    let facts = common.facts(&kernel, &accelerator).await?;
    let orders = Orders::new(accelerator.deadlines(&kernel));
    let machine = Machine {
        accelerator,
        kernel: kernel.image.clone(),
        initrd: Some(images.initrd()),
        append: kernel.append().to_owned(),
        memory_mib: kernel.memory_mib(),
        cpus: 2,
        command: Some(format!(
            "exec backstop_selftests --soak {}",
            options.seconds
        )),
        shares: Vec::new(),
        icount: false,
        saved: None,
        logs: common.log_dir.join("soak"),
    };
    let record = {
        let begun = Instant::now();
        let mut word = interval_at(begun + WORD, WORD);
        let watched = watch::run(&machine, &orders);
        tokio::pin!(watched);
        loop {
            tokio::select! {
                record = &mut watched => break record?,
                _ = word.tick() => eprintln!(
                    "    {} s of {} s; log: {}",
                    begun.elapsed().as_secs(),
                    options.seconds,
                    machine.logs.join("console.log").display()
                ),
            }
        }
    };

    let stream = ktap::parse(record.channel.iter().map(String::as_str));
    relay(&facts, stream, "soak/", "the guest said nothing", &record)
}
