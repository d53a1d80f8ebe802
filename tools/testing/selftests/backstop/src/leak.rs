// SPDX-License-Identifier: GPL-2.0
//! Memory of the kernel that nothing points to any more, where the kernel looks for it: kmemleak.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::console::say;

const FILE: &str = "/sys/kernel/debug/kmemleak";
/// The kernel does not call younger memory leaked: a pointer to it may be on its way.
const AGE: Duration = Duration::from_secs(6);
/// The first line of each leak.
const HEAD: &str = "unreferenced ";

/// Whether the kernel looks for them.
pub fn can_be_found() -> bool {
    Path::new(FILE).exists()
}

/// Says on the console what has leaked, as if during the test that ran when it was allocated.
/// `started` has the process of each test in the order in which they ran.
pub fn report(started: &[(u32, &str)]) -> Result<()> {
    if !can_be_found() {
        return Ok(());
    }
    scan()?;
    // What the first scan finds must be found again, and unchanged.
    sleep(AGE);
    scan()?;
    let text = fs::read_to_string(FILE).context(FILE)?;
    for leak in leaks(&text) {
        let test = process(leak).and_then(|process| test_of(process, started));
        if let Some(test) = test {
            say(&format!("begin {test}"))?;
        }
        say("BUG: memory leak")?;
        for line in leak.lines() {
            say(line)?;
        }
        if let Some(test) = test {
            say(&format!("end {test}"))?;
        }
    }
    Ok(())
}

fn scan() -> Result<()> {
    fs::write(FILE, "scan").context(FILE)
}

fn leaks(text: &str) -> impl Iterator<Item = &str> {
    let heads = text.match_indices(HEAD).map(|(start, _)| start);
    let starts: Vec<_> = heads
        .filter(|&start| start == 0 || text.as_bytes()[start - 1] == b'\n')
        .chain([text.len()])
        .collect();
    let ranges: Vec<_> = starts.windows(2).map(|pair| pair[0]..pair[1]).collect();
    ranges.into_iter().map(|range| &text[range])
}

/// The one that had it allocated, as in: comm "name", pid 80, jiffies 4294694839
fn process(leak: &str) -> Option<u32> {
    let (_, after) = leak.split_once("\", pid ")?;
    after.split(',').next()?.parse().ok()
}

/// Ids ascend: threads of a test, and what the kernel starts for it, have one between its own and
/// the next test's.
fn test_of<'a>(process: u32, started: &[(u32, &'a str)]) -> Option<&'a str> {
    let after = started.partition_point(|(first, _)| *first <= process);
    started[..after].last().map(|(_, test)| *test)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "unreferenced object 0xffff8881 (size 32):
  comm \"backstop_selfte\", pid 80, jiffies 4294694839
  hex dump (first 4 bytes):
    00 00 00 00
  backtrace (crc 0):
    kmalloc+1
unreferenced percpu object 0x6000 (size 8):
  comm \"swapper/0\", pid 1, jiffies 4294694839
";

    #[test]
    fn leaks_are_told_apart() {
        let processes: Vec<_> = leaks(TEXT).map(process).collect();
        assert_eq!(processes, [Some(80), Some(1)]);
        assert_eq!(
            leaks(TEXT).map(|leak| leak.lines().count()).sum::<usize>(),
            8
        );
        assert_eq!(leaks("").count(), 0);
    }

    #[test]
    fn a_leak_is_the_test_s_that_ran() {
        let started = [(80, "a"), (90, "b")];
        let test = |process| test_of(process, &started);
        assert_eq!(
            [test(1), test(80), test(85), test(90)],
            [None, Some("a"), Some("a"), Some("b")]
        );
        assert_eq!(test(1000), Some("b"));
    }
}
