// SPDX-License-Identifier: GPL-2.0
//! Waits for what nothing tells of.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::perform::DEADLINE;

/// `otherwise` is what is wrong if it does not come.
pub fn wait_until(otherwise: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{otherwise}");
        sleep(Duration::from_millis(1));
    }
    Ok(())
}
