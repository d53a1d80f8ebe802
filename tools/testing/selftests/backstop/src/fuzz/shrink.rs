// SPDX-License-Identifier: GPL-2.0
//! Makes the record of choices smaller that draws something of interest.

/// Lengths of what is taken out or made simple at once.
const LENGTHS: [usize; 8] = [64, 32, 16, 8, 4, 3, 2, 1];

/// The smallest record that is found in so many tries and still is of interest. `interests` returns the
/// choices that a record really makes, if they are.
pub fn shrink(
    record: Vec<u32>,
    tries: usize,
    interests: impl FnMut(Vec<u32>) -> Option<Vec<u32>>,
) -> Vec<u32> {
    let mut shrink = Shrink {
        best: record,
        tries,
        interests,
    };
    while shrink.pass() {}
    shrink.best
}

struct Shrink<F> {
    best: Vec<u32>,
    tries: usize,
    interests: F,
}

impl<F: FnMut(Vec<u32>) -> Option<Vec<u32>>> Shrink<F> {
    /// Whether it got any smaller, and may get smaller still.
    fn pass(&mut self) -> bool {
        let before = self.best.clone();
        for length in LENGTHS {
            self.each(length, |record, at| {
                record.drain(at..(at + length).min(record.len()));
            });
        }
        for length in LENGTHS {
            self.each(length, |record, at| {
                let end = (at + length).min(record.len());
                record[at..end].fill(0);
            });
        }
        self.each(1, |record, at| record[at] /= 2);
        self.each(1, |record, at| record[at] = record[at].saturating_sub(1));
        self.tries > 0 && self.best != before
    }

    /// Tries a change at each place, from the last to the first.
    fn each(&mut self, length: usize, change: impl Fn(&mut Vec<u32>, usize)) {
        let mut at = self.best.len();
        while at > 0 && self.tries > 0 {
            at = at
                .saturating_sub(length)
                .min(self.best.len().saturating_sub(1));
            let mut record = self.best.clone();
            if record.is_empty() {
                return;
            }
            change(&mut record, at);
            self.attempt(record);
        }
    }

    fn attempt(&mut self, record: Vec<u32>) {
        if !is_smaller(&record, &self.best) {
            return;
        }
        self.tries -= 1;
        let made = (self.interests)(record);
        if let Some(made) = made.filter(|made| is_smaller(made, &self.best)) {
            self.best = made;
        }
    }
}

/// Shorter, or as long and with a smaller number first.
fn is_smaller(record: &[u32], than: &[u32]) -> bool {
    (record.len(), record) < (than.len(), than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_goes() {
        let record: Vec<u32> = (0..200).rev().collect();
        let both = |record: Vec<u32>| {
            let seven = record.iter().position(|&choice| choice == 7)?;
            record[seven..]
                .iter()
                .any(|&choice| choice >= 3 && choice != 7)
                .then_some(record)
        };
        assert_eq!(shrink(record, 10_000, both), [7, 3]);
    }

    #[test]
    fn nothing_is_lost_where_all_matters() {
        let record = vec![1, 1, 1];
        let all = |made: Vec<u32>| (made == [1, 1, 1]).then_some(made);
        assert_eq!(shrink(record.clone(), 1000, all), record);
    }

    #[test]
    fn it_ends_when_it_may_not_try_more() {
        let mut tried = 0;
        shrink(vec![9; 100], 10, |_| {
            tried += 1;
            None
        });
        assert_eq!(tried, 10);
    }
}
