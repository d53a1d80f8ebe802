// SPDX-License-Identifier: GPL-2.0
//! KTAP, as kselftest reads it: results on one stream, logs only of what failed.

use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Skip(String),
    /// With the log of the test.
    Fail(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pass: usize,
    fail: usize,
    skip: usize,
}

pub struct Ktap<W> {
    out: W,
    totals: Totals,
}

impl<W: Write> Ktap<W> {
    pub fn new(mut out: W, planned: usize) -> io::Result<Self> {
        writeln!(out, "KTAP version 1\n1..{planned}")?;
        out.flush()?;
        Ok(Self {
            out,
            totals: Totals::default(),
        })
    }

    pub fn result(&mut self, name: &str, outcome: &Outcome) -> io::Result<()> {
        let number = self.totals.sum() + 1;
        match outcome {
            Outcome::Pass => {
                self.totals.pass += 1;
                writeln!(self.out, "ok {number} {name}")?;
            }
            Outcome::Skip(reason) => {
                self.totals.skip += 1;
                writeln!(
                    self.out,
                    "ok {number} {name} # SKIP {}",
                    reason.replace('\n', " ")
                )?;
            }
            Outcome::Fail(log) => {
                self.totals.fail += 1;
                for line in log.lines() {
                    writeln!(self.out, "# {line}")?;
                }
                writeln!(self.out, "not ok {number} {name}")?;
            }
        }
        self.out.flush()
    }

    /// A line that is for the host and cannot wait.
    pub fn comment(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    pub fn finish(mut self) -> io::Result<Totals> {
        let Totals { pass, fail, skip } = self.totals;
        writeln!(
            self.out,
            "# Totals: pass:{pass} fail:{fail} xfail:0 xpass:0 skip:{skip} error:0"
        )?;
        self.out.flush()?;
        Ok(self.totals)
    }
}

impl Totals {
    fn sum(self) -> usize {
        self.pass + self.fail + self.skip
    }

    /// 0 passed, 1 failed, 4 nothing but skipped.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self { fail: 1.., .. } => ExitCode::FAILURE,
            Self {
                pass: 0, skip: 1.., ..
            } => ExitCode::from(4),
            _ => ExitCode::SUCCESS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ktap(outcomes: &[Outcome]) -> (String, Totals) {
        let mut text = Vec::new();
        let mut ktap = Ktap::new(&mut text, outcomes.len()).unwrap();
        for outcome in outcomes {
            ktap.result("a/b", outcome).unwrap();
        }
        let totals = ktap.finish().unwrap();
        (String::from_utf8(text).unwrap(), totals)
    }

    #[test]
    fn one_line_a_result_and_logs_only_of_failures() {
        let skip = Outcome::Skip("no\nroom".into());
        let fail = Outcome::Fail("what\nfailed\n".into());
        let (text, totals) = ktap(&[Outcome::Pass, skip, fail]);
        assert_eq!(
            text,
            "KTAP version 1\n1..3\nok 1 a/b\nok 2 a/b # SKIP no room\n# what\n# failed\n\
             not ok 3 a/b\n# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0\n"
        );
        assert_eq!(
            totals,
            Totals {
                pass: 1,
                fail: 1,
                skip: 1
            }
        );
    }

    #[test]
    fn exit_codes_of_kselftest() {
        let code = |pass, fail, skip| format!("{:?}", Totals { pass, fail, skip }.exit_code());
        assert_eq!(code(1, 0, 1), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(1, 1, 1), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(code(0, 0, 1), format!("{:?}", ExitCode::from(4)));
    }
}
