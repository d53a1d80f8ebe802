// SPDX-License-Identifier: GPL-2.0

//! How much fuel lasts about a millisecond.

use kernel::bpf::unwind::Deadline;

/// Bounds of the fuel.
///
/// What has been learned in a tight loop may be followed by slow functions: the most that there is
/// must not last for many of those, 2,048 calls. The least is worth less than one.
const MIN: u32 = 1 << 3;
const MAX: u32 = 1 << 18;

/// Gaps between checkpoints that are as they should be, in ns.
const GOAL: u64 = 1_000_000;
const SHORT: u64 = GOAL / 2;
const LONG: u64 = GOAL * 2;
/// A longer one may have been somebody else's.
const LONGEST: u64 = GOAL * 10;

/// Returns the fuel until the next checkpoint at which the program asks, learning from how long it
/// has lasted.
///
/// `gap` is the time since the run asked before. Has it just begun, then all that is known is that
/// some run of the program has asked `since`.
pub(crate) fn next(deadline: &Deadline, gap: Option<u64>, since: u64) -> u32 {
    let fuel = deadline.fuel();
    let next = match gap {
        Some(gap) if gap > LONG => scale(fuel, gap.min(LONGEST)),
        _ if gap.unwrap_or(since) < SHORT => fuel.saturating_mul(2),
        _ => fuel,
    }
    .clamp(MIN, MAX);

    if next != fuel {
        deadline.set_fuel(next);
    }
    next
}

/// Returns what of `fuel` would have lasted as long as it should.
fn scale(fuel: u32, gap: u64) -> u32 {
    let scaled = u64::from(fuel).wrapping_mul(GOAL).checked_div(gap);

    scaled.and_then(|fuel| fuel.try_into().ok()).unwrap_or(MIN)
}
