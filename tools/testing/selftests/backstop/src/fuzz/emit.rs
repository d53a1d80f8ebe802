// SPDX-License-Identifier: GPL-2.0
//! Makes a tree into a program: one that throws, or its twin, which does by hand what a throw does.
//!
//! Where the twin ends at a point, a function releases what it holds, the last first, and tells its
//! caller, which does the same. A callback returns 1, and what has called it back is told by the state.
//!
//! Each function has what it holds in registers that calls preserve, or on its stack; nothing else
//! outlives a statement.

use std::collections::VecDeque;

use libbpf_rs::libbpf_sys as sys;

use super::assemble::{Assembler, Condition, FP, FunctionType, Label, Reg};
use super::state::{self, State};
use super::tree::{
    Bit, Body, Hold, Loop, Other, Point, Region, Release, Resource, Stmt, Tree, Trigger, Wait, Walk,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Throwing,
    Twin,
}

/// What an exception callback adds to the cookie.
pub const CAUGHT: i32 = 1000;

/// What a run that its deadline has ended returns without an exception callback, and what that gets.
const EXPIRED: i32 = -libc::ETIMEDOUT;
/// The same of a tc program.
const UNDECIDED: i32 = -1;
/// As many as a loop can make, for longer than the deadline.
const ROUNDS: i32 = 8 << 20;

/// What functions of the twin return: they did as they should, they did not release what they were
/// given, they have ended at a point.
const DONE: i32 = 0;
const KEPT: i32 = 1;
const ENDED: i32 = 2;

/// A number in a variable that might have a pointer.
const NUMBER: i32 = 7;
const RECORD_SIZE: i32 = 8;

static NOTHING: Body = Vec::new();

const LOCKS: [&str; 3] = [".data.res0", ".data.res1", ".data.res2"];

/// Where a function has a value.
#[derive(Clone, Copy)]
enum Place {
    Register(Reg),
    /// Below the frame pointer.
    Stack(i16),
}

#[derive(Clone, Copy)]
struct Pointer {
    what: Resource,
    place: Place,
    /// What it is if the place beside it is not 0.
    other: Option<(Other, Place)>,
}

/// What a function has to release when it ends.
#[derive(Clone, Copy)]
enum Held {
    Pointer(Pointer),
    Num(i16),
    Unwind(i16),
    Dynptr(i16),
    Region(Region, i16),
}

#[derive(Clone, Copy)]
enum Role<'a> {
    Main,
    Function(FunctionType),
    Callback(Option<Bit>),
    Acquirer(&'a Hold),
    Releaser(&'a Hold),
}

struct Frame<'a> {
    role: Role<'a>,
    registers: Vec<Reg>,
    stack: i16,
    held: Vec<Held>,
    /// What statements count from within the function.
    pointers: Vec<Pointer>,
    /// Where the main program goes when a point has ended it.
    ended: Option<Label>,
}

struct Emit<'a> {
    asm: Assembler,
    side: Side,
    /// What a run returns, or is caught, that its deadline ends.
    expired: i32,
    frame: Frame<'a>,
    /// Functions that are called and not there yet.
    called: VecDeque<(Label, Role<'a>, &'a Body)>,
}

/// Whether the deadline has ended the run at a point, none of which throws a negative number.
pub fn has_expired(state: &State) -> bool {
    state.thrown && (state.cookie as i64) < 0
}

pub fn emit(tree: &Tree, side: Side) -> Assembler {
    let mut emit = Emit {
        asm: Assembler::default(),
        side,
        expired: match tree.network && !tree.caught {
            true => UNDECIDED,
            false => EXPIRED,
        },
        frame: Frame::new(Role::Main),
        called: VecDeque::new(),
    };
    emit.main(tree);
    while let Some((label, role, body)) = emit.called.pop_front() {
        emit.frame = Frame::new(role);
        emit.function(label, body);
    }
    if side == Side::Throwing && tree.caught {
        emit.exception_callback();
    }
    emit.asm
}

impl<'a> Frame<'a> {
    fn new(role: Role<'a>) -> Self {
        Self {
            role,
            registers: vec![9, 8, 7, 6],
            stack: 0,
            held: Vec::new(),
            pointers: Vec::new(),
            ended: None,
        }
    }

    fn words(&mut self, count: u8) -> i16 {
        self.stack -= 8 * i16::from(count);
        self.stack
    }

    fn free_words(&mut self, count: u8) {
        self.stack += 8 * i16::from(count);
    }

    fn place(&mut self, on_stack: bool) -> Place {
        match self.registers.pop() {
            Some(register) if !on_stack => Place::Register(register),
            kept => {
                self.registers.extend(kept);
                Place::Stack(self.words(1))
            }
        }
    }

    fn free(&mut self, place: Place) {
        match place {
            Place::Register(register) => self.registers.push(register),
            Place::Stack(_) => self.free_words(1),
        }
    }
}

impl<'a> Emit<'a> {
    fn main(&mut self, tree: &'a Tree) {
        let main = self.asm.label();
        let throws = self.side == Side::Throwing;
        self.asm.begin(
            main,
            match throws && tree.caught {
                true => FunctionType::MainCaught,
                false => FunctionType::Main,
            },
        );
        self.cpu(state::BEFORE);
        self.body(&tree.body);
        self.cpu(state::AFTER);
        self.asm.set(0, 0);
        self.asm.exit();
        if let Some(ended) = self.frame.ended {
            self.asm.place(ended);
            self.cpu(state::AFTER);
            self.state(1);
            self.asm.load(0, 1, state::COOKIE);
            if tree.caught {
                self.asm.add(0, CAUGHT);
            }
            self.asm.exit();
        }
    }

    fn exception_callback(&mut self) {
        let callback = self.asm.label();
        self.asm.begin(callback, FunctionType::ExceptionCallback);
        self.asm.copy(6, 1);
        self.cpu(state::AFTER);
        self.asm.copy(0, 6);
        self.asm.add(0, CAUGHT);
        self.asm.exit();
    }

    fn function(&mut self, label: Label, body: &'a Body) {
        let role = self.frame.role;
        self.asm.begin(
            label,
            match role {
                Role::Function(of) => of,
                _ => FunctionType::Static,
            },
        );
        match role {
            Role::Main => (),
            Role::Function(_) => {
                self.body(body);
                self.return_value(DONE);
            }
            Role::Callback(stop) => {
                self.body(body);
                if let Some(bit) = stop {
                    let stops = self.asm.label();
                    self.branch(bit, stops);
                    self.return_value(0);
                    self.asm.place(stops);
                    self.return_value(1);
                } else {
                    self.return_value(0);
                }
            }
            Role::Acquirer(hold) => self.acquirer(hold, body),
            Role::Releaser(hold) => self.releaser(hold, body),
        }
    }

    fn acquirer(&mut self, hold: &'a Hold, before: &'a Body) {
        let Some((_, after)) = &hold.by_callee else {
            return;
        };
        self.body(before);
        self.acquire(hold.what, hold.label, hold.null);
        let place = self.frame.place(!hold.on_stack);
        self.put(place, 0);
        let pointer = Pointer {
            what: hold.what,
            place,
            other: None,
        };
        self.holding(pointer, after);
        self.get(0, place);
        self.asm.exit();
    }

    fn releaser(&mut self, hold: &'a Hold, before: &'a Body) {
        let Release::ByCallee { after, kept, .. } = &hold.release else {
            return;
        };
        let place = self.frame.place(!hold.on_stack);
        self.put(place, 1);
        let pointer = Pointer {
            what: hold.what,
            place,
            other: None,
        };
        self.holding(pointer, before);
        let keeps = self.asm.label();
        if let Some(bit) = kept {
            self.branch(*bit, keeps);
        }
        self.release_pointer(&pointer, true);
        self.frame.free(place);
        self.body(after);
        self.return_value(DONE);
        if kept.is_some() {
            let gone = self.asm.label();
            self.asm.place(keeps);
            self.get(1, place);
            self.asm.jump_if(1, Condition::Equal, 0, gone);
            self.return_value(KEPT);
            self.asm.place(gone);
            self.return_value(DONE);
        }
    }

    fn return_value(&mut self, value: i32) {
        self.asm.set(0, value);
        self.asm.exit();
    }

    fn body(&mut self, body: &'a Body) {
        for stmt in body {
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Mark(mark) => self.mark(*mark),
            Stmt::Point(point) => self.point(*point),
            Stmt::If {
                bit,
                then,
                otherwise,
            } => {
                let (set, end) = (self.asm.label(), self.asm.label());
                self.branch(*bit, set);
                self.body(otherwise);
                self.asm.jump(end);
                self.asm.place(set);
                self.body(then);
                self.asm.place(end);
            }
            Stmt::Hold(hold) => self.hold(hold),
            Stmt::Array {
                what,
                label,
                count,
                body,
            } => self.array(*what, *label, *count, body),
            Stmt::Pair {
                label,
                bit,
                both,
                left,
            } => self.pair(*label, *bit, both, left),
            Stmt::Early { bit, hold } => {
                let pointer = self.frame.pointers[*hold];
                let (set, end) = (self.asm.label(), self.asm.label());
                self.branch(*bit, set);
                self.asm.jump(end);
                self.asm.place(set);
                self.release_pointer(&pointer, true);
                self.put_value(pointer.place, 0);
                self.asm.place(end);
            }
            Stmt::Stash { hold } => self.stash(*hold),
            Stmt::Dynptr(body) => self.dynptr(body),
            Stmt::Within { region, body } => self.within(*region, body),
            Stmt::Loop { by, rounds, body } => self.loops(*by, *rounds, body),
            Stmt::Call {
                function,
                global,
                twice,
            } => {
                let of = match global {
                    true => FunctionType::Global,
                    false => FunctionType::Static,
                };
                let label = self.asm.label();
                self.called.push_back((label, Role::Function(of), function));
                for _ in 0..=u8::from(*twice) {
                    self.asm.set(1, 0);
                    self.asm.call(label);
                    self.leave_if_ended();
                }
            }
            Stmt::CallBack {
                by,
                rounds,
                stop,
                function,
            } => self.call_back(*by, *rounds, *stop, function),
        }
    }

    fn mark(&mut self, mark: u32) {
        self.state(1);
        self.asm.load(2, 1, state::TRACE);
        self.asm.multiply(2, 31);
        self.asm.add(2, mark as i32);
        self.asm.store(1, state::TRACE, 2);
    }

    fn point(&mut self, point: Point) {
        let goes_on = self.asm.label();
        self.state(1);
        self.asm.load_word(2, 1, state::COUNTDOWN);
        self.asm.add(2, -1);
        self.asm.store_word(1, state::COUNTDOWN, 2);
        self.asm.jump_if(2, Condition::NotEqual, 0, goes_on);
        self.asm.set(2, 1);
        self.asm.store_word(1, state::THROWN, 2);
        let cookie = point.cookie as i32;
        let (ends_with, lost) = match point.trigger {
            Trigger::Throw { lost } => (cookie, lost),
            Trigger::Expire { lost, .. } => (self.expired, lost),
        };
        self.asm.store_value(1, state::COOKIE, ends_with);
        if lost && self.side == Side::Throwing {
            self.lose();
        }
        let throws = match point.trigger {
            Trigger::Throw { .. } => true,
            Trigger::Expire { within, .. } => {
                self.wait(within);
                lost
            }
        };
        match self.side {
            Side::Twin => self.leave(),
            Side::Throwing if throws => {
                self.asm.set(1, cookie);
                self.asm.kfunc("bpf_throw");
            }
            Side::Throwing => (),
        }
        self.asm.place(goes_on);
    }

    /// Goes on until the deadline ends the run. The twin leaves at once.
    fn wait(&mut self, within: Wait) {
        let head = self.asm.label();
        let throws = self.side == Side::Throwing;
        match within {
            Wait::MayGoto if throws => {
                let end = self.asm.label();
                self.asm.place(head);
                self.asm.may_goto(end);
                self.asm.jump(head);
                self.asm.place(end);
                // The kernel ends it after 250 ms, of which an interruption can take most.
                self.short_of(state::LAPSED as i32);
            }
            Wait::Inlined | Wait::Called if throws => {
                let label = self.asm.label();
                self.called
                    .push_back((label, Role::Callback(None), &NOTHING));
                self.bpf_loop(ROUNDS, label, matches!(within, Wait::Inlined));
            }
            Wait::MayGoto | Wait::Inlined | Wait::Called => (),
            Wait::Num | Wait::Unwind(_) => {
                let off = self.frame.words(2);
                let by = match within {
                    Wait::Unwind(label) => Loop::Unwind(label),
                    _ => Loop::Num,
                };
                let (held, next) = self.iterator(by, ROUNDS, off);
                if throws {
                    self.asm.place(head);
                    self.address(1, off);
                    self.asm.kfunc(next);
                    self.asm.jump_if(0, Condition::NotEqual, 0, head);
                }
                self.release(&held, false);
                self.frame.free_words(2);
            }
        }
    }

    /// Overwrites all variables of the function that could have pointers.
    fn lose(&mut self) {
        (6..=9).for_each(|register| self.asm.set(register, 0));
        for held in self.frame.held.clone() {
            if let Held::Pointer(Pointer { place, .. }) = held {
                self.put_value(place, 0);
            }
        }
    }

    /// Ends the function of a twin, and with it what it holds.
    fn leave(&mut self) {
        for held in self.frame.held.clone().iter().rev() {
            self.release(held, false);
        }
        match self.frame.role {
            Role::Main => {
                let ended = match self.frame.ended {
                    Some(ended) => ended,
                    None => self.asm.label(),
                };
                self.frame.ended = Some(ended);
                self.asm.jump(ended);
            }
            Role::Function(_) | Role::Releaser(_) => self.return_value(ENDED),
            Role::Callback(_) => self.return_value(1),
            Role::Acquirer(_) => self.return_value(0),
        }
    }

    /// After the call of a function that returns no pointer.
    fn leave_if_ended(&mut self) {
        if self.side == Side::Twin {
            let goes_on = self.asm.label();
            self.asm.jump_if(0, Condition::NotEqual, ENDED, goes_on);
            self.leave();
            self.asm.place(goes_on);
        }
    }

    /// After a call that does not tell.
    fn leave_if_state_says(&mut self) {
        if self.side == Side::Twin {
            let goes_on = self.asm.label();
            self.state(1);
            self.asm.load_word(2, 1, state::THROWN);
            self.asm.jump_if(2, Condition::Equal, 0, goes_on);
            self.leave();
            self.asm.place(goes_on);
        }
    }

    fn hold(&mut self, hold: &'a Hold) {
        let place = self.frame.place(hold.on_stack);
        let selector = hold.other.map(|_| self.frame.place(true));
        let end = self.asm.label();
        if let Some((before, _)) = &hold.by_callee {
            let label = self.asm.label();
            self.called.push_back((label, Role::Acquirer(hold), before));
            self.asm.set(1, 0);
            self.asm.call(label);
            self.put(place, 0);
            let goes_on = self.asm.label();
            self.asm.jump_if(0, Condition::NotEqual, 0, goes_on);
            self.leave_if_state_says();
            self.asm.place(goes_on);
        } else if let (Some((bit, other)), Some(selector)) = (hold.other, selector) {
            let (set, joined) = (self.asm.label(), self.asm.label());
            self.branch(bit, set);
            self.acquire(hold.what, hold.label, hold.null);
            self.put(place, 0);
            self.put_value(selector, 0);
            self.asm.jump(joined);
            self.asm.place(set);
            match other {
                Other::Number => self.asm.set(0, NUMBER),
                Other::Resource(what, label) => self.acquire(what, label, None),
            }
            self.put(place, 0);
            self.put_value(selector, 1);
            self.asm.place(joined);
        } else {
            self.acquire(hold.what, hold.label, hold.null);
            self.put(place, 0);
        }
        if !hold.unchecked {
            self.get(1, place);
            self.asm.jump_if(1, Condition::Equal, 0, end);
        }

        let other = hold.other.and_then(|(_, other)| Some((other, selector?)));
        let pointer = Pointer {
            what: hold.what,
            place,
            other,
        };
        self.holding(pointer, &hold.body);
        match &hold.release {
            Release::Here => self.release_pointer(&pointer, true),
            Release::ByCallee { before, kept, .. } => {
                let label = self.asm.label();
                let done = self.asm.label();
                self.called.push_back((label, Role::Releaser(hold), before));
                self.get(1, place);
                self.asm.jump_if(1, Condition::Equal, 0, done);
                self.asm.call(label);
                self.leave_if_ended();
                if kept.is_some() {
                    self.asm.jump_if(0, Condition::NotEqual, KEPT, done);
                    self.release_pointer(&pointer, true);
                }
                self.asm.place(done);
            }
        }
        self.asm.place(end);
        if let Some(selector) = selector {
            self.frame.free(selector);
        }
        self.frame.free(place);
    }

    fn holding(&mut self, pointer: Pointer, body: &'a Body) {
        self.frame.held.push(Held::Pointer(pointer));
        self.frame.pointers.push(pointer);
        self.body(body);
        self.frame.pointers.pop();
        self.frame.held.pop();
    }

    fn array(&mut self, what: Resource, label: u8, count: u8, body: &'a Body) {
        let base = self.frame.words(count);
        let round = self.frame.place(false);
        let (head, end) = (self.asm.label(), self.asm.label());
        let places = (0..i16::from(count)).map(|i| Place::Stack(base + 8 * i));
        let pointers: Vec<_> = places
            .map(|place| Pointer {
                what,
                place,
                other: None,
            })
            .collect();
        for pointer in &pointers {
            self.put_value(pointer.place, 0);
        }
        self.put_value(round, 0);
        self.asm.place(head);
        self.get(1, round);
        self.asm
            .jump_if(1, Condition::NotLess, i32::from(count), end);
        self.acquire(what, label, None);
        self.get(1, round);
        self.asm.multiply(1, 8);
        self.asm.copy(2, FP);
        self.asm.add_register(2, 1);
        self.asm.store(2, base, 0);
        self.next_round(round);
        self.asm.jump(head);
        self.asm.place(end);

        let held = pointers.iter().copied().map(Held::Pointer);
        self.frame.held.extend(held);
        self.body(body);
        for pointer in pointers.iter().rev() {
            self.frame.held.pop();
            self.release_pointer(pointer, true);
        }
        self.frame.free(round);
        self.frame.free_words(count);
    }

    fn pair(&mut self, label: u8, bit: Bit, both: &'a Body, left: &'a Body) {
        let what = Resource::Object;
        let places = [false, true, true].map(|on_stack| self.frame.place(on_stack));
        let [first, second, selector] = places;
        let (set, either, alone, end) = (
            self.asm.label(),
            self.asm.label(),
            self.asm.label(),
            self.asm.label(),
        );
        let held = [first, second].map(|place| Pointer {
            what,
            place,
            other: None,
        });
        self.acquire(what, label, None);
        self.put(first, 0);
        self.asm.jump_if(0, Condition::Equal, 0, end);
        self.asm.copy(1, 0);
        self.asm.kfunc("bpf_unwind_object_get");
        self.put(second, 0);
        self.frame.held.extend(held.map(Held::Pointer));
        self.body(both);
        self.frame.held.truncate(self.frame.held.len() - 2);

        // The verifier knows by the selector which one is left.
        self.branch(bit, set);
        self.put_value(selector, 0);
        self.get(1, first);
        self.get(2, second);
        self.put(first, 2);
        self.asm.jump(either);
        self.asm.place(set);
        self.put_value(selector, 1);
        self.get(1, second);
        self.asm.place(either);
        self.release_what(what, true);
        self.frame.held.push(Held::Pointer(held[0]));
        self.body(left);
        self.frame.held.pop();
        self.get(2, selector);
        self.get(1, first);
        self.asm.jump_if(2, Condition::Equal, 0, alone);
        self.release_what(what, true);
        self.asm.jump(end);
        self.asm.place(alone);
        self.release_what(what, true);
        self.asm.place(end);
        for place in places.into_iter().rev() {
            self.frame.free(place);
        }
    }

    fn next_round(&mut self, round: Place) {
        self.get(1, round);
        self.asm.add(1, 1);
        self.put(round, 1);
    }

    fn stash(&mut self, hold: usize) {
        let place = self.frame.pointers[hold].place;
        let done = self.asm.label();
        self.get(2, place);
        self.asm.jump_if(2, Condition::Equal, 0, done);
        self.asm.value(1, "shelf", 0);
        self.asm.helper(sys::BPF_FUNC_kptr_xchg);
        self.put_value(place, 0);
        self.asm.jump_if(0, Condition::Equal, 0, done);
        self.asm.copy(1, 0);
        self.release_what(Resource::Object, true);
        self.asm.place(done);
    }

    fn dynptr(&mut self, body: &'a Body) {
        let off = self.frame.words(2);
        self.asm.map(1, "ring");
        self.asm.set(2, RECORD_SIZE);
        self.asm.set(3, 0);
        self.address(4, off);
        self.asm.helper(sys::BPF_FUNC_ringbuf_reserve_dynptr);
        let got = self.asm.label();
        self.asm.jump_if(0, Condition::Equal, 0, got);
        self.short_of(20);
        self.asm.place(got);
        self.during(Held::Dynptr(off), body);
        self.frame.free_words(2);
    }

    fn during(&mut self, held: Held, body: &'a Body) {
        self.frame.held.push(held);
        self.body(body);
        self.frame.held.pop();
        self.release(&held, true);
    }

    fn within(&mut self, region: Region, body: &'a Body) {
        let off = self.frame.words(1);
        let end = self.asm.label();
        match region {
            Region::Rcu => self.asm.kfunc("bpf_rcu_read_lock"),
            Region::Preempt => self.asm.kfunc("bpf_preempt_disable"),
            Region::Irq => {
                self.address(1, off);
                self.asm.kfunc("bpf_local_irq_save");
            }
            Region::SpinLock => {
                self.asm.value(1, ".data.spin", 0);
                self.asm.helper(sys::BPF_FUNC_spin_lock);
            }
            Region::ResLock(lock) => {
                self.asm.value(1, LOCKS[usize::from(lock)], 0);
                self.asm.kfunc("bpf_res_spin_lock");
                self.asm.jump_if(0, Condition::NotEqual, 0, end);
            }
            Region::ResLockIrq(lock) => {
                self.asm.value(1, LOCKS[usize::from(lock)], 0);
                self.address(2, off);
                self.asm.kfunc("bpf_res_spin_lock_irqsave");
                self.asm.jump_if(0, Condition::NotEqual, 0, end);
            }
        }
        self.during(Held::Region(region, off), body);
        self.asm.place(end);
        self.frame.free_words(1);
    }

    fn loops(&mut self, by: Loop, rounds: u8, body: &'a Body) {
        let (head, end) = (self.asm.label(), self.asm.label());
        let rounds = i32::from(rounds);
        if let Loop::Counted = by {
            let round = self.frame.place(false);
            self.put_value(round, 0);
            self.asm.place(head);
            self.get(1, round);
            self.asm.jump_if(1, Condition::NotLess, rounds, end);
            self.body(body);
            self.next_round(round);
            self.asm.jump(head);
            self.asm.place(end);
            self.frame.free(round);
            return;
        }
        let off = self.frame.words(2);
        let (held, next) = self.iterator(by, rounds, off);
        self.asm.place(head);
        self.address(1, off);
        self.asm.kfunc(next);
        self.asm.jump_if(0, Condition::Equal, 0, end);
        self.frame.held.push(held);
        self.body(body);
        self.frame.held.pop();
        self.asm.jump(head);
        self.asm.place(end);
        self.release(&held, true);
        self.frame.free_words(2);
    }

    /// Makes an iterator. Returns it, and what has it go on.
    fn iterator(&mut self, by: Loop, rounds: i32, off: i16) -> (Held, &'static str) {
        self.address(1, off);
        self.asm.set(3, rounds);
        match by {
            Loop::Unwind(label) => {
                self.asm.set(2, i32::from(label));
                self.asm.kfunc("bpf_iter_unwind_new");
                (Held::Unwind(off), "bpf_iter_unwind_next")
            }
            Loop::Num | Loop::Counted => {
                self.asm.set(2, 0);
                self.asm.kfunc("bpf_iter_num_new");
                (Held::Num(off), "bpf_iter_num_next")
            }
        }
    }

    fn bpf_loop(&mut self, rounds: i32, function: Label, inlined: bool) {
        self.asm.set(1, rounds);
        self.asm.function(2, function);
        self.asm.set(3, 0);
        match inlined {
            true => self.asm.set(4, 0),
            // The verifier does not know its flags.
            false => {
                self.state(5);
                self.asm.load_word(4, 5, state::ZERO);
            }
        }
        self.asm.helper(sys::BPF_FUNC_loop);
    }

    fn call_back(&mut self, by: Walk, rounds: u8, stop: Option<Bit>, function: &'a Body) {
        let label = self.asm.label();
        self.called
            .push_back((label, Role::Callback(stop), function));
        let map = match by {
            Walk::Inlined | Walk::Called => None,
            Walk::Array => Some("array"),
            Walk::Hash => Some("hash"),
        };
        match map {
            None => self.bpf_loop(i32::from(rounds), label, matches!(by, Walk::Inlined)),
            Some(map) => {
                self.asm.map(1, map);
                self.asm.function(2, label);
                self.asm.set(3, 0);
                self.asm.set(4, 0);
                self.asm.helper(sys::BPF_FUNC_for_each_map_elem);
            }
        }
        self.leave_if_state_says();
    }

    /// Leaves the pointer in r0.
    fn acquire(&mut self, what: Resource, label: u8, null: Option<Bit>) {
        let got = self.asm.label();
        match what {
            Resource::Object | Resource::Node | Resource::Sleeper => {
                self.asm.set(1, i32::from(label));
                if let Some(bit) = null {
                    let goes_on = self.asm.label();
                    self.state(2);
                    self.asm.load_word(2, 2, state::BITS);
                    self.asm.set(1, 0);
                    self.asm.jump_if(2, Condition::Set, 1 << bit, goes_on);
                    self.asm.set(1, i32::from(label));
                    self.asm.place(goes_on);
                }
                self.asm.kfunc(match what {
                    Resource::Node => "bpf_unwind_node_acquire",
                    Resource::Sleeper => "bpf_unwind_sleeper_acquire",
                    _ => "bpf_unwind_object_acquire",
                });
                return;
            }
            Resource::Ticket => {
                self.asm.set(1, i32::from(label) - i32::from(b'1'));
                self.asm.kfunc("bpf_unwind_ticket_acquire");
                return;
            }
            Resource::Thing => {
                self.asm.set_type(1, "thing");
                self.asm.kfunc("bpf_obj_new");
            }
            Resource::Plain => {
                self.asm.set_type(1, "plain");
                self.asm.kfunc("bpf_percpu_obj_new");
            }
            Resource::Task => {
                self.asm.helper(sys::BPF_FUNC_get_current_task_btf);
                self.asm.copy(1, 0);
                self.asm.kfunc("bpf_task_acquire");
            }
            Resource::Cpumask => self.asm.kfunc("bpf_cpumask_create"),
            Resource::Record => {
                self.asm.map(1, "ring");
                self.asm.set(2, RECORD_SIZE);
                self.asm.set(3, 0);
                self.asm.helper(sys::BPF_FUNC_ringbuf_reserve);
            }
        }
        self.asm.jump_if(0, Condition::NotEqual, 0, got);
        self.short_of(what as i32 + 1);
        self.asm.set(0, 0);
        self.asm.place(got);
    }

    /// Releases, and counts what the program itself has released of counted objects.
    fn release(&mut self, held: &Held, counts: bool) {
        match *held {
            Held::Pointer(pointer) => self.release_pointer(&pointer, counts),
            Held::Num(off) => {
                self.address(1, off);
                self.asm.kfunc("bpf_iter_num_destroy");
            }
            Held::Unwind(off) => {
                self.address(1, off);
                self.asm.kfunc("bpf_iter_unwind_destroy");
                self.count(counts);
            }
            Held::Dynptr(off) => {
                self.address(1, off);
                self.asm.set(2, 0);
                self.asm.helper(sys::BPF_FUNC_ringbuf_discard_dynptr);
            }
            Held::Region(region, off) => match region {
                Region::Rcu => self.asm.kfunc("bpf_rcu_read_unlock"),
                Region::Preempt => self.asm.kfunc("bpf_preempt_enable"),
                Region::Irq => {
                    self.address(1, off);
                    self.asm.kfunc("bpf_local_irq_restore");
                }
                Region::SpinLock => {
                    self.asm.value(1, ".data.spin", 0);
                    self.asm.helper(sys::BPF_FUNC_spin_unlock);
                }
                Region::ResLock(lock) => {
                    self.asm.value(1, LOCKS[usize::from(lock)], 0);
                    self.asm.kfunc("bpf_res_spin_unlock");
                }
                Region::ResLockIrq(lock) => {
                    self.asm.value(1, LOCKS[usize::from(lock)], 0);
                    self.address(2, off);
                    self.asm.kfunc("bpf_res_spin_unlock_irqrestore");
                }
            },
        }
    }

    fn release_pointer(&mut self, pointer: &Pointer, counts: bool) {
        let done = self.asm.label();
        self.get(1, pointer.place);
        if let Some((other, selector)) = pointer.other {
            let first = self.asm.label();
            self.get(2, selector);
            self.asm.jump_if(2, Condition::Equal, 0, first);
            if let Other::Resource(what, _) = other {
                self.asm.jump_if(1, Condition::Equal, 0, done);
                self.release_what(what, counts);
            }
            self.asm.jump(done);
            self.asm.place(first);
        }
        self.asm.jump_if(1, Condition::Equal, 0, done);
        self.release_what(pointer.what, counts);
        self.asm.place(done);
    }

    /// Of the pointer in r1.
    fn release_what(&mut self, what: Resource, counts: bool) {
        match what {
            Resource::Object => self.asm.kfunc("bpf_unwind_object_release"),
            Resource::Node => self.asm.kfunc("bpf_unwind_node_release"),
            Resource::Sleeper => self.asm.kfunc("bpf_unwind_sleeper_release"),
            Resource::Ticket => self.asm.kfunc("bpf_unwind_ticket_release"),
            Resource::Thing => self.asm.kfunc("bpf_obj_drop"),
            Resource::Plain => self.asm.kfunc("bpf_percpu_obj_drop"),
            Resource::Task => self.asm.kfunc("bpf_task_release"),
            Resource::Cpumask => self.asm.kfunc("bpf_cpumask_release"),
            Resource::Record => {
                self.asm.set(2, 0);
                self.asm.helper(sys::BPF_FUNC_ringbuf_discard);
            }
        }
        self.count(counts && what.is_counted());
    }

    fn count(&mut self, counts: bool) {
        if counts {
            self.state(1);
            self.asm.load_word(2, 1, state::RELEASED);
            self.asm.add(2, 1);
            self.asm.store_word(1, state::RELEASED, 2);
        }
    }

    fn short_of(&mut self, what: i32) {
        self.state(1);
        self.asm.set(2, what);
        self.asm.store_word(1, state::SHORT_OF, 2);
    }

    /// Goes there if the bit of the input is set.
    fn branch(&mut self, bit: Bit, to: Label) {
        self.state(1);
        self.asm.load_word(2, 1, state::BITS);
        self.asm.jump_if(2, Condition::Set, 1 << bit, to);
    }

    fn cpu(&mut self, off: i16) {
        self.asm.value(1, ".data.state", off as u32);
        self.asm.kfunc("bpf_unwind_cpu");
    }

    fn state(&mut self, register: Reg) {
        self.asm.value(register, ".data.state", 0);
    }

    fn address(&mut self, register: Reg, off: i16) {
        self.asm.copy(register, FP);
        self.asm.add(register, i32::from(off));
    }

    fn get(&mut self, register: Reg, place: Place) {
        match place {
            Place::Register(from) => self.asm.copy(register, from),
            Place::Stack(off) => self.asm.load(register, FP, off),
        }
    }

    fn put(&mut self, place: Place, register: Reg) {
        match place {
            Place::Register(to) => self.asm.copy(to, register),
            Place::Stack(off) => self.asm.store(FP, off, register),
        }
    }

    fn put_value(&mut self, place: Place, value: i32) {
        match place {
            Place::Register(to) => self.asm.set(to, value),
            Place::Stack(off) => self.asm.store_value(FP, off, value),
        }
    }
}
