// SPDX-License-Identifier: GPL-2.0
//! In which order programs are shown.

use std::cmp::Reverse;

use clap::ValueEnum;

use crate::program::{Deadline, Program};

/// Names and ids go up; of what is counted and measured the most comes first.
#[derive(Clone, Copy, ValueEnum)]
pub enum Key {
    Id,
    Name,
    Type,
    /// How long a run may take
    Deadline,
    /// The longest run
    Longest,
    Throws,
    /// Runs ended for their deadline
    Ended,
    /// Runs ended by an operator
    Killed,
    /// When a run was last ended
    Last,
}

/// Sorts, and by id what is equal.
pub fn sort(programs: &mut [Program], key: Key) {
    let most = |of: fn(&Deadline) -> u64| move |p: &Program| p.deadline.as_ref().map(of);
    let limit = most(|deadline| deadline.limit_ns.unwrap_or(0));
    let longest = most(|deadline| deadline.longest_ns);
    let ended = most(|deadline| deadline.ended_by_deadline);
    let killed = most(|deadline| deadline.ended_by_operator);
    let last = most(|deadline| deadline.last_ended.as_ref().map_or(0, |last| last.at_ns));

    programs.sort_by_key(|program| program.id);
    match key {
        Key::Id => (),
        Key::Name => programs.sort_by(|a, b| a.name.cmp(&b.name)),
        Key::Type => programs.sort_by(|a, b| a.kind.cmp(&b.kind)),
        Key::Deadline => programs.sort_by_key(|program| Reverse(limit(program))),
        Key::Longest => programs.sort_by_key(|program| Reverse(longest(program))),
        Key::Throws => programs.sort_by_key(|program| Reverse(program.throws)),
        Key::Ended => programs.sort_by_key(|program| Reverse(ended(program))),
        Key::Killed => programs.sort_by_key(|program| Reverse(killed(program))),
        Key::Last => programs.sort_by_key(|program| Reverse(last(program))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::tests::{plain, spin};

    fn ids(key: Key, mut programs: Vec<Program>) -> Vec<u32> {
        sort(&mut programs, key);
        programs.iter().map(|program| program.id).collect()
    }

    /// spin() with another id and something else that is different.
    fn like_spin(id: u32, change: fn(&mut Deadline)) -> Program {
        let mut program = spin();
        program.id = id;
        program.deadline.as_mut().map(change);
        program
    }

    #[test]
    fn names_go_up() {
        assert_eq!(ids(Key::Id, vec![spin(), plain()]), [3, 17]);
        assert_eq!(ids(Key::Name, vec![spin(), plain()]), [3, 17]);
        assert_eq!(ids(Key::Type, vec![plain(), spin()]), [17, 3]);
    }

    #[test]
    fn the_most_comes_first() {
        assert_eq!(ids(Key::Throws, vec![spin(), plain()]), [3, 17]);
        type Change = fn(&mut Deadline);
        let changes: [(Key, Change); 5] = [
            (Key::Deadline, |deadline| deadline.limit_ns = Some(u64::MAX)),
            (Key::Longest, |deadline| deadline.longest_ns += 1),
            (Key::Ended, |deadline| deadline.ended_by_deadline += 1),
            (Key::Killed, |deadline| deadline.ended_by_operator += 1),
            (Key::Last, |deadline| {
                if let Some(last) = &mut deadline.last_ended {
                    last.at_ns += 1;
                }
            }),
        ];
        for (key, more) in changes {
            let programs = vec![plain(), spin(), like_spin(18, more)];
            assert_eq!(ids(key, programs), [18, 17, 3]);
        }
    }

    #[test]
    fn what_is_equal_goes_by_id() {
        let programs = vec![like_spin(9, |_| ()), spin(), like_spin(5, |_| ())];
        assert_eq!(ids(Key::Longest, programs), [5, 9, 17]);
    }
}
