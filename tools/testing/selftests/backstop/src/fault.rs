// SPDX-License-Identifier: GPL-2.0
//! Allocations that fail, each in its turn, where the kernel can do that: CONFIG_FAULT_INJECTION.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::expectation::Errno;

const NTH: &str = "/proc/thread-self/fail-nth";
const DEBUGFS: &str = "/sys/kernel/debug";

pub fn can_be_injected() -> bool {
    Path::new(NTH).exists()
}

/// Which allocations are made to fail, and how: all of them, those that may sleep included, in
/// silence.
const SETTINGS: [(&str, &str); 5] = [
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
];

/// Counts the allocations of this thread, and has one fail.
struct Countdown {
    file: File,
}

impl Countdown {
    fn open() -> Result<Self> {
        for (name, value) in SETTINGS {
            let path = Path::new(DEBUGFS).join(name);
            fs::write(&path, value).with_context(|| path.display().to_string())?;
        }
        let file = File::options().read(true).write(true).open(NTH);
        Ok(Self {
            file: file.context(NTH)?,
        })
    }

    /// From now on; with 0, none.
    fn start(&mut self, nth: u32) -> Result<()> {
        write!(self.file, "{nth}").context(NTH)
    }

    /// Stops it. Whether an allocation has failed.
    fn stop(&mut self) -> Result<bool> {
        // The file cannot be rewound.
        let mut left = [0; 16];
        let length = self.file.read_at(&mut left, 0).context(NTH)?;
        self.start(0)?;
        Ok(left[..length].trim_ascii() == b"0")
    }
}

/// The JIT does not tell why it fails, and the kernel takes the program for one that it does not
/// support. Where it cannot allocate the program itself, it says EINVAL.
const ENOTSUPP: i32 = 524;

/// Loads a program again and again, with the first allocation failing, then with the second, until
/// there are no more. Each time the load has to say so, or to end as it does without a failure.
/// Returns how often it said so.
pub fn fail_each<T>(load: impl Fn() -> Result<T, Errno>) -> Result<u32> {
    let mut countdown = Countdown::open()?;
    let plain = load().err();
    let mut refused = 0;
    for nth in 1.. {
        if nth % 100 == 0 {
            println!("# goes on, {nth} allocations have failed");
        }
        countdown.start(nth)?;
        let ended = load();
        if !countdown.stop()? {
            break;
        }
        match ended.err() {
            Some(Errno(libc::ENOMEM | ENOTSUPP)) => refused += 1,
            // The program itself is what is allocated first.
            Some(Errno(libc::EINVAL)) if refused == 0 => (),
            ended if ended == plain => (),
            Some(errno) => bail!("with allocation {nth} failing, it ends with {errno}"),
            None => bail!("with allocation {nth} failing, it ends well"),
        }
    }
    ensure!(refused > 0, "no allocation could be made to fail");
    Ok(refused)
}
