// SPDX-License-Identifier: GPL-2.0

//! Reports of throws, in the stderr stream of the program.

use kernel::{
    bpf::unwind::{
        stream::{
            Stage,
            Stream, //
        },
        Cause,
        Throw, //
    },
    prelude::*, //
};

/// Reports a part of a throw: the first, or one behind it if `before` says that the first was
/// reported. Returns whether it was.
#[inline(always)]
pub(crate) fn part(throw: &Throw<'_>, before: Option<bool>, released: u64) -> bool {
    match before {
        None => begin(throw, released),
        Some(true) => go_on(throw, released),
        Some(false) => false,
    }
}

/// Reports the first part of a throw, unless one of the program was reported less than a second
/// ago. Returns whether it has.
#[inline(always)]
fn begin(throw: &Throw<'_>, released: u64) -> bool {
    let due = throw.take_report();
    if due {
        // A report that finds no memory, or a stream that nobody reads, is lost.
        let _ = write_first(throw, released);
    }
    due
}

/// Reports another part of a throw whose first part was reported.
#[inline(never)]
fn go_on(throw: &Throw<'_>, released: u64) -> bool {
    let mut stage = Stage::new();

    let _ = write_released(&mut stage, throw, released)
        .and_then(|()| stage.commit(throw.program(), Stream::Stderr));
    true
}

#[cold]
fn write_first(throw: &Throw<'_>, released: u64) -> Result {
    let mut stage = Stage::new();

    match throw.ended() {
        Some((spent, exceeded)) if throw.cause() != Cause::Exception => {
            write_end(&mut stage, spent, exceeded)?
        }
        _ => {
            stage.print(fmt!("ERROR: Exception thrown\n"))?;
            stage.print(fmt!("Cookie           = 0x{:x}\n", throw.cookie()))?;
        }
    }
    write_released(&mut stage, throw, released)?;
    stage.dump_stack()?;
    stage.commit(throw.program(), Stream::Stderr)
}

fn write_end(stage: &mut Stage, spent: u64, exceeded: Option<u64>) -> Result {
    match exceeded {
        Some(exceeded) => {
            stage.print(fmt!("ERROR: Deadline exceeded\n"))?;
            stage.print(fmt!("Deadline         = {} us\n", exceeded / 1000))?;
        }
        None => stage.print(fmt!("ERROR: Stopped\n"))?,
    }
    stage.print(fmt!("Elapsed          = {} us\n", spent / 1000))
}

fn write_released(stage: &mut Stage, throw: &Throw<'_>, mut released: u64) -> Result {
    let total = released.count_ones();

    stage.print(fmt!("Total released   = {total}\n"))?;
    for n in 0..total {
        let i = released.trailing_zeros();
        let slot = throw.table().slots().get(i as usize).ok_or(EINVAL)?;
        let name = slot.name();

        match slot.acquired_by() {
            Some(insn) => stage.print(fmt!(
                "Released[{n:2}]     = {name}, acquired by insn {insn}\n"
            ))?,
            None => stage.print(fmt!("Released[{n:2}]     = {name}\n"))?,
        }
        released &= released.wrapping_sub(1);
    }
    Ok(())
}
