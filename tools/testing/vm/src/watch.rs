//! Watches one machine from outside until it ends, and says how it ended.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use qapi::qmp::{RunState, ShutdownCause};
use tokio::time::{Instant, sleep_until};

use crate::fuzz;
use crate::outcome::Ending;
use crate::qemu::{Event, Guest, Machine};
use crate::qmp::{all_halted, cause_name};
use crate::test_progs;
use crate::vmcore;

/// How long a guest may go without getting on.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From power-on to the first word of user space.
    pub boot: Duration,
    /// From one result to the next, and from the trigger to the end.
    pub test: Duration,
    /// From the trigger to the end, when a crash kernel boots and saves a dump in between.
    pub dump: Duration,
}

/// What the watcher does beside watching.
#[derive(Clone, Debug)]
pub struct Orders {
    pub deadlines: Deadlines,
    /// Injects an NMI whenever the guest says that it is armed for one.
    pub nmi: bool,
    /// Looks, once the guest is armed, whether all CPUs have halted.
    pub halt: bool,
    /// Where a crash kernel saves its dump.
    pub dump: Option<PathBuf>,
    /// What it does when the guest says that it is ready.
    pub ready: Option<Ready>,
}

/// What becomes of a guest that is ready.
#[derive(Clone, Debug)]
pub enum Ready {
    /// It is told this line.
    Tell(String),
    /// Its machine is saved to this file, and ends.
    Save(PathBuf),
}

impl Orders {
    pub fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            nmi: false,
            halt: false,
            dump: None,
            ready: None,
        }
    }
}

/// Everything that was seen of a machine.
pub struct Record {
    pub ending: Ending,
    pub console: Vec<String>,
    pub channel: Vec<String>,
    pub took: Duration,
    pub logs: PathBuf,
}

/// Why the watcher stopped waiting.
enum Stop {
    Shutdown(ShutdownCause),
    Panic,
    Halted,
    Saved,
    Late(String),
    Vmm(String),
}

/// What a guest says that waits to be told what to do.
const READY: &str = "# ready";
/// Of a test that takes long, see the guest's run.rs.
const GOES_ON: &str = "# goes on, ";
const PANIC_END: &str = "---[ end Kernel panic";
/// From pvpanic's event to that last line of the panic.
const PANIC_TEXT: Duration = Duration::from_secs(20);
/// From the word to quit to the end of QEMU.
const QUIT: Duration = Duration::from_secs(20);

/// The deadline that runs, and what it runs since.
struct Clock {
    deadline: Instant,
    allowed: Duration,
    since: String,
}

impl Clock {
    fn start(allowed: Duration, since: impl Into<String>) -> Self {
        Self {
            deadline: Instant::now() + allowed,
            allowed,
            since: since.into(),
        }
    }
}

/// Looks for a halt: no event tells of one. The machine must be found halted and silent several times
/// in a row, far enough apart for one that only pauses to show itself.
#[derive(Default)]
struct Look {
    next: Option<Instant>,
    found: u32,
    lines: usize,
}

impl Look {
    const EVERY: Duration = Duration::from_millis(300);
    const TIMES: u32 = 3;

    fn again(&mut self) {
        self.next = Some(Instant::now() + Self::EVERY);
    }

    /// Whether this look settles it, at a console of so many lines.
    fn settles(&mut self, halted: bool, lines: usize) -> bool {
        let silent = std::mem::replace(&mut self.lines, lines) == lines;
        self.found = if halted && silent { self.found + 1 } else { 0 };
        self.again();
        self.found == Self::TIMES
    }
}

struct Watch<'a> {
    orders: &'a Orders,
    observer: &'a mut dyn FnMut(&Event),
    console: Vec<String>,
    channel: Vec<String>,
    panicked: bool,
}

/// Starts a machine and watches it to its end.
pub async fn run(machine: &Machine, orders: &Orders) -> Result<Record> {
    run_observed(machine, orders, &mut |_| ()).await
}

/// The same, with every event shown to `observer` as it comes.
pub async fn run_observed(
    machine: &Machine,
    orders: &Orders,
    observer: &mut dyn FnMut(&Event),
) -> Result<Record> {
    let started = Instant::now();
    let mut guest = machine.start().await?;
    let mut watch = Watch {
        orders,
        observer,
        console: Vec::new(),
        channel: Vec::new(),
        panicked: false,
    };
    let stop = match watch.until_stop(&mut guest).await {
        Ok(Stop::Late(what)) => look_closer(&guest, machine, what).await,
        stop => stop,
    };
    let stop = stop.unwrap_or_else(|error| Stop::Vmm(error.to_string()));
    watch.drain(&mut guest).await?;
    Ok(Record {
        ending: watch.ending(stop),
        console: watch.console,
        channel: watch.channel,
        took: started.elapsed(),
        logs: machine.logs.clone(),
    })
}

/// A machine that is late: keeps the registers, and tells a halt from a hang.
async fn look_closer(guest: &Guest, machine: &Machine, what: String) -> io::Result<Stop> {
    let registers = guest.qmp()?.registers().await?;
    fs::write(machine.logs.join("registers.log"), &registers)?;
    Ok(match all_halted(&registers) {
        true => Stop::Halted,
        false => Stop::Late(what),
    })
}

impl Watch<'_> {
    /// Keeps what came. Lines of different streams may come in another order than the guest's.
    fn keep(&mut self, event: &Event) {
        (self.observer)(event);
        match event {
            Event::Console(line) => self.console.push(line.clone()),
            Event::Channel(line) => self.channel.push(line.clone()),
            Event::Panicked => self.panicked = true,
            _ => (),
        }
    }

    async fn until_stop(&mut self, guest: &mut Guest) -> io::Result<Stop> {
        let deadlines = self.orders.deadlines;
        let mut clock = Clock::start(deadlines.boot, "power-on");
        let mut look = Look::default();
        guest.go_on().await?;
        loop {
            let event = tokio::select! {
                event = guest.next() => event?,
                () = sleep_until(clock.deadline) => {
                    let Clock { allowed, since, .. } = clock;
                    let late = format!("nothing for {} s after {since}", allowed.as_secs());
                    return Ok(if self.panicked { Stop::Panic } else { Stop::Late(late) });
                }
                () = sleep_until(look.next.unwrap_or(clock.deadline)), if look.next.is_some() => {
                    let halted = all_halted(&guest.qmp()?.registers().await?);
                    if look.settles(halted, self.console.len()) {
                        return Ok(Stop::Halted);
                    }
                    continue;
                }
            };
            self.keep(&event);
            match event {
                Event::Console(line) if line.contains(PANIC_END) => return Ok(Stop::Panic),
                Event::Console(_) => (),
                Event::Channel(line) if line.trim_start().starts_with("# armed ") => {
                    let dumps = self.orders.dump.is_some();
                    let allowed = if dumps {
                        deadlines.dump
                    } else {
                        deadlines.test
                    };
                    clock = Clock::start(allowed, format!("'{line}'"));
                    if self.orders.nmi {
                        guest.qmp()?.inject_nmi().await?;
                    }
                    if self.orders.halt {
                        look.again();
                    }
                }
                Event::Channel(line) if is_progress(&line) => {
                    clock = Clock::start(deadlines.test, format!("'{line}'"));
                    match &self.orders.ready {
                        Some(Ready::Tell(command)) if line == READY => guest.tell(command).await?,
                        Some(Ready::Save(file)) if line == READY => {
                            guest.qmp()?.save(file).await?;
                            return Ok(Stop::Saved);
                        }
                        _ => (),
                    }
                }
                Event::Channel(_) => (),
                Event::Panicked => clock = Clock::start(PANIC_TEXT, "the panic"),
                Event::Shutdown(cause) => return Ok(Stop::Shutdown(cause)),
                Event::Stopped => {
                    if guest.qmp()?.run_state().await? == RunState::internal_error {
                        return Ok(Stop::Vmm(format!("internal error; {}", guest.errors())));
                    }
                }
                Event::Exited(status) => {
                    return Ok(Stop::Vmm(format!("QEMU: {status}; {}", guest.errors())));
                }
            }
        }
    }

    /// Ends QEMU and keeps what it still had to say.
    async fn drain(&mut self, guest: &mut Guest) -> io::Result<()> {
        guest.quit().await;
        let deadline = Instant::now() + QUIT;
        loop {
            let event = tokio::select! {
                event = guest.next() => event?,
                () = sleep_until(deadline) => {
                    guest.kill();
                    guest.next().await?
                }
            };
            self.keep(&event);
            if let Event::Exited(_) = event {
                return Ok(());
            }
        }
    }

    fn ending(&self, stop: Stop) -> Ending {
        let panic = self.console.iter().find_map(|line| {
            let (_, message) = line.split_once("Kernel panic - not syncing: ")?;
            Some(message.to_owned())
        });
        match stop {
            Stop::Vmm(what) => Ending::VmmError(what),
            Stop::Panic => Ending::Panic {
                reported: self.panicked,
                message: panic,
            },
            _ if self.panicked => Ending::Panic {
                reported: true,
                message: panic,
            },
            Stop::Halted => Ending::Halt,
            Stop::Saved => Ending::Saved,
            Stop::Late(what) => Ending::Hang(what),
            Stop::Shutdown(ShutdownCause::guest_reset) => self.finished().unwrap_or(Ending::Reset),
            Stop::Shutdown(ShutdownCause::guest_shutdown) => self.power_off(),
            Stop::Shutdown(cause) => {
                Ending::VmmError(format!("shut down by {}", cause_name(cause)))
            }
        }
    }

    /// Three kinds of guests power off: one whose command ended, a crash kernel, and one made to.
    fn power_off(&self) -> Ending {
        let dump = self.orders.dump.as_ref().map(|share| share.join("vmcore"));
        if let Some(dump) = dump.filter(|dump| dump.exists()) {
            return match vmcore::read(&dump).with_context(|| format!("{}", dump.display())) {
                Ok(dump) => Ending::CrashDump(dump),
                Err(error) => Ending::BadDump(format!("{error:#}")),
            };
        }
        self.finished().unwrap_or(Ending::PowerOff)
    }

    /// The end of the command, which /init has told before it stops the machine.
    fn finished(&self) -> Option<Ending> {
        let mut lines = self.channel.iter().rev();
        let status = lines.find_map(|line| line.strip_prefix("# exit "))?;
        let status = status.parse().ok()?;
        Some(Ending::Finished { status })
    }
}

/// Lines by which the guest shows that it gets on.
fn is_progress(line: &str) -> bool {
    let line = line.trim_start();
    line == "# boot"
        || line == READY
        || ["ok ", "not ok ", GOES_ON, test_progs::END]
            .iter()
            .chain(&fuzz::PROGRESS)
            .any(|start| line.starts_with(start))
}

/// Lines of /init itself, which are no output of the command.
pub fn is_init_line(line: &str) -> bool {
    line == "# boot" || line.starts_with("# exit ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(found: &[(bool, usize)]) -> Vec<bool> {
        let mut look = Look::default();
        let settles = |&(halted, lines): &(bool, usize)| look.settles(halted, lines);
        found.iter().map(settles).collect()
    }

    #[test]
    fn a_halt_is_seen_several_times() {
        let found = [(true, 7), (true, 7), (true, 7), (true, 7)];
        assert_eq!(looks(&found), [false, false, false, true]);
    }

    #[test]
    fn a_word_or_a_running_cpu_starts_it_anew() {
        let found = [
            (true, 0),
            (true, 0),
            (true, 1),
            (true, 1),
            (true, 1),
            (true, 1),
        ];
        assert_eq!(looks(&found)[2..], [false, false, false, true]);
        let found = [(true, 0), (true, 0), (false, 0), (true, 0), (true, 0)];
        assert!(!looks(&found).contains(&true));
    }

    #[test]
    fn a_long_test_gets_on() {
        assert!(is_progress("# goes on, with program 3"));
        assert!(is_progress("ok 1 unwind/fuzz_1"));
        assert!(!is_progress("# program 3 was refused"));
    }
}
