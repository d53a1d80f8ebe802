// SPDX-License-Identifier: GPL-2.0

//! Releases what BPF programs hold when they throw.
//!
//! While this module is loaded, the verifier lets programs throw with references, locks and the
//! like held, and has them come here. What the frames up to the boundary hold is released, from
//! the frame of the boundary in the order of its slots; then the program goes on in its exception
//! callback, or behind the helper that has called it back.
//!
//! Works in any context, NMI included; allocates nothing but the text of a report.
//!
//! Documentation: `Documentation/bpf/exceptions.rst`.

use kernel::{
    bpf::unwind::{
        Cause,
        Registration,
        Throw,
        Unwind,
        Unwinder,
        Walk, //
    },
    do_once_lite,
    module::this_module,
    prelude::*,
    warn_on, //
};

#[path = "unwind/release.rs"]
mod release;
#[path = "unwind/report.rs"]
mod report;

module! {
    type: Module,
    name: "bpf_unwind",
    authors: ["Backstop developers"],
    description: "Releases what BPF programs hold when they throw",
    license: "GPL",
}

static UNWINDER: Unwinder = Unwinder::new::<Release>(this_module::<LocalModule>());

struct Module {
    _registration: Registration,
}

impl kernel::Module for Module {
    fn init(_: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _registration: UNWINDER.register()?,
        })
    }
}

/// Releases what is held.
struct Release;

impl Unwind for Release {
    #[inline]
    fn unwind(throw: Throw<'_>) {
        if throw.cause() != Cause::Exception {
            return end(throw);
        }
        let before = throw.goes_on();
        if before.is_none() {
            throw.count();
        }

        let Some(walk) = throw.walk() else {
            do_once_lite! {
                warn_on!(true);
            }
            throw.give_up();
            return;
        };

        let released = release_all(&throw, &walk);
        throw.trace(&walk, released.count_ones());
        let reported = report::part(&throw, before, released);
        throw.go_on(walk, reported);
    }
}

/// Returns the slots whose content it has released.
#[inline(always)]
fn release_all(throw: &Throw<'_>, walk: &Walk<'_>) -> u64 {
    let mut released = 0u64;

    for (i, slot, content) in walk.take_held(throw.table()) {
        release::release(slot, content);
        released |= 1u64.wrapping_shl(i);
    }
    released
}

/// Ends a run at a checkpoint, or goes on doing so.
#[cold]
fn end(throw: Throw<'_>) {
    let before = throw.goes_on();
    // At the checkpoint it could be walked, and behind a callback too.
    let Some(walk) = throw.walk_slowly() else {
        return do_once_lite! {
            warn_on!(true);
        };
    };
    let released = release_all(&throw, &walk);

    throw.trace_end(&walk, released);
    let reported = report::part(&throw, before, released);
    throw.end_run(walk, reported);
}
