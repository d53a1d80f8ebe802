// SPDX-License-Identifier: GPL-2.0
//! Draws trees that the verifier should accept: each place allows only some statements.

use std::mem;

use super::choice::Choices;
use super::tree::{
    self, Bit, Body, Hold, Loop, Other, Rank, Region, Release, Resource, Stmt, Tree, Trigger, Wait,
    Walk,
};

/// Branches share the bits of the input.
pub const BITS: u32 = 12;

/// Statements of a program.
const STATEMENTS: (u32, u32) = (8, 30);
/// In a row.
const LENGTH: usize = 6;
/// Loops in each other, which multiply what the verifier walks and what runs.
const LOOPS: u8 = 2;
const ROUNDS: u32 = 3;
/// Of the main program.
const WORDS: u8 = 12;
/// Frames beneath it, of the eight that there may be.
const FRAMES: u8 = 7;
/// What all frames have of the 512 bytes, when the main program and its slots have theirs.
const STACK: u16 = 280;
/// What a frame takes beside its words, and what a callback does for its slots.
const FRAME: u16 = 32;
const SLOTS: u16 = 64;
const LOCKS: u8 = 3;

/// What is around a statement.
#[derive(Clone, Copy)]
struct Place {
    network: bool,
    /// Nothing may be called but static functions.
    locked: bool,
    /// Nothing may sleep.
    atomic: bool,
    /// No interrupt comes, and none fills the cache of per-CPU objects, which has room for one.
    irqs_off: bool,
    res_locks: u8,
    boundary: u8,
    loops: u8,
    frames: u8,
    stack: u16,
    words: u8,
}

#[derive(Clone, Copy)]
struct Held {
    what: Resource,
    /// Whatever way was taken.
    always: bool,
    /// Its release may sleep, or that of what the variable has instead.
    sleeps: bool,
}

struct Draw<'a> {
    choices: &'a mut Choices,
    ends: Ends,
    /// It may have done so at a point.
    expires: bool,
    statements: u32,
    /// What the function holds by pointers.
    holds: Vec<Held>,
    marks: u32,
    cookies: u32,
    labels: u8,
    ranks: Vec<Rank>,
}

#[derive(Clone, Copy)]
enum Kind {
    Mark,
    Point,
    If,
    Hold,
    Array,
    Pair,
    Early,
    Stash,
    Dynptr,
    Within,
    Loop,
    Call,
    CallBack,
}

/// How a program ends at its points.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Throws,
    Either,
    /// It does not throw at all.
    Expires,
}

/// A tree, and in which order a throw releases what it holds.
pub fn draw(choices: &mut Choices) -> (Tree, Vec<Rank>) {
    let network = choices.chance(20);
    let caught = choices.chance(75);
    let many_states = choices.chance(30);
    // A run that waits for its deadline takes ten times as long as others, or more.
    let ends = [(7, Ends::Throws), (2, Ends::Either), (1, Ends::Expires)];
    let ends = choices.weighted(&ends).unwrap_or(Ends::Throws);
    let statements = STATEMENTS.0 + choices.below(STATEMENTS.1);
    let mut draw = Draw {
        choices,
        ends,
        expires: false,
        statements,
        holds: Vec::new(),
        marks: 0,
        cookies: 0,
        labels: 0,
        ranks: Vec::new(),
    };
    let mut body = Vec::new();
    let place = Place {
        network,
        locked: false,
        atomic: network,
        irqs_off: false,
        res_locks: 0,
        boundary: 0,
        loops: 0,
        frames: FRAMES,
        stack: STACK,
        words: WORDS,
    };
    // Each takes at least one of the statements.
    while draw.statements > 0 && body.len() < LENGTH {
        body.extend(draw.body(place));
        draw.statements = draw.statements.saturating_sub(1);
    }
    let (ranks, expires) = (draw.ranks, draw.expires);
    let tree = Tree {
        network,
        caught,
        expires,
        many_states,
        body,
    };
    (tree, ranks)
}

impl Draw<'_> {
    fn body(&mut self, place: Place) -> Body {
        let mut body = Vec::new();
        while body.len() < LENGTH
            && self.statements > 0
            && self.choices.chance(if body.is_empty() { 95 } else { 65 })
        {
            self.statements -= 1;
            body.push(self.stmt(place));
        }
        body
    }

    fn stmt(&mut self, place: Place) -> Stmt {
        use Kind::*;
        let free = !place.locked;
        let calls = place.frames > 0 && place.stack >= FRAME + 8;
        let calls_back = place.calls_back() && place.loops < LOOPS;
        let early = self.holds_that(|held| !(place.atomic && held.sleeps));
        let stashable = self.holds_that(Held::can_be_stashed);
        let kinds = [
            (2, Mark, true),
            (10, Point, true),
            (3, If, true),
            (8, Hold, free && place.words >= 1),
            (1, Array, free && place.words >= 3),
            (2, Pair, free && place.words >= 3),
            (3, Early, free && !early.is_empty()),
            (1, Stash, free && !stashable.is_empty()),
            (1, Dynptr, free && place.words >= 2),
            (4, Within, !self.regions(place).is_empty()),
            (3, Loop, place.words >= 1 && place.loops < LOOPS),
            (4, Call, calls),
            (3, CallBack, free && calls_back),
        ];
        let kinds: Vec<_> = kinds
            .into_iter()
            .filter_map(|(weight, kind, allowed)| allowed.then_some((weight, kind)))
            .collect();
        match self.choices.weighted(&kinds).unwrap_or(Mark) {
            Mark => {
                self.marks += 1;
                Stmt::Mark(self.marks)
            }
            Point => {
                self.cookies += 1;
                Stmt::Point(tree::Point {
                    cookie: self.cookies,
                    trigger: self.trigger(place),
                })
            }
            If => Stmt::If {
                bit: self.bit(),
                then: self.body(place),
                otherwise: self.body(place),
            },
            Hold => Stmt::Hold(self.hold(place)),
            Array => self.array(place),
            Pair => Stmt::Pair {
                label: self.label(place, 1),
                bit: self.bit(),
                both: self.body(place.less(3)),
                left: self.body(place.less(3)),
            },
            Early => Stmt::Early {
                bit: self.bit(),
                hold: self.choices.one_of(&early).unwrap_or_default(),
            },
            Stash => Stmt::Stash {
                hold: self.choices.one_of(&stashable).unwrap_or_default(),
            },
            Dynptr => Stmt::Dynptr(self.body(place.less(2))),
            Within => self.within(place),
            Loop => self.loops(place),
            Call => {
                let global = free && self.choices.chance(35);
                let twice = self.choices.chance(20);
                Stmt::Call {
                    function: self.function(place.looped(u8::from(twice)), 0),
                    global,
                    twice,
                }
            }
            CallBack => self.call_back(place),
        }
    }

    fn trigger(&mut self, place: Place) -> Trigger {
        let expires = match self.ends {
            Ends::Throws => false,
            Ends::Either => self.choices.chance(50),
            Ends::Expires => true,
        };
        if !expires {
            let lost = self.choices.chance(25);
            return Trigger::Throw { lost };
        }
        self.expires = true;
        let free = !place.locked;
        let within = [
            (Wait::MayGoto, true),
            (Wait::Num, place.words >= 2),
            (Wait::Unwind(0), free && place.words >= 2),
            (Wait::Inlined, free && place.calls_back()),
            (Wait::Called, free && place.calls_back()),
        ];
        let within: Vec<_> = within
            .into_iter()
            .filter_map(|(within, allowed)| allowed.then_some(within))
            .collect();
        let within = match self.choices.one_of(&within).unwrap_or(Wait::MayGoto) {
            Wait::Unwind(_) => Wait::Unwind(self.label(place, 0)),
            within => within,
        };
        // What it would lose is left if it does not expire, unless it throws then.
        let lost = self.ends == Ends::Either && self.choices.chance(25);
        Trigger::Expire { within, lost }
    }

    /// The places of holds, from within the function.
    fn holds_that(&self, are: impl Fn(&Held) -> bool) -> Vec<usize> {
        let holds = self.holds.iter().enumerate();
        holds
            .filter_map(|(i, held)| are(held).then_some(i))
            .collect()
    }

    fn bit(&mut self) -> Bit {
        self.choices.below(BITS) as Bit
    }

    /// A label of its own, among those that can be printed and are not a ticket's.
    fn label(&mut self, place: Place, kind: u8) -> u8 {
        let label = b'A' + self.labels % (b'~' - b'A' + 1);
        self.labels += 1;
        self.ranks.push(Rank {
            label,
            boundary: place.boundary,
            kind,
        });
        label
    }

    /// A resource and what it is called.
    fn resource(&mut self, place: Place) -> (Resource, u8) {
        use Resource::*;
        let all = [
            (Object, true),
            (Node, true),
            (Ticket, true),
            (Thing, true),
            (Plain, !place.irqs_off),
            (Record, true),
            (Sleeper, !place.atomic),
            (Task, !place.network),
            (Cpumask, !place.network),
        ];
        let all: Vec<_> = all
            .into_iter()
            .filter_map(|(what, allowed)| allowed.then_some(what))
            .collect();
        let what = self.choices.one_of(&all).unwrap_or(Object);
        let label = match what {
            Object | Node => self.label(place, 1),
            Sleeper => self.label(place, 2),
            // One of two.
            Ticket => b'1' + self.choices.below(2) as u8,
            _ => 0,
        };
        (what, label)
    }

    fn hold(&mut self, place: Place) -> Hold {
        let (what, label) = self.resource(place);
        let other = (place.words >= 2 && self.choices.chance(15)).then(|| {
            let other = match self.choices.chance(50) {
                true => {
                    let (other, label) = self.resource(place);
                    Other::Resource(other, label)
                }
                false => Other::Number,
            };
            (self.bit(), other)
        });
        let null = (what.can_be_null() && self.choices.chance(25)).then(|| self.bit());
        let unchecked = self.choices.chance(20);
        let on_stack = self.choices.chance(40);
        let calls = place.frames > 0 && place.stack >= FRAME + 24 && other.is_none();
        let sleeps = |what| what == Resource::Sleeper;
        let other_sleeps = matches!(other, Some((_, Other::Resource(other, _))) if sleeps(other));
        let held = Held {
            what,
            always: other.is_none(),
            sleeps: sleeps(what) || other_sleeps,
        };

        let by_callee = (calls && self.choices.chance(15)).then(|| {
            let mut inner = self.frame(place, 1);
            let before = self.in_function(inner, &[]);
            inner = inner.less(1);
            (before, self.in_function(inner, &[held]))
        });

        self.holds.push(held);
        let body = self.body(place.less(if other.is_some() { 2 } else { 1 }));
        self.holds.pop();

        let release = match calls && self.choices.chance(15) {
            false => Release::Here,
            true => {
                let inner = self.frame(place, 1);
                let before = self.in_function(inner.less(1), &[held]);
                let after = self.in_function(inner, &[]);
                let kept = self.choices.chance(40).then(|| self.bit());
                Release::ByCallee {
                    before,
                    after,
                    kept,
                }
            }
        };
        Hold {
            what,
            label,
            other,
            null,
            unchecked,
            on_stack,
            by_callee,
            body,
            release,
        }
    }

    fn array(&mut self, place: Place) -> Stmt {
        let (what, label) = self.resource(place);
        let count = 2 + self.choices.below(u32::from(place.words.min(5)) - 2) as u8;
        Stmt::Array {
            what,
            label,
            count,
            body: self.body(place.less(count + 1)),
        }
    }

    fn regions(&self, place: Place) -> Vec<Region> {
        let locks = place.res_locks;
        let mut regions = Vec::new();
        if !place.locked {
            regions.extend([Region::Rcu, Region::Preempt]);
            regions.extend((place.words >= 1).then_some(Region::Irq));
            regions.push(Region::SpinLock);
        }
        if locks < LOCKS {
            regions.push(Region::ResLock(locks));
            regions.extend((place.words >= 1).then_some(Region::ResLockIrq(locks)));
        }
        regions
    }

    fn within(&mut self, place: Place) -> Stmt {
        let regions = self.regions(place);
        let region = self.choices.one_of(&regions).unwrap_or(Region::Rcu);
        let mut inner = Place {
            atomic: true,
            ..place
        };
        match region {
            Region::Rcu | Region::Preempt => (),
            Region::Irq => {
                inner = inner.less(1);
                inner.irqs_off = true;
            }
            Region::SpinLock => inner.locked = true,
            Region::ResLock(_) | Region::ResLockIrq(_) => {
                inner = inner.less(1);
                inner.locked = true;
                inner.res_locks += 1;
            }
        }
        Stmt::Within {
            region,
            body: self.body(inner),
        }
    }

    fn loops(&mut self, place: Place) -> Stmt {
        let iter = !place.locked && place.words >= 2;
        let by = match self.choices.below(if iter { 3 } else { 1 }) {
            0 => Loop::Counted,
            1 => Loop::Num,
            _ => Loop::Unwind(self.label(place, 0)),
        };
        let words = match by {
            Loop::Counted => 1,
            Loop::Num | Loop::Unwind(_) => 2,
        };
        Stmt::Loop {
            by,
            rounds: 1 + self.choices.below(ROUNDS) as u8,
            body: self.body(place.less(words).looped(1)),
        }
    }

    fn call_back(&mut self, place: Place) -> Stmt {
        let walks = [Walk::Inlined, Walk::Called, Walk::Array, Walk::Hash];
        let by = self.choices.one_of(&walks).unwrap_or(Walk::Inlined);
        let inner = Place {
            boundary: place.boundary + 1,
            // The walk of a hash table is an RCU read section, of which the verifier does not know.
            atomic: place.atomic || matches!(by, Walk::Hash),
            ..place.looped(1)
        };
        Stmt::CallBack {
            by,
            rounds: 1 + self.choices.below(ROUNDS) as u8,
            stop: self.choices.chance(25).then(|| self.bit()),
            function: self.function(inner, SLOTS),
        }
    }

    /// A place in the frame of a function that needs so many words at least.
    fn frame(&mut self, place: Place, least: u8) -> Place {
        let most = ((place.stack - FRAME) / 8).min(5) as u8;
        let words = least + self.choices.below(u32::from(most.max(least) - least) + 1) as u8;
        Place {
            frames: place.frames - 1,
            stack: place.stack.saturating_sub(FRAME + 8 * u16::from(words)),
            words,
            ..place
        }
    }

    fn function(&mut self, place: Place, slots: u16) -> Body {
        let stack = place.stack - slots;
        let inner = self.frame(Place { stack, ..place }, 0);
        self.in_function(inner, &[])
    }

    /// Statements of another function, which has these pointers.
    fn in_function(&mut self, place: Place, holds: &[Held]) -> Body {
        let outer = mem::replace(&mut self.holds, holds.to_vec());
        let body = self.body(place);
        self.holds = outer;
        body
    }
}

impl Held {
    /// Its type has a destructor, and it is what the map takes.
    fn can_be_stashed(&self) -> bool {
        self.what == Resource::Object && self.always
    }
}

impl Place {
    /// There is room for a function that a helper calls.
    fn calls_back(self) -> bool {
        self.frames > 0 && self.stack >= 2 * FRAME + SLOTS
    }

    fn less(self, words: u8) -> Self {
        Self {
            words: self.words.saturating_sub(words),
            ..self
        }
    }

    fn looped(self, loops: u8) -> Self {
        Self {
            loops: self.loops + loops,
            ..self
        }
    }
}
