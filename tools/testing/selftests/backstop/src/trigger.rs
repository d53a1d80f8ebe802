// SPDX-License-Identifier: GPL-2.0
//! Attaches a program and makes the event happen that it waits for, see progs/trigger.h.

use std::fs::File;
use std::io::Read;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys::{self, perf_event_attr};
use libbpf_rs::{Iter, Link, Object, ProgramMut, ProgramType};
use rustix::process::getpid;

use crate::console;
use crate::expectation::Event;
use crate::section::Section;

/// The switch between an attached program and its event.
pub struct Trigger {
    state: Section,
}

/// struct trigger
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub cocked: u32,
    pub tgid: u32,
    pub fired: u32,
    pub retval: i32,
}

impl State {
    const SIZE: usize = 4 * size_of::<u32>();

    fn to_bytes(self) -> Vec<u8> {
        let words = [self.cocked, self.tgid, self.fired, self.retval as u32];
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let word = |index: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[index * 4..][..4]);
            u32::from_ne_bytes(word)
        };
        Some(Self {
            cocked: word(0),
            tgid: word(1),
            fired: word(2),
            retval: word(3) as i32,
        })
    }
}

impl Trigger {
    pub fn of(object: &Object) -> Result<Self> {
        let state = Section::of(object, ".data.trigger").context("include trigger.h")?;
        Ok(Self { state })
    }

    /// From now on the next event that fits is taken.
    pub fn cock(&self, event: Event) -> Result<()> {
        let tgid = match event {
            // The console's thread is a process of its own.
            Event::Printk => 0,
            _ => std::process::id(),
        };
        let state = State {
            cocked: 1,
            tgid,
            ..State::default()
        };
        self.state
            .write(&state.to_bytes())
            .context("cocking the trigger")
    }

    pub fn state(&self) -> Result<State> {
        State::from_bytes(&self.state.read()?).context("the trigger has another size")
    }

    /// What the kfunc returned, after the event.
    pub fn wait(&self, attached: &Attached, event: Event, deadline: Instant) -> Result<i32> {
        loop {
            let state = self.state()?;
            if state.fired != 0 {
                return Ok(state.retval);
            }
            if Instant::now() >= deadline {
                match state.cocked {
                    0 => bail!("the program took its event and did not return from the call"),
                    _ => bail!("the program did not run: no {event:?} event came in its context"),
                }
            }
            attached.make(event)?;
        }
    }
}

/// An attached program; it is detached with this.
pub struct Attached {
    link: Link,
    _event: Option<OwnedFd>,
}

impl Attached {
    pub fn new(program: &ProgramMut<'_>) -> Result<Self> {
        if program.prog_type() == ProgramType::PerfEvent {
            let event = cpu_clock()?;
            let link = program
                .attach_perf_event(event.as_raw_fd())
                .context("attaching")?;
            return Ok(Self {
                link,
                _event: Some(event),
            });
        }
        Ok(Self {
            link: program.attach().context("attaching")?,
            _event: None,
        })
    }

    /// Lets the event happen once, or time pass in which it may.
    pub fn make(&self, event: Event) -> Result<()> {
        match event {
            Event::Syscall => {
                rustix::process::getpgid(Some(getpid())).context("getpgid")?;
                File::open("/dev/null").context("opening /dev/null")?;
            }
            // The expiry of this very sleep is the event, or the call is about to return.
            Event::Timer | Event::Nmi => sleep(Duration::from_millis(1)),
            Event::Printk => {
                console::say("something to print")?;
                sleep(Duration::from_millis(1));
            }
            Event::Iter => {
                let mut text = Vec::new();
                Iter::new(&self.link)?
                    .read_to_end(&mut text)
                    .context("reading the iterator")?;
            }
            Event::TestRun | Event::None => (),
        }
        Ok(())
    }
}

/// A software event on CPU 0 that overflows in the timer interrupt.
fn cpu_clock() -> Result<OwnedFd> {
    let mut attr = perf_event_attr {
        type_: libbpf_sys::PERF_TYPE_SOFTWARE,
        size: size_of::<perf_event_attr>() as u32,
        config: u64::from(libbpf_sys::PERF_COUNT_SW_CPU_CLOCK),
        ..perf_event_attr::default()
    };
    attr.__bindgen_anon_1.sample_period = 1_000_000;
    // SAFETY: `attr` is a whole perf_event_attr of the size it names, and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &attr,
            -1,
            0,
            -1,
            libbpf_sys::PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("perf_event_open");
    }
    // SAFETY: the kernel gave this descriptor to us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_the_same_in_bytes() {
        let state = State {
            cocked: 1,
            tgid: 2,
            fired: 3,
            retval: -22,
        };
        assert_eq!(State::from_bytes(&state.to_bytes()), Some(state));
        assert_eq!(State::from_bytes(&[0; 3]), None);
    }
}
