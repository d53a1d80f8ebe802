// SPDX-License-Identifier: GPL-2.0
//! Programs as trees: what is held is held by a statement around the statements that run meanwhile.

use std::fmt::{self, Display};

/// A whole program.
pub struct Tree {
    pub network: bool,
    /// An exception callback of its own.
    pub caught: bool,
    /// It ends at checkpoints, for which it needs its deadline.
    pub expires: bool,
    /// The verifier keeps a state at each instruction.
    pub many_states: bool,
    pub body: Body,
}

pub type Body = Vec<Stmt>;

/// A branch is taken if this bit of the input is set.
pub type Bit = u8;

pub enum Stmt {
    /// Says that it was here.
    Mark(u32),
    /// Ends the program if the input says so.
    Point(Point),
    If {
        bit: Bit,
        then: Body,
        otherwise: Body,
    },
    Hold(Hold),
    /// Several of one instruction.
    Array {
        what: Resource,
        label: u8,
        count: u8,
        body: Body,
    },
    /// Two references to one object. One instruction releases either; then the other one is left, which
    /// an instruction releases that it has to itself.
    Pair {
        label: u8,
        bit: Bit,
        both: Body,
        left: Body,
    },
    /// Releases what the so-manyth hold around it holds, counted from within the function.
    Early {
        bit: Bit,
        hold: usize,
    },
    /// Puts that into a map, and releases what was there.
    Stash {
        hold: usize,
    },
    Dynptr(Body),
    Within {
        region: Region,
        body: Body,
    },
    Loop {
        by: Loop,
        rounds: u8,
        body: Body,
    },
    Call {
        function: Body,
        global: bool,
        twice: bool,
    },
    CallBack {
        by: Walk,
        rounds: u8,
        /// Where it ends its walk itself.
        stop: Option<Bit>,
        function: Body,
    },
}

/// How a run ends at a point.
#[derive(Clone, Copy)]
pub enum Trigger {
    /// By bpf_throw().
    Throw {
        /// The program has nothing of what it holds any more.
        lost: bool,
    },
    /// By its deadline, which it outlives in a loop.
    Expire {
        within: Wait,
        /// The same.
        lost: bool,
    },
}

/// Loops that go on for longer than a run may.
#[derive(Clone, Copy)]
pub enum Wait {
    MayGoto,
    Num,
    /// By an iterator that is a counted object.
    Unwind(u8),
    Inlined,
    Called,
}

#[derive(Clone, Copy)]
pub struct Point {
    pub cookie: u32,
    pub trigger: Trigger,
}

/// A pointer, held while the body runs.
pub struct Hold {
    pub what: Resource,
    pub label: u8,
    /// What the variable has instead if the bit is set.
    pub other: Option<(Bit, Other)>,
    /// The acquiring function is made to return NULL if the bit is set.
    pub null: Option<Bit>,
    /// The body runs also with NULL, unchecked.
    pub unchecked: bool,
    pub on_stack: bool,
    /// A function acquires it, and does this before and after.
    pub by_callee: Option<(Body, Body)>,
    pub body: Body,
    pub release: Release,
}

#[derive(Clone, Copy)]
pub enum Other {
    /// Not a pointer.
    Number,
    Resource(Resource, u8),
}

pub enum Release {
    Here,
    /// A function releases it, and does this before and after; it does not where the bit is set.
    ByCallee {
        before: Body,
        after: Body,
        kept: Option<Bit>,
    },
}

/// What a pointer refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    Object,
    Node,
    Sleeper,
    Ticket,
    Thing,
    Plain,
    Task,
    Cpumask,
    Record,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Region {
    Rcu,
    Preempt,
    Irq,
    SpinLock,
    ResLock(u8),
    ResLockIrq(u8),
}

/// A loop in a function.
#[derive(Clone, Copy)]
pub enum Loop {
    Counted,
    Num,
    /// By an iterator that is a counted object.
    Unwind(u8),
}

/// A helper that calls back.
#[derive(Clone, Copy)]
pub enum Walk {
    Inlined,
    Called,
    Array,
    Hash,
}

impl Resource {
    /// Of bpf_unwind_test, with a label.
    pub fn is_counted(self) -> bool {
        matches!(
            self,
            Self::Object | Self::Node | Self::Sleeper | Self::Ticket
        )
    }

    /// Made to fail by a label that is 0.
    pub fn can_be_null(self) -> bool {
        matches!(self, Self::Object | Self::Node | Self::Sleeper)
    }
}

/// Where the counted object of a label comes when a throw releases all at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rank {
    pub label: u8,
    /// How many callbacks lie outside of it.
    pub boundary: u8,
    /// Iterators, references, what sleeps.
    pub kind: u8,
}

/// A resource as it is listed.
struct Named(Resource, u8);

impl Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_counted() {
            true => write!(f, "{:?} '{}'", self.0, char::from(self.1)),
            false => write!(f, "{:?}", self.0),
        }
    }
}

/// Lines of a listing, each as deep as its body.
struct Lines<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    depth: usize,
}

impl Lines<'_, '_> {
    fn line(&mut self, text: impl Display) -> fmt::Result {
        writeln!(self.f, "{:1$}{text}", "", 4 * self.depth)
    }

    fn deeper(&mut self, body: &[Stmt]) -> fmt::Result {
        self.depth += 1;
        let listed = body.iter().try_for_each(|stmt| self.stmt(stmt));
        self.depth -= 1;
        listed
    }

    fn stmt(&mut self, stmt: &Stmt) -> fmt::Result {
        match stmt {
            Stmt::Mark(mark) => self.line(format_args!("mark {mark}")),
            Stmt::Point(Point { cookie, trigger }) => {
                let (how, lost) = match trigger {
                    Trigger::Throw { lost } => (format!("throw {cookie}"), lost),
                    Trigger::Expire { within, lost } => {
                        let within = match within {
                            Wait::MayGoto => "may_goto".to_owned(),
                            Wait::Num => "bpf_iter_num".to_owned(),
                            Wait::Unwind(label) => {
                                format!("bpf_iter_unwind '{}'", char::from(*label))
                            }
                            Wait::Inlined => "bpf_loop, inlined".to_owned(),
                            Wait::Called => "bpf_loop".to_owned(),
                        };
                        (format!("expire {cookie} in {within}"), lost)
                    }
                };
                let lost = if *lost {
                    ", its variables overwritten"
                } else {
                    ""
                };
                self.line(format_args!("may {how}{lost}"))
            }
            Stmt::If {
                bit,
                then,
                otherwise,
            } => {
                self.line(format_args!("if bit {bit}"))?;
                self.deeper(then)?;
                if otherwise.is_empty() {
                    return Ok(());
                }
                self.line("else")?;
                self.deeper(otherwise)
            }
            Stmt::Hold(hold) => self.hold(hold),
            Stmt::Array {
                what,
                label,
                count,
                body,
            } => {
                self.line(format_args!("hold {count} of {}", Named(*what, *label)))?;
                self.deeper(body)
            }
            Stmt::Pair {
                label,
                bit,
                both,
                left,
            } => {
                let what = Named(Resource::Object, *label);
                self.line(format_args!("two references to {what}"))?;
                self.deeper(both)?;
                self.line(format_args!("the first one if bit {bit}, else the second"))?;
                self.deeper(left)
            }
            Stmt::Early { bit, hold } => {
                self.line(format_args!("if bit {bit}, release hold {hold}"))
            }
            Stmt::Stash { hold } => self.line(format_args!("put hold {hold} into the map")),
            Stmt::Dynptr(body) => {
                self.line("hold ringbuf dynptr")?;
                self.deeper(body)
            }
            Stmt::Within { region, body } => {
                self.line(match region {
                    Region::Rcu => "within RCU section".to_owned(),
                    Region::Preempt => "within preempt-disabled region".to_owned(),
                    Region::Irq => "within IRQ-saved region".to_owned(),
                    Region::SpinLock => "within bpf_spin_lock".to_owned(),
                    Region::ResLock(i) => format!("within bpf_res_spin_lock {i}"),
                    Region::ResLockIrq(i) => format!("within bpf_res_spin_lock_irqsave {i}"),
                })?;
                self.deeper(body)
            }
            Stmt::Loop { by, rounds, body } => {
                self.line(match by {
                    Loop::Counted => format!("{rounds} times"),
                    Loop::Num => format!("bpf_iter_num {rounds} times"),
                    Loop::Unwind(label) => {
                        format!("bpf_iter_unwind '{}' {rounds} times", char::from(*label))
                    }
                })?;
                self.deeper(body)
            }
            Stmt::Call {
                function,
                global,
                twice,
            } => {
                let kind = if *global { "global" } else { "static" };
                let twice = if *twice { ", twice" } else { "" };
                self.line(format_args!("call {kind} function{twice}"))?;
                self.deeper(function)
            }
            Stmt::CallBack {
                by,
                rounds,
                stop,
                function,
            } => {
                self.line(match by {
                    Walk::Inlined => format!("bpf_loop, inlined, {rounds} times"),
                    Walk::Called => format!("bpf_loop {rounds} times"),
                    Walk::Array => "bpf_for_each_map_elem of an array".to_owned(),
                    Walk::Hash => "bpf_for_each_map_elem of a hash table".to_owned(),
                })?;
                self.deeper(function)?;
                match stop {
                    Some(bit) => self.line(format_args!("    stops if bit {bit}")),
                    None => Ok(()),
                }
            }
        }
    }

    fn hold(&mut self, hold: &Hold) -> fmt::Result {
        let mut text = format!("hold {}", Named(hold.what, hold.label));
        match hold.other {
            None => (),
            Some((bit, Other::Number)) => text += &format!(", a number if bit {bit}"),
            Some((bit, Other::Resource(other, label))) => {
                text += &format!(", {} if bit {bit}", Named(other, label));
            }
        }
        if let Some(bit) = hold.null {
            text += &format!(", NULL if bit {bit}");
        }
        if hold.unchecked {
            text += ", unchecked";
        }
        text += if hold.on_stack { ", on the stack" } else { "" };
        self.line(text)?;
        if let Some((before, after)) = &hold.by_callee {
            self.line("    acquired by a function, before")?;
            self.depth += 1;
            self.deeper(before)?;
            self.line("and after")?;
            self.deeper(after)?;
            self.depth -= 1;
        }
        self.deeper(&hold.body)?;
        if let Release::ByCallee {
            before,
            after,
            kept,
        } = &hold.release
        {
            let kept = kept.map_or(String::new(), |bit| format!(", not if bit {bit}"));
            self.line(format_args!("    released by a function{kept}, before"))?;
            self.depth += 1;
            self.deeper(before)?;
            self.line("and after")?;
            self.deeper(after)?;
            self.depth -= 1;
        }
        Ok(())
    }
}

impl Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.network { "tc" } else { "syscall" };
        let caught = if self.caught {
            ", exception callback"
        } else {
            ""
        };
        let states = if self.many_states {
            ", BPF_F_TEST_STATE_FREQ"
        } else {
            ""
        };
        let mut lines = Lines { f, depth: 0 };
        lines.line(format_args!("{kind} program{caught}{states}"))?;
        lines.deeper(&self.body)
    }
}
