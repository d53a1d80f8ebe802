//! `vm shell`: a machine to work in, booted through virtme-ng. Its file system is the one vm runs in,
//! that of the tool root, which it can read; what it writes stays in its memory.

use std::env;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::Common;
use crate::accelerator::Accelerator;
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;

const VNG: &str = "vng";
/// Sourced by the guest's bash: loads modules, sets PATH, greets.
const PROFILE: &str = "tools/testing/vm/guest/profile";
/// virtme-ng's status when the machine ended before the command did.
const DIED: i32 = 255;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Run CMD in the machine's shell; its output and status become those of vm (but 255 becomes 254)
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// Memory in MiB
    #[arg(long, value_name = "N", default_value_t = 1024)]
    memory: u32,
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
}

pub async fn main(options: Options) -> Result<u8> {
    let common = &options.common;
    let kernel = Kernel::open(&common.kernel)?;
    let top = env::current_dir()?;
    let profile = top.join(PROFILE);
    ensure!(
        profile.is_file(),
        "{} is missing: run this at the top of the checkout",
        profile.display()
    );
    ensure!(
        options.exec.is_some() || (io::stdin().is_terminal() && io::stdout().is_terminal()),
        "a shell needs a terminal; --exec runs a command without one"
    );
    let images = Images::make(&kernel, &Initramfs::base()?, &common.log_dir)?;
    let accelerator = common.accelerator(&kernel, &images).await?;
    drop(images);
    eprintln!("accelerator: {}", accelerator.describe());

    let build = top.join(&common.kernel);
    let mut vng = Command::new(VNG);
    vng.args(arguments(&options, &kernel, &accelerator))
        .arg(format!("--append=BACKSTOP_KERNEL={}", build.display()))
        .kill_on_drop(true);
    // SAFETY: prctl(PR_SET_PDEATHSIG) is a plain system call: it neither allocates nor locks, as is
    // required between fork and exec.
    unsafe {
        vng.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
    match &options.exec {
        None => {
            // bash sources it before its first prompt.
            vng.arg(format!("--append=PROMPT_COMMAND='. {}'", profile.display()));
            let mut child = spawn(&mut vng)?;
            Ok(if child.wait().await?.success() { 0 } else { 2 })
        }
        Some(command) => {
            let file = top.join(&common.log_dir).join("shell.command");
            fs::write(&file, command)
                .with_context(|| format!("cannot write {}", file.display()))?;
            vng.arg("--exec").arg(script(&profile, &file));
            execute(&mut vng).await
        }
    }
}

/// virtme-ng's options. Its virtio-fs and its microvm want what few hosts and kernels have.
fn arguments(options: &Options, kernel: &Kernel, accelerator: &Accelerator) -> Vec<String> {
    let mut arguments = vec![
        format!("--run={}", kernel.image.display()),
        "--skip-modules".to_owned(),
        "--force-9p".to_owned(),
        "--disable-microvm".to_owned(),
        format!("--memory={}M", options.memory),
        format!("--cpus={}", options.cpus),
    ];
    if accelerator.name() == "tcg" {
        arguments.push("--disable-kvm".to_owned());
        arguments.push("--qemu-opts=-cpu max".to_owned());
    }
    if options.common.verbose {
        arguments.push("--verbose".to_owned());
    }
    arguments
}

/// What the guest's bash runs: a kernel's command line is too short for any command.
fn script(profile: &Path, command: &Path) -> String {
    let last = DIED - 1;
    format!(
        ". {}; bash {}; status=$?; exit $((status > {last} ? {last} : status))",
        profile.display(),
        command.display()
    )
}

fn spawn(vng: &mut Command) -> Result<Child> {
    vng.spawn()
        .with_context(|| format!("{VNG} does not start: is virtme-ng installed?"))
}

/// Ends what virtme-ng started, itself included.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // An error means that the group is gone, which is what is wanted.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// Runs virtme-ng without a terminal. QEMU opens what it is to write to by name, and truncates it:
/// it gets pipes.
async fn execute(vng: &mut Command) -> Result<u8> {
    vng.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = spawn(vng)?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let group = id.map(|id| Group(Pid::from_raw(id)));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    futures::try_join!(
        forward(stdout.context("no pipe")?, io::stdout()),
        forward(stderr.context("no pipe")?, io::stderr()),
    )?;
    let status = child.wait().await?;
    // Both pipes have ended, and with them all that held them.
    std::mem::forget(group);
    match status.code() {
        Some(DIED) | None => bail!("the machine ended before the command did"),
        Some(code) => Ok(u8::try_from(code)?),
    }
}

async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl Write) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        match from.read(&mut bytes).await? {
            0 => return Ok(()),
            read => to.write_all(&bytes[..read])?,
        }
        to.flush()?;
    }
}
