//! Machines saved when they were ready for a test, for any number of tests to go on from.
//!
//! A saved machine depends on everything that its guest was made from, and on QEMU; the name of its
//! directory is the digest of all that. It lasts until something of it changes. What was random when it
//! booted is the same each time, and its clock begins at the same moment.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::qemu::{self, CHANNEL_LOG, CONSOLE_LOG, Machine};

const MEMORY: &str = "memory";

/// A directory with the state of a machine, and with what it had said.
#[derive(Clone, Debug)]
pub struct Saved {
    dir: PathBuf,
}

impl Saved {
    pub fn memory(&self) -> PathBuf {
        self.dir.join(MEMORY)
    }

    /// The bytes of console and channel.
    pub fn said(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let read = |log| {
            let path = self.dir.join(log);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok((read(CONSOLE_LOG)?, read(CHANNEL_LOG)?))
    }
}

/// A machine that is being saved. Dropped, it leaves nothing.
pub struct Saving {
    part: TempDir,
    whole: PathBuf,
}

impl Saving {
    pub fn memory(&self) -> PathBuf {
        self.part.path().join(MEMORY)
    }

    /// To be called when the memory is there, with the logs of the machine.
    pub fn finish(self, logs: &Path) -> Result<Saved> {
        let failed = || format!("cannot write {}", self.whole.display());
        for log in [CONSOLE_LOG, CHANNEL_LOG] {
            fs::copy(logs.join(log), self.part.path().join(log)).with_context(failed)?;
        }
        fs::rename(self.part.path(), &self.whole).with_context(failed)?;
        Ok(Saved { dir: self.whole })
    }
}

/// All machines that are saved.
pub struct Store {
    dir: PathBuf,
    /// Of everything that all guests depend on.
    common: Sha256,
}

impl Store {
    /// Opens the store in `dir`, for guests made from these files.
    pub async fn open(dir: &Path, files: &[PathBuf]) -> Result<Self> {
        let mut common = Sha256::new();
        common.update(qemu::version().await?);
        common.update(processor()?);
        let runner = Path::new("/proc/self/exe");
        for file in files.iter().map(PathBuf::as_path).chain([runner]) {
            digest(&mut common, file).with_context(|| format!("cannot read {}", file.display()))?;
        }
        let store = Self {
            dir: dir.to_owned(),
            common,
        };
        let failed = || format!("cannot write {}", dir.display());
        fs::create_dir_all(dir).with_context(failed)?;
        store.remove_stale().with_context(failed)?;
        Ok(store)
    }

    /// What is of no use any more: of other guests, or not finished.
    fn remove_stale(&self) -> io::Result<()> {
        let useful = self.prefix();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(&useful) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn prefix(&self) -> String {
        short(self.common.clone())
    }

    fn place(&self, machine: &Machine) -> PathBuf {
        let mut own = Sha256::new();
        own.update(machine.configuration());
        self.dir.join(format!("{}-{}", self.prefix(), short(own)))
    }

    /// The machine, if it has been saved.
    pub fn get(&self, machine: &Machine) -> Option<Saved> {
        let dir = self.place(machine);
        dir.exists().then_some(Saved { dir })
    }

    pub fn begin(&self, machine: &Machine) -> Result<Saving> {
        let part = tempfile::Builder::new()
            .prefix("part-")
            .tempdir_in(&self.dir)
            .with_context(|| format!("cannot write {}", self.dir.display()))?;
        Ok(Saving {
            part,
            whole: self.place(machine),
        })
    }
}

/// A saved machine only goes on where its processor has the same features.
fn processor() -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let first = info.split("\n\n").next().unwrap_or_default();
    let lasting = ["vendor_id", "cpu family", "model", "stepping", "flags"];
    Ok(first
        .lines()
        .filter(|line| lasting.iter().any(|name| line.starts_with(name)))
        .collect())
}

fn digest(digest: &mut Sha256, file: &Path) -> io::Result<()> {
    io::copy(&mut File::open(file)?, digest)?;
    Ok(())
}

fn short(digest: Sha256) -> String {
    format!("{:x}", digest.finalize())[..16].to_owned()
}
