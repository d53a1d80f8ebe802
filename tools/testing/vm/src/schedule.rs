//! How many machines run at once: as many as there are cores, and as fit into memory.

use std::fs;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Left to the host, and to QEMU beside the guest's memory.
const HOST_MIB: u32 = 1024;
const QEMU_MIB: u32 = 128;

pub struct Slots {
    machines: Semaphore,
    memory: Semaphore,
    memory_mib: u32,
}

/// Held by a machine while it runs.
pub struct Slot<'a> {
    _machine: SemaphorePermit<'a>,
    _memory: SemaphorePermit<'a>,
}

impl Slots {
    /// `jobs` machines at once, or one a core.
    pub fn new(jobs: Option<usize>) -> Result<Self> {
        let cores = available_parallelism().map_or(1, usize::from);
        let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let memory = available_mib(&memory).context("no MemAvailable in /proc/meminfo")?;
        Ok(Self::with(
            jobs.unwrap_or(cores),
            memory.saturating_sub(HOST_MIB),
        ))
    }

    fn with(jobs: usize, memory_mib: u32) -> Self {
        Self {
            machines: Semaphore::new(jobs.max(1)),
            memory: Semaphore::new(memory_mib as usize),
            memory_mib,
        }
    }

    /// Waits, first come first served, until a machine of this size fits. One that never fits alone
    /// takes everything: the host may still manage.
    pub async fn take(&self, memory_mib: u32) -> Slot<'_> {
        let wanted = (memory_mib + QEMU_MIB).min(self.memory_mib);
        Slot {
            _machine: self.machines.acquire().await.expect("never closed"),
            _memory: self
                .memory
                .acquire_many(wanted)
                .await
                .expect("never closed"),
        }
    }
}

fn available_mib(meminfo: &str) -> Option<u32> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    u32::try_from(kib / 1024).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn meminfo() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:   20480000 kB\n";
        assert_eq!(available_mib(text), Some(20000));
        assert_eq!(available_mib(""), None);
    }

    #[test]
    fn memory_and_jobs_bound_the_machines() {
        let slots = Slots::with(2, 1500);
        let first = slots.take(1024).now_or_never().unwrap();
        assert!(slots.take(512).now_or_never().is_none(), "no memory");
        drop(first);
        let _two = [slots.take(512), slots.take(512)].map(|slot| slot.now_or_never().unwrap());
        assert!(slots.take(1).now_or_never().is_none(), "no job");
    }

    #[test]
    fn a_machine_too_large_runs_alone() {
        let slots = Slots::with(2, 256);
        assert!(slots.take(1024).now_or_never().is_some());
    }
}
