// SPDX-License-Identifier: GPL-2.0
//! The kernel log: markers for whoever reads the console, and what was said since a moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use regex::{Captures, Regex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::catalogue::Test;

const KMSG: &str = "/dev/kmsg";
/// Notice: shown on consoles that show warnings of ordinary importance.
const NOTICE: &str = "<5>";

/// One line on the console, as from the kernel.
pub fn say(text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .open(KMSG)
        .and_then(|mut kmsg| {
            kmsg.write_all(format!("{NOTICE}backstop_selftests: {text}\n").as_bytes())
        })
        .context("writing to /dev/kmsg")
}

/// Markers come often; the kernel must not count them as a flood.
pub fn lift_rate_limit() -> Result<()> {
    let limit = "/proc/sys/kernel/printk_devkmsg";
    fs::write(limit, "on\n").with_context(|| format!("writing {limit}"))
}

/// A time in which the consoles show emergencies only.
pub struct Quiet {
    before: String,
}

impl Quiet {
    const LEVELS: &str = "/proc/sys/kernel/printk";

    pub fn enter() -> Result<Self> {
        let before = fs::read_to_string(Self::LEVELS).context(Self::LEVELS)?;
        fs::write(Self::LEVELS, "1").context(Self::LEVELS)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::LEVELS, &self.before) {
            println!("{} is not as it was: {error}", Self::LEVELS);
        }
    }
}

/// What the kernel says from a moment on.
pub struct Console {
    kmsg: File,
    lines: Vec<String>,
}

impl Console {
    pub fn from_now() -> Result<Self> {
        let mut kmsg = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(KMSG)
            .context("opening /dev/kmsg")?;
        kmsg.seek(SeekFrom::End(0))
            .context("going to the end of /dev/kmsg")?;
        Ok(Self {
            kmsg,
            lines: Vec::new(),
        })
    }

    /// Waits for the test's lines, in order, then sees that no forbidden one was said.
    pub fn expect(&mut self, test: &Test, deadline: Instant) -> Result<()> {
        let mut from = 0;
        for pattern in test.console() {
            from = self.wait_for(&Regex::new(&pattern)?, from, deadline)? + 1;
        }
        self.read_available()?;
        for pattern in &test.expectation.not_console {
            if let Some(line) = self
                .lines
                .iter()
                .find(|line| pattern.regex().is_match(line))
            {
                bail!(
                    "the console has a line it must not have\n  line: {line}\n  pattern: {pattern}"
                );
            }
        }
        Ok(())
    }

    /// The named parts of the first line that matches.
    pub fn find<'a>(&'a self, regex: &Regex) -> Option<Captures<'a>> {
        self.lines.iter().find_map(|line| regex.captures(line))
    }

    /// The number of the first line from `from` on that matches, as soon as it is there.
    pub fn wait_for(&mut self, regex: &Regex, from: usize, deadline: Instant) -> Result<usize> {
        let mut seen = from;
        loop {
            self.read_available()?;
            if let Some(found) = self.lines[seen..]
                .iter()
                .position(|line| regex.is_match(line))
            {
                return Ok(seen + found);
            }
            seen = self.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "the console lacks a line\n  pattern: {regex}\nit has\n  {}",
                    self.lines.join("\n  ")
                );
            }
            let left = Timespec::try_from(left).context("deadline too far away")?;
            poll(&mut [PollFd::new(&self.kmsg, PollFlags::IN)], Some(&left))
                .context("polling /dev/kmsg")?;
        }
    }

    fn read_available(&mut self) -> Result<()> {
        // One read gives one record; this is the longest the kernel gives.
        let mut record = [0; 8192];
        loop {
            match self.kmsg.read(&mut record) {
                Ok(length) => {
                    if let Some(line) = line_of(&String::from_utf8_lossy(&record[..length])) {
                        self.lines.push(line);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Records were overwritten before they were read; reading goes on after the gap.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => (),
                Err(error) => {
                    return Err(io::Error::new(error.kind(), error)).context("reading /dev/kmsg");
                }
            }
        }
    }
}

/// The text of a record "priority,number,time,flags;text\n KEY=value\n".
fn line_of(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    Some(text.lines().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_give_their_text() {
        let record = "5,339,5140900,-;a; b\n SUBSYSTEM=x\n";
        assert_eq!(line_of(record), Some("a; b".to_owned()));
        assert_eq!(line_of("garbage"), None);
    }
}
