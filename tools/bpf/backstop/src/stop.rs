// SPDX-License-Identifier: GPL-2.0
//! `backstop kill` and `backstop resume`.

use std::mem::MaybeUninit;

use clap::Args;
use rustix::io::Errno;

use crate::control::Control;
use crate::refusal::Refusal;

#[derive(Args)]
pub struct Options {
    /// Ids of the programs, as backstop ps shows them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    Stop,
    Resume,
}

/// Tries all, and returns what was refused.
pub fn run(options: &Options, change: Change) -> Result<(), Vec<Refusal>> {
    let mut storage = MaybeUninit::uninit();
    let control = Control::open(&mut storage).map_err(|refusal| vec![refusal])?;
    let refusals: Vec<_> = options
        .ids
        .iter()
        .filter_map(|&id| one(&control, id, change).err())
        .collect();
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

fn one(control: &Control<'_>, id: u32, change: Change) -> Result<(), Refusal> {
    control
        .stop(id, change == Change::Stop)?
        .map_err(|errno| refusal(id, change, errno))
}

/// What bpf_prog_stop() means by an error.
fn refusal(id: u32, change: Change, errno: Errno) -> Refusal {
    match (errno, change) {
        (Errno::PERM, _) => Refusal::Permission {
            what: "ending programs",
            needs: "CAP_SYS_ADMIN",
        },
        (Errno::NOENT, _) => Refusal::NoProgram { id },
        (Errno::OPNOTSUPP, _) => Refusal::NoCheckpoints { id },
        (Errno::ALREADY, Change::Stop) => Refusal::Stopped { id },
        (Errno::ALREADY, Change::Resume) => Refusal::NotStopped { id },
        _ => Refusal::Io {
            what: "bpf_prog_stop",
            source: errno.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_meaning() {
        let text = |change, errno| refusal(7, change, errno).to_string();
        for (change, errno, expected) in [
            (Change::Stop, Errno::PERM, "takes CAP_SYS_ADMIN"),
            (Change::Stop, Errno::NOENT, "there is no program 7"),
            (Change::Resume, Errno::NOENT, "there is no program 7"),
            (
                Change::Stop,
                Errno::OPNOTSUPP,
                "program 7 has no checkpoints",
            ),
            (Change::Stop, Errno::ALREADY, "program 7 is stopped already"),
            (Change::Resume, Errno::ALREADY, "program 7 is not stopped"),
            (Change::Stop, Errno::NOMEM, "bpf_prog_stop: "),
        ] {
            let text = text(change, errno);
            assert!(text.contains(expected) && !text.contains('\n'), "{text}");
        }
    }
}
