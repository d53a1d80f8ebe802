// SPDX-License-Identifier: GPL-2.0
//! Threads that have a CPU of their own.

use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Those of a test machine.
pub const CPUS: [usize; 2] = [0, 1];

/// Keeps this thread on a CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).context("moving to a CPU of its own")
}

/// Does something on both CPUs at once.
pub fn on_both_cpus(work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let go = Barrier::new(CPUS.len());
    thread::scope(|scope| {
        let threads = CPUS.map(|cpu| {
            let (go, work) = (&go, &work);
            scope.spawn(move || {
                let there = stay_on(cpu);
                go.wait();
                there.and_then(|()| work(cpu))
            })
        });
        threads.into_iter().try_for_each(|thread| {
            let ended = thread.join();
            ended.map_err(|_| anyhow!("a thread panicked"))?
        })
    })
}
