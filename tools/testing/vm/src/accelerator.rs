//! Which of QEMU's accelerators works here. A /dev/kvm that opens proves nothing: only a boot does.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::kernel::Kernel;
use crate::outcome::Ending;
use crate::qemu::Machine;
use crate::watch::{self, Deadlines, Orders};

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kvm,
    Tcg,
}

/// The accelerator in use, and why it is this one.
#[derive(Clone, Debug)]
pub struct Accelerator {
    kind: Kind,
    reason: String,
}

impl Accelerator {
    pub fn tcg(reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Tcg,
            reason: reason.into(),
        }
    }

    fn kvm(reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Kvm,
            reason: reason.into(),
        }
    }

    /// Finds out what works: KVM if it boots `kernel` to user space, else TCG.
    pub async fn choose(
        wanted: Wanted,
        kernel: &Kernel,
        initrd: &Path,
        logs: &Path,
    ) -> Result<Self> {
        if wanted == Wanted::Tcg {
            return Ok(Self::tcg("as asked"));
        }
        let failure = match File::options().read(true).write(true).open("/dev/kvm") {
            Err(error) => format!("/dev/kvm: {error}"),
            Ok(_) => match probe(kernel, initrd, logs).await? {
                None => return Ok(Self::kvm("it boots the kernel")),
                Some(failure) => failure,
            },
        };
        if wanted == Wanted::Kvm {
            bail!("KVM does not work here: {failure}");
        }
        Ok(Self::tcg(format!("KVM does not work here: {failure}")))
    }

    /// Without page tables of five levels: while a kernel identifies its first CPU, it does not know of
    /// them, and KASAN takes what an interrupt does then for a wild access.
    pub fn qemu_args(&self, icount: bool) -> Vec<(&'static str, &'static str)> {
        match (self.kind, icount) {
            (Kind::Kvm, _) => vec![("-accel", "kvm"), ("-cpu", "host,la57=off")],
            (Kind::Tcg, false) => vec![("-accel", "tcg,thread=multi"), ("-cpu", "max,la57=off")],
            (Kind::Tcg, true) => vec![
                ("-accel", "tcg,thread=single"),
                ("-cpu", "max,la57=off"),
                ("-icount", "shift=0,sleep=off"),
            ],
        }
    }

    /// How long a guest may take: translated code is slower by an order of magnitude, and a kernel that
    /// checks itself takes several times as long.
    pub fn deadlines(&self, kernel: &Kernel) -> Deadlines {
        let scale = match self.kind {
            Kind::Kvm => 1,
            Kind::Tcg => 4,
        } * if kernel.is_debug() { 4 } else { 1 };
        Deadlines {
            boot: Duration::from_secs(20) * scale,
            test: Duration::from_secs(15) * scale,
            dump: Duration::from_secs(30) * scale,
        }
    }

    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Kvm => "kvm",
            Kind::Tcg => "tcg",
        }
    }

    /// One line for the header of a result.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.name(), self.reason)
    }
}

/// Boots the kernel with KVM, and tells what went wrong if user space did not end by itself.
async fn probe(kernel: &Kernel, initrd: &Path, logs: &Path) -> Result<Option<String>> {
    let machine = Machine {
        accelerator: Accelerator::kvm("probe"),
        kernel: kernel.image.clone(),
        initrd: Some(initrd.to_owned()),
        append: String::new(),
        memory_mib: kernel.memory_mib() / 2,
        cpus: 1,
        command: Some("true".to_owned()),
        shares: Vec::new(),
        icount: false,
        saved: None,
        logs: logs.join("probe-kvm"),
    };
    let orders = Orders::new(machine.accelerator.deadlines(kernel));
    let record = watch::run(&machine, &orders).await?;
    Ok(match record.ending {
        Ending::Finished { .. } => None,
        // What QEMU says of itself may take several lines.
        ending => ending.to_string().lines().next().map(str::to_owned),
    })
}
