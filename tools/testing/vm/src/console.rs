//! The kernel's console: what in it is a complaint of the kernel, and which test it belongs to.

use std::ops::Range;
use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use crate::plan::Pattern;

/// What the kernel prints when something is wrong with it.
static COMPLAINTS: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new([
        r"\bWARNING: ",
        r"\bBUG: ",
        r"kernel BUG at ",
        r"\bOops\b",
        r"general protection",
        r"double fault",
        r"Kernel panic",
        r"\bKASAN: ",
        r"\bKCSAN: ",
        r"\bUBSAN: ",
        r"INFO: rcu\w* .*stall",
        r"rcu\w*: INFO: ",
        r"INFO: task .* blocked for more than",
        r"INFO: possible ",
        r"INFO: trying to register non-static key",
        r"INFO: lockdep is turned off",
        r"page allocation failure",
        r"vmalloc error: ",
        r"percpu: allocation failed",
        r"kmemleak: (Cannot|Memory pool empty|Kernel memory leak detector disabled)",
        r"suspicious RCU usage",
        r"hard LOCKUP",
        r"soft lockup",
        r"refcount_t: ",
        r"list_(add|del) corruption",
        r"stack guard page",
        r"stack-protector: ",
        r"bad page state",
        r"Call Trace:",
        r"Modules linked in:",
        r"sleeping function called from invalid context",
    ])
    .expect("the patterns are constant")
});

/// Complaints that are no fault of what is tested.
struct Allowed {
    pattern: &'static str,
    #[expect(dead_code, reason = "for the reader of this list")]
    reason: &'static str,
}

const ALLOWED: &[Allowed] = &[];

static ALLOWED_SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(ALLOWED.iter().map(|allowed| allowed.pattern)).expect("the patterns are constant")
});

/// The longest report a complaint is the head of.
const REPORT_LINES: usize = 80;

/// A complaint of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Splat {
    pub text: String,
}

/// The complaints in `lines` that neither a test's own pattern nor a panic that is wanted explains.
/// What belongs to one report (its call trace, say) is told once, by its first line.
pub fn unexpected(lines: &[String], patterns: &[Pattern], panics: bool) -> Vec<Splat> {
    let mut splats = Vec::new();
    let mut report: Range<usize> = 0..0;
    for (number, line) in lines.iter().enumerate() {
        if line.contains("---[ end ") {
            report = 0..0;
            continue;
        }
        if !COMPLAINTS.is_match(line) || ALLOWED_SET.is_match(line) {
            continue;
        }
        let detail = line.contains("Call Trace:") || line.contains("Modules linked in:");
        if detail && report.contains(&number) {
            continue;
        }
        report = number..number + REPORT_LINES;
        let wanted = panics && line.contains("Kernel panic - not syncing");
        if !wanted && !patterns.iter().any(|pattern| pattern.is_match(line)) {
            splats.push(Splat { text: line.clone() });
        }
    }
    splats
}

/// A line of the console without the time, CPU and task that the kernel puts before it.
pub fn without_prefix(line: &str) -> &str {
    static PREFIX: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? ").expect("the pattern is constant")
    });
    PREFIX
        .find(line)
        .map_or(line, |prefix| &line[prefix.end()..])
}

static MARKER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:backstop_selftests|test_progs): (begin|end) (\S+)")
        .expect("the pattern is constant")
});

/// What the kernel said while each test ran, by the marks that the guest sets in its log.
pub struct Segments<'a> {
    pub tests: Vec<(String, &'a [String])>,
    /// Lines that belong to no test.
    pub outside: Vec<String>,
    /// The test that had begun and not ended.
    pub open: Option<String>,
}

pub fn segments(lines: &[String]) -> Segments<'_> {
    let mut segments = Segments {
        tests: Vec::new(),
        outside: Vec::new(),
        open: None,
    };
    let mut start = 0;
    for (number, line) in lines.iter().enumerate() {
        match MARKER
            .captures(line)
            .map(|found| (found[1] == *"begin", found[2].to_owned()))
        {
            Some((true, name)) => {
                // A test that began while another had not ended takes over.
                if let Some(open) = segments.open.replace(name) {
                    segments.tests.push((open, &lines[start..number]));
                }
                start = number;
            }
            Some((false, _)) => {
                if let Some(open) = segments.open.take() {
                    segments.tests.push((open, &lines[start..=number]));
                }
            }
            None if segments.open.is_none() => segments.outside.push(line.clone()),
            None => (),
        }
    }
    if let Some(open) = &segments.open {
        segments.tests.push((open.clone(), &lines[start..]));
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn found(text: &str, patterns: &[&str], panics: bool) -> Vec<String> {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let splats = unexpected(&lines(text), &patterns, panics);
        splats.into_iter().map(|splat| splat.text).collect()
    }

    #[test]
    fn complaints_are_found() {
        for line in [
            "WARNING: kernel/bpf/verifier.c:1 at f+0x1/0x2, CPU#0: sh/1",
            "WARNING: suspicious RCU usage",
            "WARNING: possible circular locking dependency detected",
            "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "Oops: 0002 [#1] SMP",
            "Oops: general protection fault, probably for non-canonical address",
            "kernel BUG at mm/slub.c:1!",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [sh:1]",
            "watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 0",
            "INFO: task sh:1 blocked for more than 120 seconds.",
            "BUG: KASAN: slab-use-after-free in f+0x1/0x2",
            "BUG: memory leak",
            "BUG: sleeping function called from invalid context at f.c:1",
            "BUG: using smp_processor_id() in preemptible [00000000] code: sh/1",
            "WARNING: inconsistent lock state",
            "[ BUG: Invalid wait context ]",
            "kmemleak: Kernel memory leak detector disabled",
            "UBSAN: array-index-out-of-bounds in x.c:1",
            "Kernel panic - not syncing: Attempted to kill init!",
            "Call Trace:",
        ] {
            let line = format!("[    1.234567] {line}");
            assert_eq!(found(&line, &[], false), [line.as_str()]);
        }
    }

    #[test]
    fn ordinary_lines_are_not_complaints() {
        for line in [
            "Linux version 7.3.4-backstop",
            "Uhhuh. NMI received for unknown reason 30 on CPU 0.",
            "bpf_destructive: loaded",
            "kmemleak: Kernel memory leak detector initialized (mem pool available: 1)",
            "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
            "rcu: Preemptible hierarchical RCU implementation.",
            "x86/fpu: x87 FPU will use FXSAVE",
            "debug: unmapping init [mem 0xffffffff82a00000-0xffffffff82bfffff]",
        ] {
            assert!(found(line, &[], false).is_empty(), "{line}");
        }
    }

    #[test]
    fn one_report_is_one_complaint() {
        let text = "WARNING: at f\nModules linked in: x\nCall Trace:\n f+1\n---[ end trace 0 ]---\n\
                    quiet\nCall Trace:\n";
        assert_eq!(found(text, &[], false), ["WARNING: at f", "Call Trace:"]);
    }

    #[test]
    fn a_wanted_panic_explains_its_call_trace_and_nothing_else() {
        let text = "Kernel panic - not syncing: why\nCall Trace:\n f+1\n";
        assert!(found(text, &[], true).is_empty());
        assert_eq!(found(text, &[], false).len(), 1);
        let text = format!("{text}WARNING: at f\n");
        assert_eq!(found(&text, &[], true), ["WARNING: at f"]);
    }

    #[test]
    fn a_pattern_of_the_test_explains_a_complaint() {
        assert!(found("WARNING: at f\nCall Trace:\n", &["WARNING: at f"], false).is_empty());
        assert_eq!(found("WARNING: at g\n", &["WARNING: at f"], false).len(), 1);
    }

    #[test]
    fn lines_belong_to_the_test_that_ran() {
        let lines = lines(
            "boot\n\
             [1] backstop_selftests: begin s/a\nfrom a\n[2] backstop_selftests: end s/a\n\
             between\n\
             [3] backstop_selftests: begin s/b\nfrom b\n",
        );
        let segments = segments(&lines);
        assert_eq!(segments.outside, ["boot", "between"]);
        assert_eq!(segments.open.as_deref(), Some("s/b"));
        let texts: Vec<_> = segments
            .tests
            .iter()
            .map(|(name, lines)| {
                (
                    name.as_str(),
                    lines.iter().any(|line| line.starts_with("from")),
                )
            })
            .collect();
        assert_eq!(texts, [("s/a", true), ("s/b", true)]);
    }
}
