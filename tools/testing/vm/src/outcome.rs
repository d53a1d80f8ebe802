//! How machines end, and what that says about the test that ran.

use std::fmt;

use crate::console::{self, Splat};
use crate::ktap::{self, Status};
use crate::plan::{End, Pattern, Test, Way};
use crate::vmcore::Dump;
use crate::watch::Record;

/// How a machine ended, seen from outside.
#[derive(Debug)]
pub enum Ending {
    /// The command ended, and /init powered off.
    Finished {
        status: i32,
    },
    PowerOff,
    Reset,
    /// A kernel panic; `reported` when pvpanic told QEMU.
    Panic {
        reported: bool,
        message: Option<String>,
    },
    /// Every CPU in HLT with interrupts off, and silence.
    Halt,
    /// A crash kernel saved a dump and powered off.
    CrashDump(Dump),
    BadDump(String),
    /// The host saved it when it was ready.
    Saved,
    Hang(String),
    VmmError(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished { status } => write!(f, "command ended with status {status}"),
            Self::PowerOff => write!(f, "guest power-off"),
            Self::Reset => write!(f, "guest reset"),
            Self::Panic { reported, message } => {
                let message = message.as_deref().unwrap_or("no message on the console");
                write!(f, "guest panic: {message}")?;
                if !reported {
                    write!(f, " (not reported by pvpanic)")?;
                }
                Ok(())
            }
            Self::Halt => write!(f, "guest halt"),
            Self::CrashDump(dump) => write!(f, "crash dump of {}", dump.release),
            Self::Saved => write!(f, "saved"),
            Self::BadDump(why) => write!(f, "unusable crash dump: {why}"),
            Self::Hang(what) => write!(f, "guest hang: {what}"),
            Self::VmmError(what) => write!(f, "VMM error: {what}"),
        }
    }
}

/// The judgement of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Skip(String),
    /// The reasons, the first one foremost.
    Fail(Vec<String>),
}

impl Verdict {
    fn fail(reason: impl Into<String>) -> Self {
        Self::Fail(vec![reason.into()])
    }

    /// A failure if there are reasons for one, else this verdict.
    fn unless(self, reasons: Vec<String>) -> Self {
        match self {
            Self::Fail(mut all) => {
                all.extend(reasons);
                Self::Fail(all)
            }
            other if reasons.is_empty() => other,
            _ => Self::Fail(reasons),
        }
    }
}

/// Judges a test that had a machine of its own and was to end it.
pub fn judge_alone(test: &Test, record: &Record, release: &str) -> Verdict {
    let stream = ktap::parse(record.channel.iter().map(String::as_str));
    if let Some(reason) = stream.bail {
        return Verdict::fail(format!("could not be set up: {reason}"));
    }
    let verdict = match stream
        .results
        .iter()
        .find(|result| result.name == test.name)
    {
        Some(result) if result.status == Status::Skip => Verdict::Skip(result.reason.clone()),
        Some(result) if result.status == Status::NotOk => {
            Verdict::fail("the guest says not ok").unless(result.diagnostics.clone())
        }
        _ => judge_ending(test, record, release),
    };
    let patterns: Vec<_> = test.ways().flat_map(|way| way.console.clone()).collect();
    let panics = test.ways().any(|way| way.end.panics());
    let splats = console::unexpected(&record.console, &patterns, panics);
    verdict.unless(splats.iter().map(describe).collect())
}

fn judge_ending(test: &Test, record: &Record, release: &str) -> Verdict {
    let ways: Vec<_> = test
        .ways()
        .filter(|way| is_end(way.end, &record.ending))
        .collect();
    if ways.is_empty() {
        let (ends, found) = (test.ends(), &record.ending);
        return Verdict::fail(format!("expected {ends}, found {found}"));
    }
    let armed = format!("# armed {}", test.name);
    if !record.channel.iter().any(|line| line.trim() == armed) {
        return Verdict::fail(format!("{} before the guest was armed", record.ending));
    }
    let mut reasons = Vec::new();
    for way in ways {
        let faults = faults(way, record, release);
        if faults.is_empty() {
            return Verdict::Pass;
        }
        reasons.extend(faults);
    }
    Verdict::Fail(reasons)
}

fn is_end(end: End, ending: &Ending) -> bool {
    match (end, ending) {
        (End::Panic, Ending::Panic { reported, message }) => *reported && message.is_some(),
        (End::Reset, Ending::Reset)
        | (End::PowerOff, Ending::PowerOff)
        | (End::Halt, Ending::Halt)
        | (End::CrashDump, Ending::CrashDump(_)) => true,
        _ => false,
    }
}

/// What does not go with this way to end.
fn faults(way: &Way, record: &Record, release: &str) -> Vec<String> {
    let mut faults = wrong(way, &record.console, "console");
    if let Ending::CrashDump(dump) = &record.ending {
        if dump.release != release {
            faults.push(format!("the dump is of {}, not of {release}", dump.release));
        }
        let lines: Vec<_> = dump.dmesg.lines().map(str::to_owned).collect();
        faults.extend(wrong(way, &lines, "dump's log"));
    }
    faults
}

/// Judges a test that ran to its end among others; `console` is what the kernel said meanwhile.
pub fn judge_returned(test: &Test, result: &ktap::TestResult, console: &[String]) -> Verdict {
    let verdict = match result.status {
        Status::Ok => Verdict::Pass.unless(wrong(&test.way, console, "console")),
        Status::Skip => Verdict::Skip(result.reason.clone()),
        Status::NotOk => {
            let what = match result.reason.as_str() {
                "" => "the guest says not ok".to_owned(),
                reason => format!("the guest says not ok: {reason}"),
            };
            Verdict::fail(what).unless(result.diagnostics.clone())
        }
    };
    let patterns: Vec<_> = test
        .way
        .console
        .iter()
        .chain(&test.complaints)
        .cloned()
        .collect();
    let splats = console::unexpected(console, &patterns, false);
    verdict.unless(splats.iter().map(describe).collect())
}

/// Judges a test that was running when its machine ended.
pub fn judge_interrupted(record: &Record, console: &[String]) -> Verdict {
    let splats = console::unexpected(console, &[], false);
    Verdict::fail(format!("while it ran: {}", record.ending))
        .unless(splats.iter().map(describe).collect())
}

/// What is wrong with a run of several tests and belongs to none of them.
pub fn run_faults(record: &Record, outside: &[String], stream: &ktap::Stream) -> Vec<String> {
    let splats = console::unexpected(outside, &[], false);
    let mut faults: Vec<_> = splats.iter().map(describe).collect();
    if let Ending::Finished { status } = record.ending {
        faults.extend(stream.faults.iter().cloned());
        let failed = stream
            .results
            .iter()
            .any(|result| result.status == Status::NotOk);
        let told = stream.bail.is_some() || failed;
        if !matches!((status, told), (0 | 4, false) | (1, true) | (2, true)) {
            faults.push(format!(
                "the test program's status {status} contradicts its results"
            ));
        }
    }
    faults
}

fn describe(splat: &Splat) -> String {
    format!("unexpected on the console: {}", splat.text)
}

/// What these lines lack, and what they have and must not.
fn wrong(way: &Way, lines: &[String], place: &str) -> Vec<String> {
    let found = |pattern: &&Pattern| lines.iter().any(|line| pattern.is_match(line));
    let missing = way.console.iter().filter(|pattern| !found(pattern));
    let missing = missing.map(|pattern| format!("not on the {place}: /{pattern}/"));
    let forbidden = way.not_console.iter().filter(found);
    let forbidden = forbidden.map(|pattern| format!("on the {place}: /{pattern}/"));
    missing.chain(forbidden).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RELEASE: &str = "7.3.4-backstop";

    fn test(end: &str, console: &[&str]) -> Test {
        let json = serde_json::json!({ "name": "s/t", "end": end, "console": console });
        serde_json::from_value(json).unwrap()
    }

    fn record(ending: Ending, channel: &[&str], console: &[&str]) -> Record {
        Record {
            ending,
            channel: channel.iter().map(|&line| line.to_owned()).collect(),
            console: console.iter().map(|&line| line.to_owned()).collect(),
            took: Duration::ZERO,
            logs: "logs".into(),
        }
    }

    fn dump(release: &str, dmesg: &str) -> Ending {
        Ending::CrashDump(Dump {
            release: release.to_owned(),
            dmesg: dmesg.to_owned(),
        })
    }

    fn panic(reported: bool) -> Ending {
        Ending::Panic {
            reported,
            message: Some("why".to_owned()),
        }
    }

    const ARMED: &[&str] = &["# boot", "# armed s/t"];

    fn alone(end: &str, ending: Ending) -> Verdict {
        judge_alone(&test(end, &[]), &record(ending, ARMED, &[]), RELEASE)
    }

    #[test]
    fn every_expected_ending_passes() {
        assert_eq!(alone("reset", Ending::Reset), Verdict::Pass);
        assert_eq!(alone("power_off", Ending::PowerOff), Verdict::Pass);
        assert_eq!(alone("halt", Ending::Halt), Verdict::Pass);
        assert_eq!(alone("panic", panic(true)), Verdict::Pass);
        assert_eq!(alone("crash_dump", dump(RELEASE, "")), Verdict::Pass);
    }

    #[test]
    fn a_complaint_that_may_come_need_not_and_explains_no_other() {
        let mut test = test("return", &[]);
        test.complaints = vec!["vmalloc error".parse().unwrap()];
        let stream = ktap::parse(["1..1", "ok 1 s/t"].into_iter());
        let judge = |console: &[&str]| {
            let console: Vec<_> = console.iter().map(|&line| line.to_owned()).collect();
            judge_returned(&test, &stream.results[0], &console)
        };
        assert_eq!(judge(&[]), Verdict::Pass);
        assert_eq!(
            judge(&["sh: vmalloc error: size 1", "Call Trace:"]),
            Verdict::Pass
        );
        assert!(matches!(judge(&["BUG: x"]), Verdict::Fail(_)));
        assert!(matches!(judge(&["Call Trace:"]), Verdict::Fail(_)));
    }

    #[test]
    fn every_other_ending_fails_and_is_named() {
        let endings = || {
            [
                Ending::Finished { status: 0 },
                panic(false),
                Ending::BadDump("x".to_owned()),
                Ending::Hang("x".to_owned()),
                Ending::VmmError("x".to_owned()),
            ]
        };
        for end in ["reset", "power_off", "halt", "panic", "crash_dump"] {
            for ending in endings() {
                let name = ending.to_string();
                match alone(end, ending) {
                    Verdict::Fail(reasons) => assert!(reasons[0].contains(&name), "{reasons:?}"),
                    other => panic!("{end} by {name}: {other:?}"),
                }
            }
        }
        assert!(matches!(alone("reset", Ending::PowerOff), Verdict::Fail(_)));
        assert!(matches!(
            alone("power_off", Ending::Reset),
            Verdict::Fail(_)
        ));
        assert!(matches!(alone("halt", Ending::PowerOff), Verdict::Fail(_)));
    }

    #[test]
    fn an_end_before_arming_proves_nothing() {
        let record = record(Ending::Reset, &["# boot"], &[]);
        assert!(matches!(
            judge_alone(&test("reset", &[]), &record, RELEASE),
            Verdict::Fail(_)
        ));
    }

    #[test]
    fn the_console_must_show_every_pattern() {
        let test = test("reset", &["bpf_reboot by \\w+"]);
        let seen = record(Ending::Reset, ARMED, &["[ 1.0] bpf_reboot by name"]);
        assert_eq!(judge_alone(&test, &seen, RELEASE), Verdict::Pass);
        let unseen = record(Ending::Reset, ARMED, &["[ 1.0] something"]);
        assert!(matches!(
            judge_alone(&test, &unseen, RELEASE),
            Verdict::Fail(_)
        ));
    }

    #[test]
    fn the_console_must_show_no_forbidden_pattern() {
        let json = serde_json::json!({ "name": "s/t", "end": "reset", "not_console": ["again"] });
        let test = serde_json::from_value(json).unwrap();
        let judge = |said| judge_alone(&test, &record(Ending::Reset, ARMED, &[said]), RELEASE);
        assert_eq!(judge("[ 1.0] once"), Verdict::Pass);
        assert_eq!(
            judge("[ 1.0] once again"),
            Verdict::fail("on the console: /again/")
        );
    }

    #[test]
    fn one_of_several_ways_and_no_mixture_passes() {
        let json = serde_json::json!({
            "name": "s/t",
            "end": "reset", "console": ["left"], "not_console": ["right"],
            "or": [{ "end": "power_off", "console": ["right"], "not_console": ["left"] }],
        });
        let test: Test = serde_json::from_value(json).unwrap();
        let judge = |ending, console| judge_alone(&test, &record(ending, ARMED, console), RELEASE);
        assert_eq!(judge(Ending::Reset, &["left"]), Verdict::Pass);
        assert_eq!(judge(Ending::PowerOff, &["right"]), Verdict::Pass);
        for console in [&["right"][..], &["left", "right"], &[]] {
            let verdict = judge(Ending::Reset, console);
            assert!(matches!(verdict, Verdict::Fail(_)), "{console:?}");
        }
        assert_eq!(
            judge(Ending::Halt, &["left"]),
            Verdict::fail("expected a guest reset or a guest power-off, found guest halt")
        );
    }

    #[test]
    fn the_same_end_may_be_reached_in_two_ways() {
        let json = serde_json::json!({
            "name": "s/t",
            "end": "reset", "console": ["left"], "not_console": ["right"],
            "or": [{ "end": "reset", "console": ["right"], "not_console": ["left"] }],
        });
        let test: Test = serde_json::from_value(json).unwrap();
        let judge = |console| judge_alone(&test, &record(Ending::Reset, ARMED, console), RELEASE);
        assert_eq!(judge(&["left"]), Verdict::Pass);
        assert_eq!(judge(&["right"]), Verdict::Pass);
        assert!(matches!(judge(&["left", "right"]), Verdict::Fail(_)));
        assert_eq!(test.ends(), "a guest reset");
    }

    #[test]
    fn a_dump_must_be_of_this_kernel_and_hold_its_log() {
        let test = test("crash_dump", &["attribution"]);
        let judge = |ending| judge_alone(&test, &record(ending, ARMED, &["attribution"]), RELEASE);
        assert_eq!(judge(dump(RELEASE, "a\nattribution\n")), Verdict::Pass);
        assert!(matches!(
            judge(dump("6.1", "attribution\n")),
            Verdict::Fail(_)
        ));
        assert!(matches!(
            judge(dump(RELEASE, "something\n")),
            Verdict::Fail(_)
        ));
    }

    #[test]
    fn skipped_bailed_out_and_not_ok_in_the_guest() {
        let test = test("reset", &[]);
        let judge = |line| {
            let ending = Ending::Finished { status: 0 };
            judge_alone(&test, &record(ending, &["# boot", line], &[]), RELEASE)
        };
        assert_eq!(
            judge("ok 1 s/t # SKIP no perf"),
            Verdict::Skip("no perf".to_owned())
        );
        assert!(matches!(judge("not ok 1 s/t"), Verdict::Fail(_)));
        match judge("Bail out! no BTF") {
            Verdict::Fail(reasons) => assert!(reasons[0].contains("no BTF")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_warning_fails_the_test() {
        let splat = "[ 1.0] WARNING: kernel/bpf/core.c:1 at f, CPU#0: sh/1";
        let record = record(Ending::Reset, ARMED, &[splat]);
        assert!(matches!(
            judge_alone(&test("reset", &[]), &record, RELEASE),
            Verdict::Fail(_)
        ));
        let expected = test("reset", &["WARNING: kernel/bpf/core.c"]);
        assert_eq!(judge_alone(&expected, &record, RELEASE), Verdict::Pass);
    }

    #[test]
    fn returned_tests_are_judged_by_result_and_console() {
        let result = |status| ktap::TestResult {
            name: "s/t".to_owned(),
            status,
            reason: String::new(),
            diagnostics: Vec::new(),
        };
        let test = test("return", &["said so"]);
        let said = ["[ 1.0] said so".to_owned()];
        assert_eq!(
            judge_returned(&test, &result(Status::Ok), &said),
            Verdict::Pass
        );
        assert!(matches!(
            judge_returned(&test, &result(Status::Ok), &[]),
            Verdict::Fail(_)
        ));
        assert!(matches!(
            judge_returned(&test, &result(Status::NotOk), &said),
            Verdict::Fail(_)
        ));
    }
}
