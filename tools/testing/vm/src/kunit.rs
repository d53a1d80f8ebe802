//! `vm kunit`: runs the KUnit suites that are built into the kernel, and reports them as KTAP.

use anyhow::Result;
use clap::Args;

use crate::Common;
use crate::console;
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::ktap;
use crate::qemu::Machine;
use crate::relay::relay;
use crate::watch::{self, Orders};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Only suites, or suite.test, that match
    #[arg(long, value_name = "GLOB", default_value = "*")]
    filter: String,
}

pub async fn main(options: Options) -> Result<u8> {
    let common = &options.common;
    let kernel = Kernel::open(&common.kernel)?;
    let images = Images::make(&kernel, &Initramfs::base()?, &common.log_dir)?;
    let accelerator = common.accelerator(&kernel, &images).await?;
    let facts = common.facts(&kernel, &accelerator).await?;
    let mut orders = Orders::new(accelerator.deadlines(&kernel));
    // All suites run before the first word of user space.
    orders.deadlines.boot += orders.deadlines.dump;
    let machine = Machine {
        accelerator,
        kernel: kernel.image.clone(),
        initrd: Some(images.initrd()),
        append: format!(
            "{} kunit.enable=1 kunit.filter_glob={}",
            kernel.append(),
            options.filter
        ),
        memory_mib: kernel.memory_mib(),
        cpus: 2,
        command: Some("true".to_owned()),
        shares: Vec::new(),
        icount: false,
        saved: None,
        logs: common.log_dir.join("kunit"),
    };
    let record = watch::run(&machine, &orders).await?;
    let console: Vec<_> = record
        .console
        .iter()
        .map(|line| console::without_prefix(line))
        .collect();
    let stream = ktap::parse(kunit_lines(&console));
    let empty = format!("no suite matches '{}', or KUnit is off", options.filter);

    relay(&facts, stream, "", &empty, &record)
}

/// What KUnit printed: from its first line to the line after its last result at the top.
fn kunit_lines<'a>(console: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    console
        .iter()
        .copied()
        .skip_while(|line| !line.starts_with("KTAP version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_in_a_console() {
        let console = [
            "[    0.100000] Linux version 7.3.4",
            "[    0.200000] KTAP version 1",
            "[    0.200001] 1..1",
            "[    0.200002]     KTAP version 1",
            "[    0.200003]     # Subtest: rust_doctests_kernel",
            "[    0.200004]     1..1",
            "[    0.200005][    T1]     ok 1 rust_doctest_kernel_alloc_rs_0",
            "[    0.200006] ok 1 rust_doctests_kernel",
            "[    0.300000] Run /init as init process",
        ];
        let lines: Vec<_> = console
            .iter()
            .map(|line| console::without_prefix(line))
            .collect();
        let stream = ktap::parse(kunit_lines(&lines));
        assert_eq!(stream.results.len(), 1);
        assert_eq!(
            stream.results[0].name,
            "rust_doctests_kernel/rust_doctest_kernel_alloc_rs_0"
        );
        assert!(stream.faults.is_empty());
    }
}
