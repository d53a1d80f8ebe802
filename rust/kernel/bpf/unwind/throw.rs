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
    error::code::{
        ECANCELED,
        ETIMEDOUT, //
    },
    prelude::*, //
};

/// What makes a program go no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has called `bpf_throw()`.
    Exception,
    /// Its run has taken longer than it may.
    Deadline,
    /// It is not to run any more.
    Stopped,
}

impl Cause {
    const DEADLINE: u64 = 8;
    const STOPPED: u64 = 16;
    const MASK: u64 = Self::DEADLINE | Self::STOPPED;

    fn of_state(state: u64) -> Self {
        match state & Self::MASK {
            Self::DEADLINE => Self::Deadline,
            Self::STOPPED => Self::Stopped,
            _ => Self::Exception,
        }
    }

    pub(super) fn state(self) -> u64 {
        match self {
            Self::Exception => 0,
            Self::Deadline => Self::DEADLINE,
            Self::Stopped => Self::STOPPED,
        }
    }

    /// Returns what an exception callback gets if the program has not thrown it.
    pub(super) fn cookie(self) -> u64 {
        match self {
            Self::Exception => 0,
            Self::Deadline => i64::from(ETIMEDOUT.to_errno()) as u64,
            Self::Stopped => i64::from(ECANCELED.to_errno()) as u64,
        }
    }
}

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
        let ret = self.regs.ret;

        match ret & (BEHIND_CALLBACK | BEHIND_TRAMPOLINE) {
            0 => None,
            _ => Some(self.state() & MARKED != 0),
        }
    }

    /// Returns why it throws.
    #[inline]
    pub fn cause(&self) -> Cause {
        match self.regs.ret {
            0 => Cause::Exception,
            _ => self.later_cause(),
        }
    }

    #[cold]
    fn later_cause(&self) -> Cause {
        Cause::of_state(self.state())
    }

    #[inline]
    fn state(&self) -> u64 {
        match self.regs.ret {
            BEHIND_CALLBACK => self.pending_state(),
            state => state,
        }
    }

    #[cold]
    fn pending_state(&self) -> u64 {
        self.frame()
            .and_then(|frame| frame.pending())
            // SAFETY: The frame waited for a helper, and has found that a throw is pending.
            .map_or(0, |pending| unsafe { (*pending).thrown })
    }

    /// Returns what is kept of the run, in the frame where it ends.
    pub(super) fn run(&self) -> Option<*mut bindings::bpf_run> {
        self.walk_run(|_| ())
    }

    /// Has the functions of the run leave their loops at the next `may_goto`.
    #[cold]
    pub(super) fn leave_loops(&self) {
        self.walk_run(|frame| frame.leave_loops());
    }

    /// Walks the frames up to the one where the run ends, and returns what is kept of it there.
    #[inline]
    fn walk_run(&self, mut visit: impl FnMut(&Frame<'a>)) -> Option<*mut bindings::bpf_run> {
        let mut frame = self.frame()?;

        loop {
            visit(&frame);
            frame = match frame.boundary() {
                Some(Boundary::Main | Boundary::Async) => return frame.run(),
                Some(Boundary::Callback) => self.outside(frame)?,
                Some(Boundary::Exception) => return None,
                None => match frame.caller(self.table) {
                    Some(caller) => caller,
                    None => self.traced(frame)?.1,
                },
            };
        }
    }

    /// Has the unwinder end the run at a checkpoint, after `spent` ns of which it may have taken
    /// `exceeded`.
    pub(super) fn end(self, cause: Cause, spent: u64, exceeded: Option<u64>) {
        let regs = self.regs;

        regs.args = [spent, exceeded.unwrap_or(0), 0];
        regs.ret = cause.state();
        regs.cookie = cause.cookie();
        // SAFETY: By the type invariants; a program with a table has its operations.
        unsafe {
            if let Some(unwind) = (*(*(*regs.aux).unwind).ops).unwind {
                unwind(regs)
            }
        }
    }

    /// Returns how long the run had taken that is ended, and what it has exceeded, in ns. For a
    /// further part of it, what is known of the program's last one.
    pub fn ended(&self) -> Option<(u64, Option<u64>)> {
        let deadline = self.table.deadline()?;

        Some(match (self.goes_on(), self.regs.args) {
            (None, [spent, exceeded, _]) => (spent, (exceeded != 0).then_some(exceeded)),
            _ => deadline.last_end(),
        })
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
    // A throw has one call of it, and has to be fast.
    #[inline(always)]
    pub fn walk(&self) -> Option<Walk<'a>> {
        let mut frame = self.frame()?;
        let mut frames = 1u32;
        let mut traced = None;

        while frame.boundary().is_none() {
            frame = match frame.caller(self.table) {
                Some(caller) => caller,
                None => {
                    let (behind, caller) = self.traced(frame)?;

                    traced.get_or_insert((frame, behind));
                    caller
                }
            };
            // What was walked over in front of a trampoline is ended first.
            if traced.is_none() {
                frames = frames.wrapping_add(1);
            }
        }
        let stop = match (traced, frame.boundary()?) {
            (Some((function, behind)), _) => Stop::Traced(function, behind, frame),
            (None, Boundary::Main) => Stop::Main(frame),
            // INVARIANT: The verifier has it look there when the helper has returned.
            (None, Boundary::Callback) => {
                Stop::Callback(frame, Pending(self.outside(frame)?.pending()?))
            }
            (None, Boundary::Async) => Stop::Async(frame),
            (None, Boundary::Exception) => return None,
        };

        Some(Walk { stop, frames })
    }

    /// Does the same as [`Self::walk`], where it need not be fast.
    #[inline(never)]
    pub fn walk_slowly(&self) -> Option<Walk<'a>> {
        self.walk()
    }

    /// Returns what a function that is no boundary, and that no function of the program has
    /// called, returns to behind its trampoline.
    #[cold]
    fn traced(&self, frame: Frame<'a>) -> Option<(Traced, Frame<'a>)> {
        let trampoline = frame.returns_to();
        let caller = Caller::behind(trampoline, frame.function)?;
        let function = self.table.caller(caller.ip)?;
        // SAFETY: It waits for the traced function, which the trampoline has called.
        let frame = unsafe { Frame::new(function, caller.fp) };

        // INVARIANT: The address of a call in the program is there.
        Some((Traced { trampoline, caller }, frame))
    }

    /// Returns the frame of the function that has called the helper of a callback.
    #[cold]
    fn outside(&self, callback: Frame<'a>) -> Option<Frame<'a>> {
        let mut caller = callback.returns_to();

        // An inlined bpf_loop() calls its callback like any other function; a traced callback has
        // a trampoline in between. That may return past the callback, where it is called from it,
        // which the kernel's unwinder does not know.
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
        Some(unsafe { Frame::new(function, caller.fp) })
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
        self.go_on_because(walk, mark, Cause::Exception)
    }

    /// The same for a run that is ended: only a program with an exception callback of its own goes
    /// on in that.
    pub fn end_run(self, walk: Walk<'a>, mark: bool) {
        let cause = self.cause();

        match walk.stop {
            Stop::Main(frame) if !self.table.has_exception_callback() => frame.end_run(self.regs),
            _ => self.go_on_because(walk, mark, cause),
        }
    }

    #[inline(always)]
    fn go_on_because(self, walk: Walk<'a>, mark: bool, cause: Cause) {
        let regs = self.regs;
        let mark = if mark { MARKED } else { 0 } | cause.state();

        match walk.stop {
            Stop::Main(frame) => {
                frame.leave_run();
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
            Stop::Async(frame) => frame.end_run(regs),
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

    /// Returns whether what is unwound can be ended, wherever that is: a function that is ended
    /// by itself knows the registers that it has saved.
    pub(super) fn can_end(&self, throw: &Throw<'_>) -> bool {
        let (Stop::Main(frame)
        | Stop::Callback(frame, _)
        | Stop::Async(frame)
        | Stop::Traced(_, _, frame)) = &self.stop;

        throw.frame().is_some_and(|from| frame.can_end(&from))
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
