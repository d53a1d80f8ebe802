// SPDX-License-Identifier: GPL-2.0
//! `backstop limit`: how long programs may take that bring no limit along, for each class.

use std::fmt;
use std::io::{Write, stdout};
use std::mem::MaybeUninit;

use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use rustix::io::Errno;

use crate::control::Control;
use crate::program::Class;
use crate::refusal::Refusal;
use crate::span;
use crate::table::{self, Side};

#[derive(Args)]
pub struct Options {
    /// What to show, or to change; all are shown without it
    #[arg(value_name = "CLASS")]
    setting: Option<Setting>,
    /// Such as 2s, 250ms or 1500us, or a number for row
    #[arg(requires = "setting")]
    value: Option<String>,
}

/// What can be set, with its number in bpf_deadline_get() and bpf_deadline_set().
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Setting {
    /// Deadline of programs that may sleep
    Sleepable = 0,
    /// Deadline of programs that may not
    Task = 1,
    /// How long a run may keep preemption off
    Atomic = 2,
    /// How long a run may keep interrupts off, or a spin lock
    Irq = 3,
    /// So many runs that are ended in succession stop a program
    Row = 4,
}

impl Setting {
    const ALL: [Self; 5] = [
        Self::Sleepable,
        Self::Task,
        Self::Atomic,
        Self::Irq,
        Self::Row,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Sleepable => "sleepable",
            Self::Task => "task",
            Self::Atomic => "atomic",
            Self::Irq => "irq",
            Self::Row => "row",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Sleepable => "a run of a program that may sleep",
            Self::Task => "a run of any other program",
            Self::Atomic => "what it does in one go with preemption off",
            Self::Irq => "what it does in one go with interrupts off",
            Self::Row => "runs ended in succession until a program is stopped",
        }
    }

    /// The least and the most that the kernel takes: BPF_DEADLINE_MIN_US and BPF_DEADLINE_MAX_US.
    pub fn bounds(self) -> (u64, u64) {
        match self {
            Self::Row => (1, 1_000_000),
            _ => (1_000, 10_000_000),
        }
    }

    /// Writes a value as parse() reads it.
    pub fn show(self, value: u64) -> String {
        match self {
            Self::Row => value.to_string(),
            _ => span::exact(value),
        }
    }

    /// Reads a value; one that is too large for any bounds stays so.
    fn parse(self, text: &str) -> Result<u64, String> {
        match self {
            Self::Row if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(text.parse().unwrap_or(u64::MAX))
            }
            Self::Row => Err(format!("'{text}' is no number of runs")),
            _ => span::parse(text),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The default of a class, in ns.
pub fn default(control: &Control<'_>, class: Class) -> Result<u64, Refusal> {
    let setting = match class {
        Class::Sleepable => Setting::Sleepable,
        Class::Task => Setting::Task,
    };
    Ok(get(control, setting)?.saturating_mul(1_000))
}

pub fn run(options: &Options) -> Result<(), Refusal> {
    let change = options.setting.zip(options.value.as_deref());
    let change = change.map(|(setting, text)| match setting.parse(text) {
        Ok(value) => (setting, value, text),
        Err(error) => clap::Error::raw(ErrorKind::ValueValidation, error + "\n").exit(),
    });
    let mut storage = MaybeUninit::uninit();
    let control = Control::open(&mut storage)?;
    match (change, options.setting) {
        (Some((setting, value, text)), _) => set(&control, setting, value, text),
        (None, Some(setting)) => show(&control, &[setting]),
        (None, None) => show(&control, &Setting::ALL),
    }
}

fn get(control: &Control<'_>, setting: Setting) -> Result<u64, Refusal> {
    match control.get(setting as u32)? {
        Ok(value) => Ok(value.into()),
        Err(errno) => Err(Refusal::Io {
            what: "bpf_deadline_get",
            source: errno.into(),
        }),
    }
}

fn set(control: &Control<'_>, setting: Setting, value: u64, text: &str) -> Result<(), Refusal> {
    let refusal = |errno| match errno {
        Errno::PERM => Refusal::Permission {
            what: "changing limits",
            needs: "CAP_SYS_ADMIN",
        },
        Errno::RANGE => Refusal::OutOfBounds {
            setting,
            value: text.to_owned(),
        },
        _ => Refusal::Io {
            what: "bpf_deadline_set",
            source: errno.into(),
        },
    };
    control.set(setting as u32, value)?.map_err(refusal)
}

fn show(control: &Control<'_>, settings: &[Setting]) -> Result<(), Refusal> {
    let mut rows = Vec::new();
    for &setting in settings {
        rows.push([
            setting.name().to_owned(),
            setting.show(get(control, setting)?),
            setting.meaning().to_owned(),
        ]);
    }
    let titles = [
        ("CLASS", Side::Left),
        ("LIMIT", Side::Right),
        ("OF", Side::Left),
    ];
    for line in table::lines(titles, &rows) {
        writeln!(stdout(), "{line}").map_err(Refusal::io("writing"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for (number, setting) in Setting::ALL.into_iter().enumerate() {
            let value = setting.to_possible_value().unwrap();
            assert_eq!(setting.name(), value.get_name());
            assert_eq!(setting as usize, number);
        }
    }

    #[test]
    fn values_by_setting() {
        assert_eq!(Setting::Row.parse("10"), Ok(10));
        assert_eq!(Setting::Row.parse("99999999999999999999"), Ok(u64::MAX));
        for text in ["", "10ms", "-1", "+1", "ten"] {
            assert!(Setting::Row.parse(text).is_err(), "{text}");
        }
        assert_eq!(Setting::Irq.parse("50ms"), Ok(50_000));
        assert!(Setting::Irq.parse("10").is_err());
    }

    #[test]
    fn bounds_are_read_back() {
        for setting in Setting::ALL {
            let (least, most) = setting.bounds();
            for value in [least, most] {
                assert_eq!(setting.parse(&setting.show(value)), Ok(value));
            }
        }
    }
}
