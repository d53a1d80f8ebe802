// SPDX-License-Identifier: GPL-2.0
//! Reads what src/bpf/list.bpf.c writes.

use crate::program::{Class, Deadline, LastEnded, Program, State};

/// sizeof(name) of struct record, and of struct held.
const NAME: usize = 16;
const HELD: usize = 64;

/// What a record says of the kernel and of a program, as numbers.
pub struct Record {
    /// The kernel has deadlines.
    pub known: bool,
    pub program: Program,
}

/// How a program type is called, and how long programs may take that bring no limit along, in ns.
pub struct Context<'a> {
    pub type_name: &'a dyn Fn(u32) -> String,
    pub default: &'a dyn Fn(Class) -> Option<u64>,
}

/// Returns all records, None if the bytes are no such.
pub fn read(bytes: &[u8], context: &Context<'_>) -> Option<Vec<Record>> {
    let mut fields = Fields(bytes);
    let mut records = Vec::new();
    while !fields.0.is_empty() {
        records.push(read_one(&mut fields, context)?);
    }
    Some(records)
}

fn read_one(fields: &mut Fields<'_>, context: &Context<'_>) -> Option<Record> {
    let throws = fields.u64()?;
    let limit = fields.u64()?;
    let longest_ns = fields.u64()?;
    let ended_by_deadline = fields.u64()?;
    let ended_by_operator = fields.u64()?;
    let ended_at = fields.u64()?;
    let spent_ns = fields.u64()?;
    let exceeded = fields.u64()?;
    let held = fields.u64()?;
    let in_succession = fields.u32()?;
    let stopped = fields.u32()?;
    let id = fields.u32()?;
    let kind = fields.u32()?;
    let [sleepable, known, present, ..] = *fields.take::<8>()?;
    let name = text(fields.take::<NAME>()?);
    let held = (0..held.count_ones())
        .map(|_| fields.take::<HELD>().map(|name| text(name)))
        .collect::<Option<_>>()?;

    let class = if sleepable != 0 {
        Class::Sleepable
    } else {
        Class::Task
    };
    let deadline = Deadline {
        class,
        limit_ns: Some(limit)
            .filter(|&own| own != 0)
            .or_else(|| (context.default)(class)),
        own: limit != 0,
        longest_ns,
        ended_by_deadline,
        ended_by_operator,
        in_succession,
        // enum bpf_stopped
        state: match stopped {
            0 => State::Runs,
            1 => State::StoppedByOperator,
            _ => State::StoppedTooOften,
        },
        last_ended: (ended_at != 0).then_some(LastEnded {
            at_ns: ended_at,
            spent_ns,
            exceeded_ns: Some(exceeded).filter(|&exceeded| exceeded != 0),
            held,
        }),
    };
    Some(Record {
        known: known != 0,
        program: Program {
            id,
            name,
            kind: (context.type_name)(kind),
            throws,
            deadline: (present != 0).then_some(deadline),
        },
    })
}

/// Bytes of which the first are taken off.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(|&bytes| u32::from_ne_bytes(bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(|&bytes| u64::from_ne_bytes(bytes))
    }
}

/// The bytes up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::tests::{plain, spin};

    fn context() -> Context<'static> {
        Context {
            type_name: &|kind| ["?", "xdp", "raw_tracepoint"][kind as usize].into(),
            default: &|class| (class == Class::Task).then_some(250_000_000),
        }
    }

    /// A record with these numbers, and what was held.
    fn bytes(u64s: [u64; 9], u32s: [u32; 4], flags: [u8; 3], name: &str, held: &[&str]) -> Vec<u8> {
        let padded = |name: &str, size: usize| {
            let mut name = name.as_bytes().to_vec();
            name.resize(size, 0);
            name
        };
        let mut bytes = Vec::new();
        bytes.extend(u64s.iter().flat_map(|number| number.to_ne_bytes()));
        bytes.extend(u32s.iter().flat_map(|number| number.to_ne_bytes()));
        bytes.extend(flags);
        bytes.extend([0; 5]);
        bytes.extend(padded(name, 16));
        bytes.extend(held.iter().flat_map(|name| padded(name, 64)));
        bytes
    }

    fn spin_bytes() -> Vec<u8> {
        let u64s = [
            0,
            0,
            250_900_000,
            3,
            1,
            60_000_000_000,
            250_900_000,
            250_000_000,
            0b1000_0100,
        ];
        let held = ["bpf_rcu_read_lock", "bpf_spin_lock"];
        bytes(u64s, [2, 1, 17, 2], [0, 1, 1], "spin", &held)
    }

    #[test]
    fn records_follow_each_other() {
        let none = bytes(
            [12, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 3, 1],
            [0, 1, 0],
            "plain",
            &[],
        );
        let records = read(&[spin_bytes(), none].concat(), &context()).unwrap();
        assert!(records.iter().all(|record| record.known));
        let programs: Vec<_> = records.into_iter().map(|record| record.program).collect();
        assert_eq!(programs, [spin(), plain()]);
    }

    #[test]
    fn own_deadlines_and_classes() {
        let deadline = |limit, sleepable, stopped, exceeded| {
            let u64s = [0, limit, 0, 0, 0, exceeded, 0, 0, 0];
            let bytes = bytes(u64s, [0, stopped, 1, 1], [sleepable, 1, 1], "x", &[]);
            let mut records = read(&bytes, &context()).unwrap();
            records.remove(0).program.deadline.unwrap()
        };
        let own = deadline(5_000_000, 1, 2, 0);
        assert_eq!((own.own, own.limit_ns), (true, Some(5_000_000)));
        assert_eq!(own.class, Class::Sleepable);
        assert_eq!(own.state, State::StoppedTooOften);
        assert_eq!(own.last_ended, None);
        let unknown = deadline(0, 1, 0, 7);
        assert_eq!((unknown.own, unknown.limit_ns), (false, None));
        assert_eq!(unknown.state, State::Runs);
        let last = unknown.last_ended.unwrap();
        assert_eq!((last.at_ns, last.exceeded_ns), (7, None));
    }

    #[test]
    fn a_kernel_without_deadlines_is_told_apart() {
        let bytes = bytes([0; 9], [0, 0, 1, 1], [0, 0, 0], "x", &[]);
        assert!(!read(&bytes, &context()).unwrap()[0].known);
    }

    #[test]
    fn what_is_cut_short_is_no_record() {
        let whole = spin_bytes();
        for length in 1..whole.len() {
            assert!(read(&whole[..length], &context()).is_none(), "{length}");
        }
        assert!(read(&[], &context()).unwrap().is_empty());
    }
}
