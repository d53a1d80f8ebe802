// SPDX-License-Identifier: GPL-2.0
//! What a program is told and tells, and what it leaves: struct fuzz_state and struct fuzz_remains of
//! progs/unwind/fuzz.bpf.c.

use anyhow::{Context, Result};

use crate::ledger::Entries;

/// Where in struct fuzz_state a program finds things.
pub const BITS: i16 = 0;
pub const COUNTDOWN: i16 = 4;
pub const ZERO: i16 = 8;
pub const THROWN: i16 = 12;
pub const RELEASED: i16 = 16;
pub const SHORT_OF: i16 = 20;
pub const COOKIE: i16 = 24;
pub const TRACE: i16 = 32;
pub const BEFORE: i16 = 40;
pub const AFTER: i16 = 56;
const SIZE: usize = 72;

/// What was short if not memory: the time in which a deadline had to end the run.
pub const LAPSED: u32 = 30;

/// What decides a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Input {
    /// Which way it goes at branches.
    pub bits: u32,
    /// It ends at the so-manyth point that it passes; at none if 0.
    pub countdown: u32,
}

/// struct bpf_unwind_cpu
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cpu {
    pub preempt_count: u32,
    pub irqs_disabled: u32,
    pub rcu_nesting: u32,
    pub migration_disabled: u32,
}

/// What a program tells.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct State {
    pub thrown: bool,
    pub released: u32,
    pub short_of: u32,
    pub cookie: u64,
    pub trace: u64,
    pub before: Cpu,
    pub after: Cpu,
}

/// What is left of a run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Remains {
    pub ledger: Entries,
    pub cpu: Cpu,
    pub locked: u32,
    pub locks: u32,
    pub task_users: u32,
    pub ring: u32,
    pub objects: i32,
    pub percpu_objects: i32,
    pub cpumasks: i32,
    pub stashed: u32,
}

/// Bytes of the struct bpf_unwind_ledger in front.
const LEDGER: usize = 144;

struct Words<'a>(std::slice::ChunksExact<'a, u8>);

impl<'a> Words<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.chunks_exact(size_of::<u32>()))
    }

    fn next(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.0.next()?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u64> {
        let (first, second) = (self.next()?.to_ne_bytes(), self.next()?.to_ne_bytes());
        let bytes = [first, second].concat();
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }

    fn cpu(&mut self) -> Option<Cpu> {
        Some(Cpu {
            preempt_count: self.next()?,
            irqs_disabled: self.next()?,
            rcu_nesting: self.next()?,
            migration_disabled: self.next()?,
        })
    }
}

impl Input {
    /// A struct fuzz_state with this and nothing else.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = [self.bits, self.countdown].map(u32::to_ne_bytes).concat();
        bytes.resize(SIZE, 0);
        bytes
    }
}

impl State {
    /// An allocation failed, which another run need not do.
    pub fn is_short(&self) -> bool {
        !matches!(self.short_of, 0 | LAPSED)
    }

    pub fn has_lapsed(&self) -> bool {
        self.short_of == LAPSED
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).context("the state has another size")
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = Words::new(bytes.get(THROWN as usize..SIZE)?);
        Some(Self {
            thrown: words.next()? != 0,
            released: words.next()?,
            short_of: words.next()?,
            cookie: words.long()?,
            trace: words.long()?,
            before: words.cpu()?,
            after: words.cpu()?,
        })
    }
}

impl Remains {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).context("what is left has another size")
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = Words::new(bytes.get(LEDGER..)?);
        Some(Self {
            ledger: Entries::from_bytes(&bytes[..LEDGER])?,
            cpu: words.cpu()?,
            locked: words.next()?,
            locks: words.next()?,
            task_users: words.next()?,
            ring: words.next()?,
            objects: words.next()? as i32,
            percpu_objects: words.next()? as i32,
            cpumasks: words.next()? as i32,
            stashed: words.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_read_from_bytes() {
        let input = Input {
            bits: 1,
            countdown: 2,
        };
        let mut bytes = input.to_bytes();
        assert_eq!(State::from_bytes(&bytes).unwrap(), State::default());
        bytes[THROWN as usize] = 1;
        bytes[RELEASED as usize] = 3;
        bytes[COOKIE as usize] = 4;
        bytes[TRACE as usize] = 5;
        bytes[AFTER as usize + 12] = 6;
        let state = State::from_bytes(&bytes).unwrap();
        assert!(state.thrown && state.short_of == 0);
        assert_eq!((state.released, state.cookie, state.trace), (3, 4, 5));
        assert_eq!(state.after.migration_disabled, 6);
        assert!(State::from_bytes(&bytes[1..]).is_err());
        assert!(!state.is_short() && !state.has_lapsed());
        bytes[SHORT_OF as usize] = 6;
        assert!(State::from_bytes(&bytes).unwrap().is_short());
        bytes[SHORT_OF as usize] = LAPSED as u8;
        let state = State::from_bytes(&bytes).unwrap();
        assert!(!state.is_short() && state.has_lapsed());
    }

    #[test]
    fn remains_are_read_from_bytes() {
        let mut bytes = vec![0; 192];
        bytes[0] = 1;
        bytes[LEDGER] = 2;
        bytes[188] = 3;
        let remains = Remains::from_bytes(&bytes).unwrap();
        assert_eq!(remains.ledger.live, 1);
        assert_eq!(remains.cpu.preempt_count, 2);
        assert_eq!(remains.stashed, 3);
        assert!(Remains::from_bytes(&bytes[4..]).is_err());
    }
}
