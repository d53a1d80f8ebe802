//! The files that guests boot from, made anew for each invocation and removed at its end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::qemu::{APPEND, Share};

/// One CPU is all a crash kernel can count on.
const CAPTURE_APPEND: &str = "nr_cpus=1 reset_devices";

/// What load-crash-kernel reads beside the initramfs.
const CRASH_CMDLINE: &str = "crash.cmdline";
const IMAGE: &str = "bzImage";

pub struct Images {
    dir: TempDir,
}

impl Images {
    /// Makes the initramfs of the guest from `guest`, and the crash kernel with its own.
    pub fn make(kernel: &Kernel, guest: &Initramfs, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let dir = tempfile::Builder::new()
            .prefix("images-")
            .tempdir_in(logs)?;
        let images = Self { dir };
        fs::create_dir(images.boot())?;
        guest.save(&images.initrd())?;
        Initramfs::crash()?.save(&images.crash_initrd())?;
        let command_line = format!("{APPEND} {CAPTURE_APPEND}\n");
        fs::write(images.boot().join(CRASH_CMDLINE), command_line)?;
        // A hard link where the file system allows it.
        let image = images.boot().join(IMAGE);
        fs::hard_link(&kernel.image, &image)
            .or_else(|_| fs::copy(&kernel.image, &image).map(drop))
            .with_context(|| format!("cannot copy {}", kernel.image.display()))?;
        Ok(images)
    }

    pub fn initrd(&self) -> PathBuf {
        self.dir.path().join("initramfs.cpio")
    }

    /// Small, and enough to see whether a machine boots.
    pub fn crash_initrd(&self) -> PathBuf {
        self.boot().join("crash.cpio")
    }

    /// All files that a guest sees.
    pub fn files(&self) -> [PathBuf; 4] {
        [
            self.initrd(),
            self.crash_initrd(),
            self.boot().join(CRASH_CMDLINE),
            self.boot().join(IMAGE),
        ]
    }

    fn boot(&self) -> PathBuf {
        self.dir.path().join("boot")
    }

    /// What load-crash-kernel reads, and an empty directory where the crash kernel saves its dump.
    pub fn crash_shares(&self, dump: &Path) -> Result<Vec<Share>> {
        let failed = || format!("cannot make {} anew", dump.display());
        if dump.exists() {
            fs::remove_dir_all(dump).with_context(failed)?;
        }
        fs::create_dir_all(dump).with_context(failed)?;
        Ok(vec![
            Share {
                tag: "boot",
                directory: self.boot(),
                writable: false,
            },
            Share {
                tag: "share",
                directory: dump.to_owned(),
                writable: true,
            },
        ])
    }
}
