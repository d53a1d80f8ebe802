// SPDX-License-Identifier: GPL-2.0
//! Watches how runs are ended that take too long.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libbpf_rs::{Link, Object as LoadedObject};

use crate::catalogue::object;
use crate::loaded::{program, program_id, stderr};
use crate::loader;
use crate::section::Section;
use crate::wait::wait_until;

/// By how much a run may outlive its deadline.
pub const LATE: Duration = Duration::from_millis(10);

/// Watches as long as it lives.
pub struct Watch {
    object: LoadedObject,
    _link: Link,
}

/// struct seen of progs/deadline/watch.bpf.c
pub struct Seen {
    pub runs: u64,
    pub deadline: Duration,
    pub spent: Duration,
    pub late: Duration,
    pub cpus: u64,
    pub stopped: u64,
    pub prog_id: u32,
}

impl Seen {
    /// No run has outlived its deadline by much.
    pub fn check_late(&self) -> Result<()> {
        ensure!(
            self.late <= LATE,
            "a run outlived its deadline of {:?} by {:?}",
            self.deadline,
            self.late
        );
        Ok(())
    }
}

impl Watch {
    pub fn open() -> Result<Self> {
        let object = loader::load(object("deadline", "watch")?, &["watch"])??;
        let link = program(&object, "watch")?.attach()?;
        Ok(Self {
            object,
            _link: link,
        })
    }

    pub fn seen(&self) -> Result<Seen> {
        let [runs, deadline, spent, late, cpus, stopped, ids] =
            Section::of(&self.object, ".data.seen")?.words()?;
        Ok(Seen {
            runs,
            deadline: Duration::from_nanos(deadline),
            spent: Duration::from_nanos(spent),
            late: Duration::from_nanos(late),
            cpus,
            stopped,
            prog_id: ids as u32,
        })
    }

    /// So many runs at least of one of the programs were ended for their deadline, all of them soon
    /// after it, and the program's stream says so.
    pub fn check(&self, loaded: &LoadedObject, names: &[&str], runs: usize) -> Result<()> {
        // What is called back later may be ended later.
        wait_until(
            &format!("not {runs} runs were ended for their deadline"),
            || Ok(self.seen()?.runs >= runs as u64),
        )?;
        let seen = self.seen()?;
        ensure!(
            seen.stopped == 0,
            "{} runs were ended because the program was stopped",
            seen.stopped
        );
        seen.check_late()?;
        let mut ended = None;
        for name in names {
            if program_id(loaded, name)? == seen.prog_id {
                ended = Some(name);
            }
        }
        let name = ended.with_context(|| format!("program {} was ended", seen.prog_id))?;
        let text = stderr(loaded, name)?;
        ensure!(
            text.contains("ERROR: Deadline exceeded"),
            "the stream says:\n{text}"
        );
        Ok(())
    }
}
