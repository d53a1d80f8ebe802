//! QEMU's monitor protocol: the events that end a guest, and the few commands the host gives.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp::{
    self, MigrateSetParameters, MigrationCapability, MigrationCapabilityStatus, MigrationStatus,
    QmpCommand, RunState, ShutdownCause,
};
use tokio::io::WriteHalf;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::qemu::Event;

pub struct Qmp {
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    /// How far QEMU is with saving the machine or taking up a saved one.
    migration: watch::Receiver<MigrationStatus>,
}

/// QEMU answers at once, unless it hangs itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// A machine's memory goes to a disk that may be slow.
const SAVING: Duration = Duration::from_secs(120);
/// Until QEMU has started, which takes long when the host has much else to do.
const START: Duration = Duration::from_secs(120);

impl Qmp {
    /// Shakes hands with QEMU. From then on a task sends its events to `events`. The error is
    /// `TimedOut` if QEMU runs and does not answer.
    pub async fn open(
        socket: UnixStream,
        events: UnboundedSender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Self> {
        let handshake = async { QmpStreamTokio::open(socket).await?.negotiate().await };
        let stream = timeout(START, handshake).await??;
        let (service, mut stream) = stream.into_parts();
        let (status, migration) = watch::channel(MigrationStatus::none);
        tasks.spawn(async move {
            while let Some(event) = stream.next().await {
                let event = match event {
                    Ok(qmp::Event::SHUTDOWN { data, .. }) => Event::Shutdown(data.reason),
                    Ok(qmp::Event::GUEST_PANICKED { .. }) => Event::Panicked,
                    Ok(qmp::Event::STOP { .. }) => Event::Stopped,
                    Ok(qmp::Event::MIGRATION { data, .. }) => {
                        status.send_replace(data.status);
                        continue;
                    }
                    Ok(_) => continue,
                    // An event newer than the schema this was built with.
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
                    Err(_) => break,
                };
                if events.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Self { service, migration })
    }

    async fn execute<C: QmpCommand>(&self, command: C) -> io::Result<C::Ok> {
        let name = C::NAME;
        match timeout(PATIENCE, self.service.execute(command)).await {
            Ok(answer) => {
                answer.map_err(|error| io::Error::other(format!("QEMU on {name}: {error}")))
            }
            Err(_) => Err(io::Error::other(format!("QEMU does not answer {name}"))),
        }
    }

    pub async fn quit(&self) -> io::Result<()> {
        self.execute(qmp::quit {}).await?;
        Ok(())
    }

    /// Stops the machine and writes its state to a file.
    pub async fn save(&self, file: &Path) -> io::Result<()> {
        self.execute(qmp::stop {}).await?;
        self.prepare_migration().await?;
        let unbounded = MigrateSetParameters {
            max_bandwidth: Some(0),
            ..MigrateSetParameters::default()
        };
        self.execute(qmp::migrate_set_parameters(unbounded)).await?;
        self.execute(qmp::migrate {
            uri: Some(uri(file)?),
            channels: None,
            detach: None,
            resume: None,
        })
        .await?;
        self.migrated().await
    }

    /// Takes up the state in a file, in a QEMU that waits for it, and lets the machine go on.
    pub async fn restore(&self, file: &Path) -> io::Result<()> {
        self.prepare_migration().await?;
        self.execute(qmp::migrate_incoming {
            uri: Some(uri(file)?),
            channels: None,
            exit_on_error: None,
        })
        .await?;
        self.migrated().await?;
        self.execute(qmp::cont {}).await?;
        Ok(())
    }

    /// Each page at a place of its own in the file, and events that tell how far it is.
    async fn prepare_migration(&self) -> io::Result<()> {
        let on = |capability| MigrationCapabilityStatus {
            capability,
            state: true,
        };
        let capabilities = [MigrationCapability::mapped_ram, MigrationCapability::events];
        self.execute(qmp::migrate_set_capabilities {
            capabilities: capabilities.map(on).into(),
        })
        .await?;
        Ok(())
    }

    async fn migrated(&self) -> io::Result<()> {
        let ended = |status: &MigrationStatus| {
            matches!(status, MigrationStatus::completed | MigrationStatus::failed)
        };
        let mut migration = self.migration.clone();
        let status = timeout(SAVING, migration.wait_for(ended)).await?;
        match status.as_deref() {
            Ok(MigrationStatus::completed) => Ok(()),
            Ok(_) => Err(io::Error::other("QEMU failed at the machine's state")),
            Err(_) => Err(io::Error::other("QEMU ended over the machine's state")),
        }
    }

    /// A non-maskable interrupt, as from the button of a server.
    pub async fn inject_nmi(&self) -> io::Result<()> {
        self.execute(qmp::inject_nmi {}).await?;
        Ok(())
    }

    pub async fn run_state(&self) -> io::Result<RunState> {
        Ok(self.execute(qmp::query_status {}).await?.status)
    }

    /// The registers of all CPUs, as text: only the human monitor shows them.
    pub async fn registers(&self) -> io::Result<String> {
        self.execute(qmp::human_monitor_command {
            cpu_index: None,
            command_line: "info registers -a".to_owned(),
        })
        .await
    }
}

fn uri(file: &Path) -> io::Result<String> {
    let file = file
        .to_str()
        .ok_or_else(|| io::Error::other(format!("{} is no text", file.display())))?;
    Ok(format!("file:{file}"))
}

/// How the guest's end is called, for messages.
pub fn cause_name(cause: ShutdownCause) -> &'static str {
    qapi::Enum::name(&cause)
}

/// Whether every CPU sits in HLT with interrupts off, from which none comes back by itself.
pub fn all_halted(registers: &str) -> bool {
    let mut cpus = registers.split("CPU#").skip(1).peekable();
    cpus.peek().is_some() && cpus.all(halted)
}

fn halted(cpu: &str) -> bool {
    const INTERRUPTS_ON: u64 = 1 << 9;
    let field = |name| {
        let (_, rest) = cpu.split_once(name)?;
        rest.split_whitespace().next()
    };
    let flags = field("RFL=").or_else(|| field("EFL="));
    let flags = flags.and_then(|flags| u64::from_str_radix(flags, 16).ok());
    field("HLT=") == Some("1") && flags.is_some_and(|flags| flags & INTERRUPTS_ON == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(number: u32, flags: &str, halted: u32) -> String {
        format!(
            "\nCPU#{number}\nRAX=0000000000000000 RBX=0000000000000000\n\
             RIP=ffffffff81000000 RFL={flags} [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT={halted}\n\
             ES =0000 0000000000000000 00000000 00000000\n"
        )
    }

    #[test]
    fn halted_is_every_cpu_with_interrupts_off() {
        assert!(all_halted(
            &(cpu(0, "00000046", 1) + &cpu(1, "00000006", 1))
        ));
    }

    #[test]
    fn idle_is_not_halted() {
        assert!(!all_halted(
            &(cpu(0, "00000246", 1) + &cpu(1, "00000046", 1))
        ));
    }

    #[test]
    fn one_running_cpu_is_enough_to_run() {
        assert!(!all_halted(
            &(cpu(0, "00000046", 1) + &cpu(1, "00000046", 0))
        ));
    }

    #[test]
    fn no_cpus_are_not_halted() {
        assert!(!all_halted(""));
    }
}
