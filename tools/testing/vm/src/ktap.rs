//! KTAP, the test protocol of the kernel (Documentation/dev-tools/ktap.rst): reads and writes it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::LazyLock;

use regex::Regex;

use crate::outcome::Verdict;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    NotOk,
    Skip,
}

/// The result of one test that has no subtests. Names of suites are part of its name: suite/test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    pub name: String,
    pub status: Status,
    /// What stands after a directive.
    pub reason: String,
    /// The lines since the result before that are no KTAP, and the comments.
    pub diagnostics: Vec<String>,
}

/// What was read of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stream {
    pub results: Vec<TestResult>,
    pub bail: Option<String>,
    /// Where the stream contradicts itself, or stops too early.
    pub faults: Vec<String>,
}

static RESULT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^( *)(ok|not ok) \d+(?: -)?(?: ([^#]*?))?\s*(?:# (SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b\s*(.*)|# .*)?$",
    )
    .expect("the pattern is constant")
});
static PLAN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^( *)1\.\.(\d+)").expect("the pattern is constant"));
static SUBTEST: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^( *)# Subtest: (.+)$").expect("the pattern is constant"));
static VERSION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^( *)K?TAP version \d+").expect("the pattern is constant"));

/// One level of nesting.
#[derive(Default)]
struct Level {
    name: Option<String>,
    planned: Option<usize>,
    seen: usize,
}

#[derive(Default)]
struct Parser {
    stream: Stream,
    levels: Vec<Level>,
    diagnostics: Vec<String>,
}

pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Stream {
    let mut parser = Parser::default();
    for line in lines {
        parser.line(line.trim_end());
    }
    parser.close(0);
    parser.stream
}

impl Parser {
    fn line(&mut self, line: &str) {
        let depth = |indent: &str| indent.len() / 4;
        if let Some(found) = RESULT.captures(line) {
            let text = |group| {
                found
                    .get(group)
                    .map_or("", |text: regex::Match<'_>| text.as_str())
            };
            let status = match (text(2), text(4)) {
                (_, "SKIP") => Status::Skip,
                ("ok", _) => Status::Ok,
                _ => Status::NotOk,
            };
            self.result(depth(text(1)), status, text(3), text(5));
        } else if let Some(found) = VERSION.captures(line) {
            self.close(depth(&found[1]));
            self.level(depth(&found[1]));
        } else if let Some(found) = SUBTEST.captures(line) {
            let depth = depth(&found[1]);
            if self.level(depth).seen > 0 {
                self.close(depth);
            }
            self.level(depth).name = Some(found[2].to_owned());
        } else if let Some(found) = PLAN.captures(line) {
            self.level(depth(&found[1])).planned = found[2].parse().ok();
        } else if let Some(reason) = line.trim_start().strip_prefix("Bail out!") {
            self.stream.bail = Some(reason.trim().to_owned());
        } else if !line.trim().is_empty() {
            self.diagnostics.push(line.trim_start().to_owned());
        }
    }

    fn level(&mut self, depth: usize) -> &mut Level {
        if self.levels.len() <= depth {
            self.levels.resize_with(depth + 1, Level::default);
        }
        &mut self.levels[depth]
    }

    /// Ends the levels from `depth` on, and says where they were not complete.
    fn close(&mut self, depth: usize) {
        for level in self.levels.drain(depth.min(self.levels.len())..) {
            if let Some(planned) = level.planned.filter(|&planned| planned != level.seen) {
                let name = level.name.as_deref().unwrap_or("the stream");
                let fault = format!("{name} planned {planned} tests and had {}", level.seen);
                self.stream.faults.push(fault);
            }
        }
    }

    fn result(&mut self, depth: usize, status: Status, name: &str, reason: &str) {
        let subtests = self.levels.get(depth + 1).map_or(0, |level| level.seen);
        self.close(depth + 1);
        self.level(depth).seen += 1;
        let suites = self.levels[1..=depth]
            .iter()
            .filter_map(|level| level.name.as_deref());
        let name = suites.chain([name]).collect::<Vec<_>>().join("/");
        let diagnostics = std::mem::take(&mut self.diagnostics);
        if subtests == 0 {
            let reason = reason.to_owned();
            self.stream.results.push(TestResult {
                name,
                status,
                reason,
                diagnostics,
            });
            return;
        }
        // The line of a suite: its tests have spoken already, unless it failed and none of them did.
        let prefix = format!("{name}/");
        let mut tests = self
            .stream
            .results
            .iter()
            .filter(|test| test.name.starts_with(&prefix));
        if status == Status::NotOk && tests.all(|test| test.status != Status::NotOk) {
            self.stream
                .faults
                .push(format!("{name} failed, though none of its tests did"));
        }
    }
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Totals {
    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Skip(_) => self.skipped += 1,
            Verdict::Fail(_) => self.failed += 1,
        }
    }

    /// As kselftest has it: 0 pass, 1 fail, 4 skip.
    pub fn exit_code(self) -> u8 {
        match self {
            Self { failed: 1.., .. } => 1,
            Self {
                passed: 0,
                skipped: 1..,
                ..
            } => 4,
            Self { passed: 0, .. } => 1,
            _ => 0,
        }
    }
}

/// Writes verdicts as one stream of suites, each as soon as all before it are known.
pub struct Writer<W> {
    out: W,
    suites: Vec<(String, Vec<String>)>,
    verdicts: HashMap<String, (Verdict, Vec<String>)>,
    /// The suite and test to be written next.
    next: (usize, usize),
    totals: Totals,
    suite_totals: Totals,
}

impl<W: Write> Writer<W> {
    /// Begins a stream with `facts` in its header, for tests named suite/test in the order given.
    pub fn new(mut out: W, facts: &[String], names: &[&str]) -> io::Result<Self> {
        let mut suites: Vec<(String, Vec<String>)> = Vec::new();
        for name in names {
            let suite = split(name).0;
            let index = suites
                .iter()
                .position(|(name, _)| name == suite)
                .unwrap_or_else(|| {
                    suites.push((suite.to_owned(), Vec::new()));
                    suites.len() - 1
                });
            suites[index].1.push((*name).to_owned());
        }
        writeln!(out, "KTAP version 1")?;
        for fact in facts {
            writeln!(out, "# {fact}")?;
        }
        writeln!(out, "1..{}", suites.len())?;
        out.flush()?;
        Ok(Self {
            out,
            suites,
            verdicts: HashMap::new(),
            next: (0, 0),
            totals: Totals::default(),
            suite_totals: Totals::default(),
        })
    }

    /// Takes a verdict, with `notes` for the reader of a failure.
    pub fn record(&mut self, name: &str, verdict: Verdict, notes: Vec<String>) -> io::Result<()> {
        self.verdicts.insert(name.to_owned(), (verdict, notes));
        while let Some((suite, tests)) = self.suites.get(self.next.0) {
            let Some((verdict, notes)) = self.verdicts.get(&tests[self.next.1]) else {
                break;
            };
            if self.next.1 == 0 {
                writeln!(self.out, "    KTAP version 1\n    # Subtest: {suite}")?;
                writeln!(self.out, "    1..{}", tests.len())?;
            }
            if let Verdict::Fail(reasons) = verdict {
                for note in reasons.iter().chain(notes) {
                    writeln!(self.out, "    # {note}")?;
                }
            }
            self.next.1 += 1;
            let name = split(&tests[self.next.1 - 1]).1;
            writeln!(self.out, "    {}", result_line(self.next.1, name, verdict))?;
            self.totals.count(verdict);
            self.suite_totals.count(verdict);
            if self.next.1 == tests.len() {
                let Totals {
                    passed,
                    failed,
                    skipped,
                } = std::mem::take(&mut self.suite_totals);
                let verdict = match (passed, failed, skipped) {
                    (_, 1.., _) => Verdict::Fail(Vec::new()),
                    (0, 0, _) => Verdict::Skip(String::new()),
                    _ => Verdict::Pass,
                };
                writeln!(
                    self.out,
                    "{}",
                    result_line(self.next.0 + 1, suite, &verdict)
                )?;
                self.next = (self.next.0 + 1, 0);
            }
        }
        self.out.flush()
    }

    /// Ends the stream: comments, and the totals as its last line.
    pub fn finish(mut self, comments: &[String]) -> io::Result<Totals> {
        for comment in comments {
            writeln!(self.out, "# {comment}")?;
        }
        let Totals {
            passed,
            failed,
            skipped,
        } = self.totals;
        writeln!(
            self.out,
            "# {passed} passed, {failed} failed, {skipped} skipped"
        )?;
        self.out.flush()?;
        Ok(self.totals)
    }
}

/// Suite and test of a name.
fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("tests", name))
}

fn result_line(number: usize, name: &str, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => format!("ok {number} {name}"),
        Verdict::Fail(_) => format!("not ok {number} {name}"),
        Verdict::Skip(reason) => format!("ok {number} {name} # SKIP {reason}")
            .trim_end()
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stream: &Stream) -> Vec<(&str, Status)> {
        stream
            .results
            .iter()
            .map(|test| (test.name.as_str(), test.status))
            .collect()
    }

    #[test]
    fn flat() {
        let text =
            "KTAP version 1\n1..3\n# because\nok 1 s/a\nnot ok 2 - s/b\nok 3 s/c # SKIP no x\n";
        let stream = parse(text.lines());
        let expected = [
            ("s/a", Status::Ok),
            ("s/b", Status::NotOk),
            ("s/c", Status::Skip),
        ];
        assert_eq!(names(&stream), expected);
        assert_eq!(stream.results[0].diagnostics, ["# because"]);
        assert_eq!(stream.results[2].reason, "no x");
        assert!(stream.faults.is_empty());
    }

    #[test]
    fn nested_as_kunit_prints_it() {
        let text = "KTAP version 1\n1..2\n\
                    \x20   KTAP version 1\n    # Subtest: rust\n    # module: kernel\n    1..2\n\
                    \x20   # a: location: x.rs:1\n    ok 1 a\n    ok 2 b # SKIP why\n\
                    # rust: pass:1 fail:0 skip:1 total:2\nok 1 rust\n\
                    \x20   KTAP version 1\n    # Subtest: list\n    1..1\n\
                    \x20       KTAP version 1\n        # Subtest: params\n\
                    \x20       not ok 1 one\n        ok 2 two\n\
                    \x20   not ok 1 params\nnot ok 2 list\n";
        let stream = parse(text.lines());
        assert_eq!(
            names(&stream),
            [
                ("rust/a", Status::Ok),
                ("rust/b", Status::Skip),
                ("list/params/one", Status::NotOk),
                ("list/params/two", Status::Ok)
            ]
        );
        assert!(stream.faults.is_empty(), "{:?}", stream.faults);
    }

    #[test]
    fn missing_results_are_a_fault() {
        let stream = parse("KTAP version 1\n1..3\nok 1 a\n".lines());
        assert_eq!(stream.faults, ["the stream planned 3 tests and had 1"]);
        let text = "1..1\n    # Subtest: s\n    1..2\n    ok 1 a\nok 1 s\n";
        assert_eq!(parse(text.lines()).faults, ["s planned 2 tests and had 1"]);
    }

    #[test]
    fn a_suite_that_fails_by_itself_is_a_fault() {
        let text = "1..1\n    # Subtest: s\n    1..1\n    ok 1 a\nnot ok 1 s\n";
        assert_eq!(
            parse(text.lines()).faults,
            ["s failed, though none of its tests did"]
        );
    }

    #[test]
    fn bail_out() {
        let stream = parse("1..2\nBail out! no BTF\n".lines());
        assert_eq!(stream.bail.as_deref(), Some("no BTF"));
    }

    #[test]
    fn todo_and_trailing_comments() {
        let stream = parse("ok 1 a # 12 ms\nnot ok 2 b # TODO later\nok 3\n".lines());
        assert_eq!(
            names(&stream),
            [("a", Status::Ok), ("b", Status::NotOk), ("", Status::Ok)]
        );
    }

    fn written(verdicts: &[(&str, Verdict)]) -> (String, Totals) {
        let mut out = Vec::new();
        let names = ["s/a", "t/x", "s/b"];
        let mut writer = Writer::new(&mut out, &["kernel: 7.3".to_owned()], &names).unwrap();
        for (name, verdict) in verdicts {
            writer
                .record(name, verdict.clone(), vec!["note".to_owned()])
                .unwrap();
        }
        let totals = writer.finish(&[]).unwrap();
        (String::from_utf8(out).unwrap(), totals)
    }

    #[test]
    fn writes_in_order_whatever_order_results_come_in() {
        let (text, totals) = written(&[
            ("t/x", Verdict::Skip("why".to_owned())),
            ("s/b", Verdict::Fail(vec!["reason".to_owned()])),
            ("s/a", Verdict::Pass),
        ]);
        assert_eq!(
            text,
            "KTAP version 1\n# kernel: 7.3\n1..2\n\
             \x20   KTAP version 1\n    # Subtest: s\n    1..2\n    ok 1 a\n\
             \x20   # reason\n    # note\n    not ok 2 b\nnot ok 1 s\n\
             \x20   KTAP version 1\n    # Subtest: t\n    1..1\n    ok 1 x # SKIP why\n\
             ok 2 t # SKIP\n# 1 passed, 1 failed, 1 skipped\n"
        );
        assert_eq!(totals.exit_code(), 1);
        let stream = parse(text.lines());
        assert_eq!(stream.results.len(), 3);
        assert!(stream.faults.is_empty());
    }

    #[test]
    fn exit_codes() {
        let code = |passed, failed, skipped| {
            Totals {
                passed,
                failed,
                skipped,
            }
            .exit_code()
        };
        assert_eq!(code(2, 0, 1), 0);
        assert_eq!(code(2, 1, 1), 1);
        assert_eq!(code(0, 0, 1), 4);
        assert_eq!(code(0, 0, 0), 1);
    }
}
