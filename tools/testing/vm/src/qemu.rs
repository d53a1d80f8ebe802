//! A virtual machine: its description, QEMU's command line for it, and the process that runs it.
//!
//! Console, channel and monitor are pipes and sockets whose other ends QEMU inherits: nothing lies on
//! disk but the logs, and all three end when QEMU does. QEMU has its own process group, is killed when
//! the [`Guest`] is dropped, and dies with the thread that started it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Cursor};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use qapi::qmp::ShutdownCause;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedWriteHalf, pipe};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::accelerator::Accelerator;
use crate::qmp::Qmp;
use crate::saved::Saved;

const QEMU: &str = "qemu-system-x86_64";

/// What every guest kernel is told: its console, to stay where it panicked, and to take the timer for good:
/// on a busy host it panics because the timer is late.
pub const APPEND: &str = "console=ttyS0 earlyprintk=ttyS0 loglevel=8 panic=0 no_timer_check";
/// What it is told when /init finds its command in the channel.
const CHANNEL_WORD: &str = "channel=1";

/// A directory of the host in the guest, by 9p.
#[derive(Clone)]
pub struct Share {
    pub tag: &'static str,
    pub directory: PathBuf,
    pub writable: bool,
}

/// The description of a machine.
#[derive(Clone)]
pub struct Machine {
    pub accelerator: Accelerator,
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    /// Added to the kernel's command line.
    pub append: String,
    pub memory_mib: u32,
    pub cpus: u32,
    /// A shell script for /init; without it there is a shell on the console.
    pub command: Option<String>,
    pub shares: Vec<Share>,
    /// Guest time counts guest instructions: one CPU, TCG only.
    pub icount: bool,
    /// Goes on from here instead of booting.
    pub saved: Option<Saved>,
    /// Where console.log, channel.log and qemu.log go.
    pub logs: PathBuf,
}

/// What comes from a running machine, in the order in which it came.
#[derive(Debug)]
pub enum Event {
    /// A line of the kernel's console.
    Console(String),
    /// A line of the guest's channel.
    Channel(String),
    Panicked,
    Shutdown(ShutdownCause),
    /// QEMU stopped the CPUs, on an error of its own or after a shutdown.
    Stopped,
    /// QEMU ended; nothing comes after this.
    Exited(ExitStatus),
}

/// What a machine said, beneath its logs.
pub const CONSOLE_LOG: &str = "console.log";
pub const CHANNEL_LOG: &str = "channel.log";

/// File descriptors of QEMU's ends.
const CONSOLE: i32 = 3;
const CHANNEL: i32 = 4;
const MONITOR: i32 = 5;

impl Machine {
    /// The part of the command line that describes the machine itself.
    fn machine_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: OsString| args.extend([option.into(), value]);
        add("-machine", "q35".into());
        for (option, value) in self.accelerator.qemu_args(self.icount) {
            add(option, value.into());
        }
        add("-smp", self.cpus.to_string().into());
        add("-m", format!("{}M", self.memory_mib).into());
        add("-kernel", self.kernel.clone().into());
        if let Some(initrd) = &self.initrd {
            add("-initrd", initrd.clone().into());
        }
        let mut append = APPEND.to_owned();
        let channel = self.command.is_some().then_some(CHANNEL_WORD);
        for words in channel.into_iter().chain([self.append.trim()]) {
            append.extend([" ", words]);
        }
        add("-append", append.trim_end().into());
        add("-device", "pvpanic-pci".into());
        for Share {
            tag,
            directory,
            writable,
        } in &self.shares
        {
            let mut fsdev = OsString::from(format!("local,id={tag},security_model=none,path="));
            fsdev.push(escape(directory));
            if !writable {
                fsdev.push(",readonly=on");
            }
            add("-fsdev", fsdev);
            add(
                "-device",
                format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}").into(),
            );
        }
        args
    }

    /// What a saved state of it depends on beside the files it boots from.
    pub fn configuration(&self) -> String {
        let shares: Vec<_> = self.shares.iter().map(|share| share.tag).collect();
        format!(
            "{} {} MiB, {} CPUs, shares {}: {}: {}",
            self.accelerator.name(),
            self.memory_mib,
            self.cpus,
            shares.join(" "),
            self.append,
            self.command.as_deref().unwrap_or_default(),
        )
    }

    /// A command with what every machine has in common, and the log directory made anew.
    fn qemu(&self) -> Result<Command> {
        let failed = || format!("cannot write {}", self.logs.display());
        if self.logs.exists() {
            fs::remove_dir_all(&self.logs).with_context(failed)?;
        }
        fs::create_dir_all(&self.logs).with_context(failed)?;
        let mut qemu = Command::new(QEMU);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
            // The host sees a reset, keeps the machine after a shutdown, and lets a panic go on.
            .args(["-action", "reboot=shutdown,shutdown=pause,panic=none"])
            .args(self.machine_args())
            .kill_on_drop(true);
        // SAFETY: prctl(PR_SET_PDEATHSIG) is a plain system call: it neither allocates nor locks, as is
        // required between fork and exec.
        unsafe {
            qemu.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        Ok(qemu)
    }

    /// Starts the machine, to be watched.
    pub async fn start(&self) -> Result<Guest> {
        let mut qemu = self.qemu()?;
        let (console, console_fd) = console_pipe()?;
        let (channel, channel_fd) = socket_pair(CHANNEL)?;
        let (monitor, monitor_fd) = socket_pair(MONITOR)?;
        // What a saved machine had said before it was saved comes first, as if it said it now.
        let (console_log, channel_log) = (self.logs.join(CONSOLE_LOG), self.logs.join(CHANNEL_LOG));
        let (mut console_said, mut channel_said) = (Vec::new(), Vec::new());
        if let Some(saved) = &self.saved {
            (console_said, channel_said) = saved.said()?;
            fs::write(&console_log, &console_said)?;
            fs::write(&channel_log, &channel_said)?;
            qemu.args(["-incoming", "defer"]);
        }
        let logged = |chardev: String, log: &Path| {
            let mut chardev = OsString::from(chardev + ",logappend=on,logfile=");
            chardev.push(escape(log));
            chardev
        };
        let errors = self.logs.join("qemu.log");
        qemu.arg("-chardev")
            .arg(logged(
                format!("file,id=console,path=/dev/fd/{CONSOLE}"),
                &console_log,
            ))
            .args([
                "-serial",
                "chardev:console",
                "-device",
                "virtio-serial-pci",
                "-chardev",
            ])
            .arg(logged(
                format!("socket,id=channel,fd={CHANNEL}"),
                &channel_log,
            ))
            .args([
                "-device",
                "virtserialport,chardev=channel,name=channel",
                "-chardev",
            ])
            .arg(format!("socket,id=monitor,fd={MONITOR}"))
            .args(["-mon", "chardev=monitor,mode=control"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors)?)
            .process_group(0)
            .fd_mappings(vec![console_fd, channel_fd, monitor_fd])?;
        let child = qemu
            .spawn()
            .with_context(|| format!("{QEMU} does not start"))?;
        // Our copies of QEMU's ends: all streams are to end when QEMU does.
        drop(qemu);

        let (sender, events) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let (channel, mut input) = channel.into_split();
        if let (Some(command), None) = (&self.command, &self.saved) {
            // It waits in QEMU's end until the guest reads it.
            input.write_all(one_line(command).as_bytes()).await?;
        }
        let console = Cursor::new(console_said).chain(console);
        let channel = Cursor::new(channel_said).chain(channel);
        tasks.spawn(lines(console, Event::Console, sender.clone()));
        tasks.spawn(lines(channel, Event::Channel, sender.clone()));
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let mut guest = Guest {
            child,
            group,
            qmp: None,
            saved: self.saved.as_ref().map(Saved::memory),
            input,
            events,
            errors,
            _tasks: tasks,
        };
        guest.qmp = match Qmp::open(monitor, sender, &mut guest._tasks).await {
            Ok(qmp) => Some(qmp),
            // A machine whose end nobody tells would be taken for one that hangs.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(error).with_context(|| format!("{QEMU} does not answer"));
            }
            // When QEMU refuses its command line there is no handshake; the guest's end tells why.
            Err(_) => None,
        };
        Ok(guest)
    }

    /// Runs the machine with its console on this terminal, until it ends.
    pub async fn run_on_terminal(&self) -> Result<ExitStatus> {
        let mut console = OsString::from("stdio,id=console,mux=on,signal=off,logfile=");
        console.push(escape(&self.logs.join(CONSOLE_LOG)));
        let mut qemu = self.qemu()?;
        qemu.arg("-chardev")
            .arg(console)
            .args(["-serial", "chardev:console", "-mon", "chardev=console"])
            .args(["-action", "shutdown=poweroff"]);
        let mut child = qemu
            .spawn()
            .with_context(|| format!("{QEMU} does not start"))?;
        Ok(child.wait().await?)
    }
}

/// A running machine. Dropped, it is killed.
pub struct Guest {
    child: Child,
    group: Option<Pid>,
    qmp: Option<Qmp>,
    saved: Option<PathBuf>,
    input: OwnedWriteHalf,
    events: UnboundedReceiver<Event>,
    errors: PathBuf,
    _tasks: JoinSet<()>,
}

impl Guest {
    /// Lets a saved machine go on; others boot by themselves.
    pub async fn go_on(&self) -> io::Result<()> {
        match &self.saved {
            Some(memory) => self.qmp()?.restore(memory).await,
            None => Ok(()),
        }
    }

    /// A line to the guest's channel.
    pub async fn tell(&mut self, line: &str) -> io::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await
    }

    /// What the machine does next.
    pub async fn next(&mut self) -> io::Result<Event> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            // All three streams have ended: nothing of what QEMU wrote is lost.
            None => Ok(Event::Exited(self.child.wait().await?)),
        }
    }

    pub fn qmp(&self) -> io::Result<&Qmp> {
        self.qmp
            .as_ref()
            .ok_or_else(|| io::Error::other("QEMU ended before it could be asked"))
    }

    /// What QEMU itself had to say.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.errors)
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// Ends QEMU, politely unless it does not listen.
    pub async fn quit(&self) {
        let quit = async { self.qmp()?.quit().await };
        if quit.await.is_err() {
            self.kill();
        }
    }

    pub fn kill(&self) {
        if let Some(group) = self.group {
            // An error means that the group is gone, which is what is wanted.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Once waited for, the process has no id any more, and its group may be someone else's.
        if self.child.id().is_some() {
            self.kill();
        }
    }
}

/// The console's pipe: our end, and QEMU's at the descriptor it is told. QEMU's serial port drops
/// characters when its other side lags behind. It writes them one by one, each of which costs a socket
/// a buffer of its own but a pipe a byte, and a pipe can be made larger than what a guest says in the
/// time this process may be busy.
fn console_pipe() -> Result<(pipe::Receiver, FdMapping)> {
    const CAPACITY: i32 = 1 << 20;
    let (sender, receiver) = pipe::pipe().context("no pipe")?;
    let parent_fd = sender.into_blocking_fd()?;
    fcntl(&parent_fd, FcntlArg::F_SETPIPE_SZ(CAPACITY)).context("no large pipe")?;
    Ok((
        receiver,
        FdMapping {
            parent_fd,
            child_fd: CONSOLE,
        },
    ))
}

/// A socket pair: our end, and QEMU's at the descriptor it is told.
fn socket_pair(child_fd: i32) -> Result<(UnixStream, FdMapping)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().context("no socket pair")?;
    ours.set_nonblocking(true)?;
    let parent_fd = OwnedFd::from(theirs);
    Ok((
        UnixStream::from_std(ours)?,
        FdMapping {
            parent_fd,
            child_fd,
        },
    ))
}

/// Sends every line of a stream as an event, until the stream ends.
async fn lines(
    stream: impl AsyncRead + Unpin,
    event: fn(String) -> Event,
    events: UnboundedSender<Event>,
) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    // A stream that breaks has ended, and so has QEMU.
    while stream
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|read| read > 0)
    {
        let text = String::from_utf8_lossy(&line);
        if events
            .send(event(text.trim_end_matches(['\r', '\n']).to_owned()))
            .is_err()
        {
            break;
        }
        line.clear();
    }
}

/// A script as one line, for the guest's printf.
fn one_line(script: &str) -> String {
    script.replace('\\', "\\\\").replace('\n', "\\n") + "\n"
}

/// A path in a QEMU option, where a comma is written twice.
fn escape(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        escaped.push(byte);
        if byte == b',' {
            escaped.push(byte);
        }
    }
    OsString::from_vec(escaped)
}

/// The version of QEMU, for the record.
pub async fn version() -> Result<String> {
    let output = Command::new(QEMU).arg("--version").output().await;
    let output = output.with_context(|| format!("{QEMU} does not run"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next().unwrap_or_default();
    Ok(version
        .trim_start_matches("QEMU emulator version ")
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            accelerator: Accelerator::tcg("as asked"),
            kernel: "bzImage".into(),
            initrd: None,
            append: "crashkernel=256M".into(),
            memory_mib: 512,
            cpus: 2,
            command: None,
            shares: Vec::new(),
            icount: false,
            saved: None,
            logs: "logs".into(),
        }
    }

    fn args(machine: &Machine) -> String {
        let args = machine.machine_args();
        args.iter()
            .map(|arg| arg.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_plain_machine() {
        assert_eq!(
            args(&machine()),
            format!(
                "-machine q35 -accel tcg,thread=multi -cpu max,la57=off -smp 2 -m 512M -kernel bzImage \
                 -append {APPEND} crashkernel=256M -device pvpanic-pci"
            )
        );
    }

    #[test]
    fn counting_instructions_takes_one_thread() {
        let args = args(&Machine {
            icount: true,
            cpus: 1,
            ..machine()
        });
        assert!(args.contains(
            "-accel tcg,thread=single -cpu max,la57=off -icount shift=0,sleep=off -smp 1"
        ));
    }

    #[test]
    fn a_script_becomes_one_line() {
        assert_eq!(one_line("echo 'a\\b'\nexit\n"), "echo 'a\\\\b'\\nexit\\n\n");
    }

    #[test]
    fn shares_are_read_only_unless_asked() {
        let share = |writable| Share {
            tag: "share",
            directory: "a,b".into(),
            writable,
        };
        let with = |writable| {
            args(&Machine {
                shares: vec![share(writable)],
                ..machine()
            })
        };
        assert!(with(false).contains("path=a,,b,readonly=on -device virtio-9p-pci,fsdev=share"));
        assert!(!with(true).contains("readonly"));
    }
}
