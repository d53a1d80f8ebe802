// SPDX-License-Identifier: GPL-2.0
//! Choices: numbers drawn from a seed and written down, or read again from a changed record.
//!
//! Whatever is drawn is made of choices below a limit, of which 0 is the simplest. Any record draws
//! something that is valid, so a thing is made smaller by making its record smaller, see `shrink`.

use fastrand::Rng;

pub struct Choices {
    /// None where a record is read.
    rng: Option<Rng>,
    record: Vec<u32>,
    next: usize,
}

impl Choices {
    pub fn of_seed(seed: u64) -> Self {
        Self {
            rng: Some(Rng::with_seed(seed)),
            record: Vec::new(),
            next: 0,
        }
    }

    /// Reads a record, which goes on with zeroes.
    pub fn of_record(record: Vec<u32>) -> Self {
        Self {
            rng: None,
            record,
            next: 0,
        }
    }

    /// A number below the limit.
    pub fn below(&mut self, limit: u32) -> u32 {
        let last = limit.saturating_sub(1);
        let choice = match &mut self.rng {
            Some(rng) => rng.u32(0..=last),
            None => self.record.get(self.next).copied().unwrap_or(0).min(last),
        };
        match self.record.get_mut(self.next) {
            Some(place) => *place = choice,
            None => self.record.push(choice),
        }
        self.next += 1;
        choice
    }

    /// Holds in so many of 100 cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) + percent >= 100
    }

    /// One of them, the first being the simplest.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len() as u32) as usize).copied()
    }

    /// One of them, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, of: &[(u32, T)]) -> Option<T> {
        let mut choice = self.below(of.iter().map(|(weight, _)| weight).sum());
        of.iter().find_map(|&(weight, item)| {
            if choice < weight {
                return Some(item);
            }
            choice -= weight;
            None
        })
    }

    /// What was drawn, without the zeroes at its end.
    pub fn into_record(mut self) -> Vec<u32> {
        self.record.truncate(self.next);
        while self.record.last() == Some(&0) {
            self.record.pop();
        }
        self.record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(choices: &mut Choices) -> Vec<u32> {
        (1..50).map(|limit| choices.below(limit)).collect()
    }

    #[test]
    fn a_seed_draws_the_same_and_another_one_does_not() {
        let of_seed = |seed| draw(&mut Choices::of_seed(seed));
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
    }

    #[test]
    fn a_record_draws_what_it_was_made_of() {
        let mut choices = Choices::of_seed(3);
        let drawn = draw(&mut choices);
        let mut again = Choices::of_record(choices.into_record());
        assert_eq!(draw(&mut again), drawn);
    }

    #[test]
    fn a_record_is_cut_to_what_is_valid() {
        let mut choices = Choices::of_record(vec![9, 1]);
        assert_eq!(
            [choices.below(4), choices.below(4), choices.below(4)],
            [3, 1, 0]
        );
        assert!(!choices.chance(99));
        assert_eq!(choices.into_record(), [3, 1]);
    }

    #[test]
    fn weights_are_kept() {
        let of = [(1, 'a'), (2, 'b')];
        let weighted = |choice| Choices::of_record(vec![choice]).weighted(&of);
        assert_eq!([0, 1, 2].map(weighted), [Some('a'), Some('b'), Some('b')]);
    }
}
