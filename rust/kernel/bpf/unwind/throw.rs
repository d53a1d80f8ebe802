// SPDX-License-Identifier: GPL-2.0

//! Throws, and where programs go on after them.

use super::{
    arch::{
        self,
        Caller, //
    },
    Boundary,
    Frame,
    Function,
    Held,
    Table, //
};
use crate::{
    bindings,
    bpf::Program,
    prelude::*, //
};

/// States of a throw that goes on, in `ret` of the registers: behind a callback, in whose helper's
/// caller the rest of the state is, or behind the trampoline of a traced function.
const BEHIND_CALLBACK: u64 = bindings::BPF_THROW_AGAIN as u64;
const BEHIND_TRAMPOLINE: u64 = 2;
/// Beside either: the mark of whoever has unwound the part before.
const MARKED: u64 = 4;

/// A throw, or the part of one that goes on behind a callback or a traced function.
///
/// # Invariants
///
/// `regs` are as `bpf_throw_stub()` has captured them, which waits for the end of the throw, and
/// `table` is that of the program.
pub struct Throw<'a> {
    regs: &'a mut bindings::bpf_unwind_regs,
    table: &'a Table,
}

impl<'a> Throw<'a> {
    /// # Safety
    ///
    /// `regs` and the table of their program meet the invariants for `'a`.
    #[inline]
    pub(super) unsafe fn from_raw(regs: *mut bindings::bpf_unwind_regs) -> Self {
        // SAFETY: By the safety requirements.
        let regs = unsafe { &mut *regs };
        // SAFETY: By the safety requirements. The table lives as long as the program, which runs.
        let table = unsafe { Table::from_raw((*regs.aux).unwind) };

        // INVARIANT: By the safety requirements.
        Self { regs, table }
    }

    /// Returns the program that throws.
    #[inline]
    pub fn program(&self) -> &'a Program {
        // SAFETY: By the type invariants; `Program` is transparent. The program runs, so it has
        // been loaded.
        unsafe { &*self.regs.aux.cast() }
    }

    /// Returns the table of the program.
    #[inline]
    pub fn table(&self) -> &'a Table {
        self.table
    }

    /// Returns the value that is thrown.
    #[inline]
    pub fn cookie(&self) -> u64 {
        self.regs.cookie
    }

    /// Returns the address behind the call that throws.
    #[inline]
    pub fn address(&self) -> usize {
        self.regs.ip as usize
    }

    /// Returns whether the part before was marked when it [went on](Self::go_on), or [`None`] if
    /// the throw begins here.
    #[inline]
    pub fn goes_on(&self) -> Option<bool> {
        let state = match self.regs.ret {
            0 => return None,
            BEHIND_CALLBACK => self.pending_state(),
            state => state,
        };

        Some(state & MARKED != 0)
    }

    #[cold]
    fn pending_state(&self) -> u64 {
        self.frame()
            .and_then(|frame| frame.pending())
            // SAFETY: The frame waited for a helper, and has found that a throw is pending.
            .map_or(0, |pending| unsafe { (*pending).thrown })
    }

    /// Returns the frame that throws.
    #[inline]
    fn frame(&self) -> Option<Frame<'a>> {
        let function = self.table.caller(self.address())?;

        // SAFETY: By the type invariants, it waits for its call to return.
        Some(unsafe { Frame::new(function, self.regs.bp as usize) })
    }

    /// Walks the frames up to where unwinding stops, and changes nothing.
    ///
    /// Returns [`None`] if they are not as the table says.
    #[inline]
    pub fn walk(&self) -> Option<Walk<'a>> {
        let mut frame = self.frame()?;
        let mut frames = 1u32;
        let mut traced = None;
        let boundary = loop {
            if let Some(boundary) = frame.boundary() {
                break boundary;
            }
            frame = match frame.caller(self.table) {
                Some(caller) => caller,
                None => {
                    let behind = self.traced(frame)?;
                    let function = self.table.caller(behind.caller.ip)?;
                    // SAFETY: It waits for the traced function, which the trampoline has called.
                    let caller = unsafe { Frame::new(function, behind.caller.fp) };

                    traced.get_or_insert((frame, behind));
                    caller
                }
            };
            // What was walked over in front of a trampoline is ended first.
            if traced.is_none() {
                frames = frames.wrapping_add(1);
            }
        };
        let stop = match (traced, boundary) {
            (Some((function, behind)), _) => Stop::Traced(function, behind, frame),
            (None, Boundary::Main) => Stop::Main(frame),
            (None, Boundary::Callback) => Stop::Callback(frame, self.outside(frame)?),
            (None, Boundary::Async) => Stop::Async(frame),
        };

        Some(Walk { stop, frames })
    }

    /// Returns what a function that is no boundary, and that no function of the program has
    /// called, returns to behind its trampoline.
    #[cold]
    fn traced(&self, frame: Frame<'a>) -> Option<Traced> {
        let trampoline = frame.returns_to();
        let caller = Caller::behind(trampoline, frame.function)?;

        self.table.caller(caller.ip)?;
        // INVARIANT: The address of a call in the program is there.
        Some(Traced { trampoline, caller })
    }

    /// Returns where the function that has called the helper of a callback looks when that has
    /// returned.
    #[cold]
    fn outside(&self, callback: Frame<'a>) -> Option<Pending> {
        let mut caller = callback.returns_to();

        // An inlined bpf_loop() calls its callback like any other function; a traced callback has
        // a trampoline in between.
        let function = match self.table.caller(caller.ip) {
            Some(function) => function,
            None => {
                // SAFETY: Safe for any address.
                if unsafe { bindings::is_bpf_text_address(caller.ip) } {
                    caller = Caller::behind(caller, callback.function)?;
                }
                match self.table.caller(caller.ip) {
                    Some(function) => function,
                    None => self.behind_helper(&mut caller)?,
                }
            }
        };
        // SAFETY: The frame of a function of the program, which waits for the helper.
        let frame = unsafe { Frame::new(function, caller.fp) };

        // INVARIANT: The verifier has it look there when the helper has returned.
        frame.pending().map(Pending)
    }

    /// Walks on to the first frame of the program, behind the code of the kernel in between.
    #[cold]
    fn behind_helper(&self, caller: &mut Caller) -> Option<&'a Function> {
        struct Search<'a> {
            table: &'a Table,
            found: Option<&'a Function>,
            fp: usize,
        }

        /// # Safety
        ///
        /// `search` must be a [`Search`].
        unsafe extern "C" fn visit(search: *mut c_void, ip: u64, _sp: u64, fp: u64) -> bool {
            // SAFETY: It is the `search` of below, for which the walk is called.
            let search = unsafe { &mut *search.cast::<Search<'_>>() };

            search.found = search.table.caller(ip as usize);
            search.fp = fp as usize;
            search.found.is_none()
        }

        let mut search = Search {
            table: self.table,
            found: None,
            fp: 0,
        };
        // SAFETY: A function of the kernel finds these registers when `callback` returns.
        unsafe {
            bindings::arch_bpf_stack_walk_from(
                Some(visit),
                (&raw mut search).cast(),
                caller.ip as u64,
                caller.sp as u64,
                caller.fp as u64,
            )
        };
        caller.fp = search.fp;
        search.found
    }

    /// Has the program go on where the walk has stopped, when the module returns.
    ///
    /// If unwinding goes on afterwards, in the next part, that finds `mark`.
    #[inline]
    pub fn go_on(self, walk: Walk<'a>, mark: bool) {
        let regs = self.regs;
        let mark = if mark { MARKED } else { 0 };

        match walk.stop {
            Stop::Main(frame) => {
                // SAFETY: By the type invariants.
                let callback = unsafe { (*regs.aux).bpf_exception_cb };

                arch::finish(
                    regs,
                    frame.fp,
                    frame.saved(),
                    callback.map_or(0, |f| f as usize as u64),
                );
            }
            Stop::Callback(frame, Pending(pending)) => {
                // SAFETY: The invariants of `Pending`.
                unsafe {
                    pending.write(bindings::bpf_unwind_pending {
                        thrown: BEHIND_CALLBACK | mark,
                        cookie: regs.cookie,
                    })
                };
                frame.end(regs);
            }
            Stop::Async(frame) => frame.end(regs),
            Stop::Traced(_, Traced { trampoline, caller }, _) => {
                // SAFETY: The invariants of `Traced`: the trampoline has not returned yet.
                unsafe {
                    caller
                        .return_address()
                        .write(bindings::bpf_throw_resume as usize)
                };
                arch::return_to(regs, trampoline, 0);
                arch::resume(regs, caller.ip, BEHIND_TRAMPOLINE | mark);
            }
        }
    }

    /// Has the program go on as without unwinding: in `bpf_throw()`, holding what it holds.
    pub fn give_up(self) {
        extern "C" {
            fn bpf_throw(cookie: u64);
        }

        arch::give_up(self.regs, bpf_throw as usize as u64);
    }
}

/// What a throw has walked over.
pub struct Walk<'a> {
    stop: Stop<'a>,
    frames: u32,
}

impl<'a> Walk<'a> {
    /// Returns the number of frames, that of the boundary included.
    #[inline]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Returns where unwinding stops.
    #[inline]
    pub fn stop(&self) -> &Stop<'a> {
        &self.stop
    }

    /// Takes what the frames hold, in the order of release.
    ///
    /// All of it is in the frame of the boundary. What lies on the stack of a traced function would
    /// be overwritten by its trampoline, so that nothing is left for later.
    #[inline]
    pub fn take_held(&self, table: &'a Table) -> Held<'a> {
        match self.stop {
            Stop::Main(frame)
            | Stop::Callback(frame, _)
            | Stop::Async(frame)
            | Stop::Traced(_, _, frame) => frame.take_held(table),
        }
    }
}

/// Where unwinding stops.
pub enum Stop<'a> {
    /// In the main program, whose exception callback finishes the run.
    Main(Frame<'a>),
    /// In a callback: it ends, and the throw goes on in the function that has called the helper.
    Callback(Frame<'a>, Pending),
    /// In a callback that was called by nobody who waits for it: it ends.
    Async(Frame<'a>),
    /// In a traced function: it ends, its trampoline ends, and the throw goes on in its caller. Last
    /// comes the boundary.
    Traced(Frame<'a>, Traced, Frame<'a>),
}

/// Where a function that has called a helper looks whether a callback has thrown.
///
/// # Invariants
///
/// The pointer is valid for writes while unwinding has stopped at the callback.
pub struct Pending(*mut bindings::bpf_unwind_pending);

/// The trampoline of a traced function, and the caller that it returns to.
///
/// # Invariants
///
/// `caller` is in the program.
pub struct Traced {
    trampoline: Caller,
    caller: Caller,
}
