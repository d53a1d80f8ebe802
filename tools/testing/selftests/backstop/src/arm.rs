// SPDX-License-Identifier: GPL-2.0
//! The moment between preparation and event, told to the host when it has a part in what follows.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};

use crate::catalogue::Test;
use crate::expectation::{End, Event};

/// What a test says when everything is set up and the event may come.
pub struct Armed {
    name: Option<String>,
}

impl Armed {
    /// The host waits for the word when the machine will end or an NMI is due.
    pub fn new(test: &Test) -> Self {
        let told = test.expectation.end != End::Return || test.expectation.event == Event::Nmi;
        Self {
            name: told.then(|| test.name.clone()),
        }
    }

    /// Nothing may fail from here on but what is tested.
    pub fn announce(&self) -> Result<()> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let mut out = io::stdout().lock();
        writeln!(out, "# armed {name}")
            .and_then(|()| out.flush())
            .context("writing '# armed'")?;
        if out.is_terminal() {
            // The line has left a serial port before the machine ends.
            rustix::termios::tcdrain(&out).context("draining the terminal")?;
        }
        Ok(())
    }
}
