// SPDX-License-Identifier: GPL-2.0
//! Why something is not done, and what to do about it. Each is one line.

use std::io;

use crate::limit::Setting;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{what} is not permitted: it takes {needs}; run it as root")]
    Permission {
        what: &'static str,
        needs: &'static str,
    },

    #[error("the module bpf_deadline is not loaded: modprobe bpf_deadline")]
    Module,

    #[error(
        "this kernel does not end BPF programs: it has no struct bpf_deadline; \
         boot one that is built with CONFIG_BPF_DEADLINE"
    )]
    Kernel,

    #[error("there is no program {id}: backstop ps --all shows those that there are")]
    NoProgram { id: u32 },

    #[error(
        "program {id} has no checkpoints at which it can end: it does not loop, was loaded without \
         the module bpf_deadline, or its verifier log has 'no deadline:'; detach it instead"
    )]
    NoCheckpoints { id: u32 },

    #[error("program {id} is stopped already: backstop resume {id} lets it run again")]
    Stopped { id: u32 },

    #[error("program {id} is not stopped: there is nothing to resume")]
    NotStopped { id: u32 },

    #[error(
        "{setting} {value} is out of bounds: it can be {} to {}",
        setting.show(setting.bounds().0), setting.show(setting.bounds().1)
    )]
    OutOfBounds { setting: Setting, value: String },

    #[error("{what}: {}", one_line(source))]
    Bpf {
        what: String,
        source: libbpf_rs::Error,
    },

    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
}

impl Refusal {
    /// A map_err() for what the kernel or libbpf refuses.
    pub fn bpf(what: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> Self {
        let what = what.into();
        |source| Self::Bpf { what, source }
    }

    /// A map_err() for what is read or written.
    pub fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// An error with its causes.
fn one_line(error: &libbpf_rs::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_told() {
        let refusal = |setting, value: &str| {
            let value = value.to_owned();
            Refusal::OutOfBounds { setting, value }.to_string()
        };
        assert_eq!(
            refusal(Setting::Irq, "20s"),
            "irq 20s is out of bounds: it can be 1ms to 10s"
        );
        assert_eq!(
            refusal(Setting::Row, "0"),
            "row 0 is out of bounds: it can be 1 to 1000000"
        );
    }

    #[test]
    fn only_a_closed_pipe_is_no_failure() {
        let refusal = |kind: io::ErrorKind| Refusal::io("writing")(kind.into());
        assert!(refusal(io::ErrorKind::BrokenPipe).is_closed_pipe());
        assert!(!refusal(io::ErrorKind::StorageFull).is_closed_pipe());
        assert!(!Refusal::Module.is_closed_pipe());
    }
}
