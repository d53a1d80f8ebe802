//! QEMU's monitor protocol: the events that end a guest, and the few commands the host gives.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp::{self, QmpCommand, RunState, ShutdownCause};
use tokio::io::WriteHalf;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::qemu::Event;

pub struct Qmp {
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
}

/// QEMU answers at once, unless it hangs itself.
const PATIENCE: Duration = Duration::from_secs(20);

impl Qmp {
    /// Shakes hands with QEMU. From then on a task sends its events to `events`.
    pub async fn open(
        socket: UnixStream,
        events: UnboundedSender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Self> {
        let handshake = async { QmpStreamTokio::open(socket).await?.negotiate().await };
        let stream = timeout(PATIENCE, handshake).await??;
        let (service, mut stream) = stream.into_parts();
        tasks.spawn(async move {
            while let Some(event) = stream.next().await {
                let event = match event {
                    Ok(qmp::Event::SHUTDOWN { data, .. }) => Event::Shutdown(data.reason),
                    Ok(qmp::Event::GUEST_PANICKED { .. }) => Event::Panicked,
                    Ok(qmp::Event::STOP { .. }) => Event::Stopped,
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
        Ok(Self { service })
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
