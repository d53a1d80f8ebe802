// SPDX-License-Identifier: GPL-2.0
//! `backstop ps`: programs and their deadlines.

use std::io::{self, Write, stdout};
use std::mem::MaybeUninit;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use rustix::time::{ClockId, clock_gettime};

use crate::control::Control;
use crate::limit;
use crate::list::List;
use crate::order::{self, Key};
use crate::program::{Deadline, LastEnded, Program};
use crate::refusal::Refusal;
use crate::screen;
use crate::span::rough;
use crate::table::{self, Side};

#[derive(Args)]
pub struct Options {
    /// As an array of JSON objects, times in ns; with --watch an array a line
    #[arg(long)]
    json: bool,
    /// What comes first
    #[arg(long, value_name = "KEY", default_value = "id")]
    sort: Key,
    /// Also programs without a deadline
    #[arg(short, long)]
    all: bool,
    /// Show it again and again, after so many seconds
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = seconds,
    )]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    match seconds.filter(|seconds| (0.1..=86_400.0).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => Err("seconds are 0.1 to 86400".into()),
    }
}

pub fn run(options: &Options) -> Result<(), Refusal> {
    let (mut storage, mut storage_of_control) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let list = List::open(&mut storage)?;
    // Who may list programs need not be allowed to ask for defaults.
    let control = Control::open(&mut storage_of_control);
    loop {
        let programs = read(&list, control.as_ref().ok(), options)?;
        let lines = if options.json {
            vec![json(&programs, options.watch.is_none())?]
        } else {
            show(&programs, now_ns())
        };
        let Some(interval) = options.watch else {
            let mut out = stdout().lock();
            lines
                .iter()
                .try_for_each(|line| writeln!(out, "{line}"))
                .map_err(Refusal::io("writing"))?;
            return hint(&programs, control.err());
        };
        if options.json {
            writeln!(stdout(), "{}", lines.concat())
        } else {
            screen::refresh(&lines)
        }
        .map_err(Refusal::io("writing"))?;
        sleep(interval);
    }
}

/// Why nothing is shown, if it is for want of the module.
fn hint(programs: &[Program], control: Option<Refusal>) -> Result<(), Refusal> {
    match control {
        Some(Refusal::Module) if programs.is_empty() => Err(Refusal::Module),
        _ => Ok(()),
    }
}

fn read(
    list: &List<'_>,
    control: Option<&Control<'_>>,
    options: &Options,
) -> Result<Vec<Program>, Refusal> {
    let mut programs = list.read(&|class| limit::default(control?, class).ok())?;
    let own = control.map_or(Ok(Vec::new()), Control::ids)?;
    programs.retain(|program| !own.contains(&program.id));
    programs.retain(|program| options.all || program.deadline.is_some());
    order::sort(&mut programs, options.sort);
    Ok(programs)
}

fn json(programs: &[Program], pretty: bool) -> Result<String, Refusal> {
    let text = if pretty {
        serde_json::to_string_pretty(programs)
    } else {
        serde_json::to_string(programs)
    };
    text.map_err(|error| Refusal::io("writing JSON")(io::Error::from(error)))
}

/// The clock of `ended_at`.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, ns) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000_000).saturating_add(ns)
}

fn show(programs: &[Program], now_ns: u64) -> Vec<String> {
    let titles = [
        ("ID", Side::Right),
        ("NAME", Side::Left),
        ("TYPE", Side::Left),
        ("CLASS", Side::Left),
        ("DEADLINE", Side::Right),
        ("LONGEST", Side::Right),
        ("THROWS", Side::Right),
        ("ENDED", Side::Right),
        ("KILLED", Side::Right),
        ("STATE", Side::Left),
        ("LAST ENDED", Side::Left),
        ("HELD THEN", Side::Left),
    ];
    let rows: Vec<_> = programs
        .iter()
        .map(|program| row(program, now_ns))
        .collect();
    table::lines(titles, &rows)
}

fn row(program: &Program, now_ns: u64) -> [String; 12] {
    let of =
        |show: &dyn Fn(&Deadline) -> String| program.deadline.as_ref().map_or("-".into(), show);
    let of_last = |show: &dyn Fn(&LastEnded) -> String| {
        of(&|deadline| deadline.last_ended.as_ref().map_or("-".into(), show))
    };
    [
        program.id.to_string(),
        program.name.clone(),
        program.kind.clone(),
        of(&|deadline| deadline.class.name().into()),
        of(&limit_text),
        of(&|deadline| match deadline.longest_ns {
            0 => "-".into(),
            ns => rough(ns),
        }),
        program.throws.to_string(),
        of(&|deadline| deadline.ended_by_deadline.to_string()),
        of(&|deadline| deadline.ended_by_operator.to_string()),
        of(&|deadline| deadline.state.text().into()),
        of_last(&|last| {
            let ago = rough(now_ns.saturating_sub(last.at_ns));
            let spent = rough(last.spent_ns);
            match last.exceeded_ns {
                Some(exceeded) => format!("{ago} ago, {spent} of {}", rough(exceeded)),
                None => format!("{ago} ago, stopped after {spent}"),
            }
        }),
        of_last(&|last| match last.held.as_slice() {
            [] => "nothing".into(),
            held => held.join(", "),
        }),
    ]
}

fn limit_text(deadline: &Deadline) -> String {
    match deadline.limit_ns {
        None => "?".into(),
        Some(ns) if deadline.own => format!("own {}", rough(ns)),
        Some(ns) => rough(ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::tests::{plain, spin};

    #[test]
    fn programs_are_a_row_each() {
        let mut own = spin();
        if let Some(deadline) = &mut own.deadline {
            deadline.own = true;
            deadline.longest_ns = 0;
            let last = deadline.last_ended.as_mut().unwrap();
            last.exceeded_ns = None;
            last.held.clear();
        }
        assert_eq!(
            show(&[spin(), own, plain()], 62_500_000_000),
            [
                "ID  NAME   TYPE            CLASS   DEADLINE  LONGEST  THROWS  ENDED  KILLED  \
                 STATE                LAST ENDED                     HELD THEN",
                "17  spin   raw_tracepoint  task       250ms    251ms       0      3       1  \
                 stopped by operator  2.5s ago, 251ms of 250ms       bpf_rcu_read_lock, bpf_spin_lock",
                "17  spin   raw_tracepoint  task   own 250ms        -       0      3       1  \
                 stopped by operator  2.5s ago, stopped after 251ms  nothing",
                " 3  plain  xdp             -              -        -      12      -       -  \
                 -                    -                              -",
            ]
        );
    }

    #[test]
    fn json_is_an_array() {
        assert_eq!(json(&[], true).unwrap(), "[]");
        let line = json(&[spin(), plain()], false).unwrap();
        assert!(!line.contains('\n'));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read[1]["throws"], 12);
    }

    #[test]
    fn seconds_within_reason() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "NaN", "inf", "1e9", "soon", ""] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_module_is_told_if_nothing_else_is() {
        assert!(hint(&[], Some(Refusal::Module)).is_err());
        assert!(hint(&[plain()], Some(Refusal::Module)).is_ok());
        assert!(hint(&[], None).is_ok());
    }
}
