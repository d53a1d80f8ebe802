//! What the kernel's own test_progs prints when the guest's run-suites runs it suite by suite.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Pass,
    Fail,
    Skip,
}

/// The result of a suite, or of one of its subtests as suite/subtest.
#[derive(Debug, PartialEq, Eq)]
pub struct TestResult {
    pub name: String,
    pub status: Status,
    /// What was printed since the result before, but for checks that held.
    pub log: Vec<String>,
}

/// A suite that began.
#[derive(Debug)]
pub struct Suite {
    pub name: String,
    pub results: Vec<TestResult>,
    /// What the process ended with; None when the machine ended first.
    pub status: Option<i32>,
}

/// How the lines round a suite start, before its name; the last also has the status.
pub const BEGIN: &str = "# begin ";
pub const END: &str = "# end ";

static RESULT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^#\d+(?:/\d+)? +(.+):(OK|FAIL|SKIP)(?: \(.*\))?$")
        .expect("the pattern is constant")
});

/// Reads what came from one machine.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Suite> {
    let mut suites: Vec<Suite> = Vec::new();
    let mut log = Vec::new();
    let mut seen = HashMap::new();
    for line in lines {
        if let Some(name) = line.strip_prefix(BEGIN) {
            suites.push(Suite {
                name: name.to_owned(),
                results: Vec::new(),
                status: None,
            });
            log.clear();
            seen.clear();
            continue;
        }
        let Some(suite) = suites.last_mut().filter(|suite| suite.status.is_none()) else {
            continue;
        };
        if let Some(status) = end(line, &suite.name) {
            suite.status = Some(status);
        } else if let Some(result) = RESULT.captures(line) {
            suite.results.push(TestResult {
                name: numbered(&result[1], &mut seen),
                status: match &result[2] {
                    "OK" => Status::Pass,
                    "FAIL" => Status::Fail,
                    _ => Status::Skip,
                },
                log: std::mem::take(&mut log),
            });
        } else if !line.contains(":PASS:") {
            log.push(line.to_owned());
        }
    }
    suites
}

/// The status in the line that ends this suite.
fn end(line: &str, suite: &str) -> Option<i32> {
    let line = line.strip_prefix(END)?.strip_prefix(suite)?;
    line.strip_prefix(' ')?.parse().ok()
}

/// A suite may give one name to several subtests.
fn numbered(name: &str, seen: &mut HashMap<String, u32>) -> String {
    let times = seen.entry(name.to_owned()).or_insert(0);
    *times += 1;
    match times {
        1 => name.to_owned(),
        times => format!("{name} [{times}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(suite: &Suite) -> Vec<(&str, Status)> {
        let results = suite.results.iter();
        results
            .map(|result| (result.name.as_str(), result.status))
            .collect()
    }

    #[test]
    fn suites_with_and_without_subtests() {
        let text = "# boot
# begin irq
#145/1    irq/irq_save_bad_arg:OK
run_subtest:PASS:obj_open_mem 0 nsec
test_loader: expected message
#145/2    irq/R1: must be an 'irq' flag:FAIL
#145/3    irq/skipped:SKIP
#145      irq:FAIL
Summary: 0/1 PASSED, 1 SKIPPED, 1/1 FAILED
# end irq 1
# begin wq
#999      wq:OK
# end wq 0
# begin tailcalls
#998      tailcalls:OK (SKIP: 1/3)
# end tailcalls 0
# begin gone
#997      gone:SKIP (not built)
# end gone 0
# exit 0";
        let suites = parse(text.lines());
        let names: Vec<_> = suites.iter().map(|suite| suite.name.as_str()).collect();
        assert_eq!(names, ["irq", "wq", "tailcalls", "gone"]);
        assert_eq!(
            results(&suites[0]),
            [
                ("irq/irq_save_bad_arg", Status::Pass),
                ("irq/R1: must be an 'irq' flag", Status::Fail),
                ("irq/skipped", Status::Skip),
                ("irq", Status::Fail),
            ]
        );
        assert_eq!(suites[0].results[1].log, ["test_loader: expected message"]);
        assert!(suites[0].results[3].log.is_empty());
        assert_eq!(results(&suites[2]), [("tailcalls", Status::Pass)]);
        assert_eq!(results(&suites[3]), [("gone", Status::Skip)]);
        let ends: Vec<_> = suites.iter().map(|suite| suite.status).collect();
        assert_eq!(ends, [Some(1), Some(0), Some(0), Some(0)]);
    }

    #[test]
    fn a_suite_that_did_not_end() {
        let text = "# begin a\n#1 a:OK\n# end a 139\n# begin b\n#2/1 b/c:OK\n";
        let suites = parse(text.lines());
        assert_eq!(suites[0].status, Some(139));
        assert_eq!(suites[1].status, None);
        assert_eq!(results(&suites[1]), [("b/c", Status::Pass)]);
    }

    #[test]
    fn names_given_twice_are_told_apart() {
        let text = "# begin a\n#1/1 a/x:OK\n#1/2 a/x:FAIL\n# end a 1\n";
        let suites = parse(text.lines());
        assert_eq!(
            results(&suites[0]),
            [("a/x", Status::Pass), ("a/x [2]", Status::Fail)]
        );
    }

    #[test]
    fn another_suites_end_is_no_end() {
        let suites = parse("# begin a\n# end ab 0\n".lines());
        assert_eq!(suites[0].status, None);
    }
}
