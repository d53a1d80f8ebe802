// SPDX-License-Identifier: GPL-2.0
//! What a test is expected to do, as progs/expect.h writes it into declaration tags.

use std::fmt;

use regex::Regex;
use rustix::thread::CapabilitySet;
use serde::Serialize;

/// Every tag of ours begins with this; a number and a colon follow.
const PREFIX: &str = "comment:backstop:";
/// The kernel keeps so many bytes of a program's name.
const PROGRAM_NAME_MAX: usize = 15;

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Expectation {
    pub description: String,
    pub load: Load,
    /// Looked for in order in the log of loader and verifier.
    pub messages: Vec<Pattern>,
    pub without_cap: Option<CapabilitySet>,
    pub without_module: Option<String>,
    /// Beside those whose kfuncs the object calls.
    pub modules: Vec<String>,
    /// Programs of the object that are loaded, too.
    pub with: Vec<String>,
    pub event: Event,
    pub retval: Option<i32>,
    /// The labels of the objects that one run lets go of.
    pub released: Option<String>,
    pub in_order: bool,
    /// Each run is ended for its deadline.
    pub expires: bool,
    pub calls: Vec<Calls>,
    pub attributed: Option<Attribution>,
    /// Looked for in order on the console, after the attribution.
    pub console: Vec<Pattern>,
    pub not_console: Vec<Pattern>,
    /// Complaints of the kernel, as regular expressions, that may come and are no fault.
    pub complaints: &'static [&'static str],
    /// The verifier's log is to have messages only: the trace of a long program takes long.
    pub untraced: bool,
    /// Takes minutes on a kernel that checks itself.
    pub long: bool,
    /// Allocations are made to fail, which takes a kernel that does that.
    pub fault_injection: bool,
    pub end: End,
    /// Other ways to end that are as good; the console then shows what is said there.
    pub or: Vec<Way>,
    pub append: String,
    pub crash_kernel: bool,
    pub stop_commands: Option<StopCommands>,
    pub module_params: Option<String>,
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Load {
    #[default]
    Accepted,
    Refused(Errno),
}

/// An error number of the system, shown by name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What makes the program run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Event {
    /// The test's own system calls.
    #[default]
    Syscall,
    /// Time passes while the test sleeps.
    Timer,
    /// The test reads the iterator.
    Iter,
    /// The console's own thread prints what the test writes to the kernel log.
    Printk,
    /// The host injects a non-maskable interrupt.
    Nmi,
    /// BPF_PROG_TEST_RUN.
    TestRun,
    /// Nothing: the program is only loaded.
    None,
}

/// How the machine ends, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    #[default]
    Return,
    Panic,
    Reset,
    PowerOff,
    Halt,
    CrashDump,
}

/// A way in which a test may end, and what the console shows then.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    pub end: End,
    pub console: Vec<Pattern>,
    pub not_console: Vec<Pattern>,
}

/// What user space does when the kernel asks it to stop the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCommands {
    /// It says so on the console and asks the first process.
    Marked,
    /// It is not there.
    Missing,
    /// It fails.
    Failing,
    /// It never ends.
    Hanging,
}

/// How often one run calls functions of the kernel, all of them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    pub count: u64,
    pub functions: Vec<String>,
}

/// The console line with which a destructive kfunc names its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    pub kfunc: String,
    pub context: String,
    pub why: String,
}

/// Literal text, except for regular expressions in {{ }}.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

/// A tag that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct TagError {
    tag: String,
    reason: String,
}

impl Expectation {
    /// Reads the tags of one function. Those of others than us are passed over; without a
    /// description the function is no test.
    pub fn from_tags<'a>(
        tags: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<Self>, TagError> {
        let mut numbered = Vec::new();
        for tag in tags {
            let Some(rest) = tag.strip_prefix(PREFIX) else {
                continue;
            };
            let (number, text) = rest
                .split_once(':')
                .and_then(|(number, text)| Some((number.parse::<u32>().ok()?, text)))
                .ok_or_else(|| TagError::new(tag, "no number"))?;
            numbered.push((number, text));
        }
        // BTF keeps no order between the tags of a function.
        numbered.sort_unstable();
        numbered.dedup();
        let mut expectation = Self::default();
        for (_, tag) in &numbered {
            expectation.apply(tag)?;
        }
        if expectation.load == Load::Accepted && !expectation.messages.is_empty() {
            return Err(TagError::new("msg", "beside no failure"));
        }
        match (numbered.first(), expectation.description.is_empty()) {
            (None, _) => Ok(None),
            (Some((_, tag)), true) => Err(TagError::new(tag, "beside no description")),
            (Some(_), false) => Ok(Some(expectation)),
        }
    }

    /// Whether what the program holds is compared with what it lets go of.
    pub fn is_conserving(&self) -> bool {
        self.released.is_some() || !self.calls.is_empty()
    }

    fn apply(&mut self, tag: &str) -> Result<(), TagError> {
        let bad = |reason: &str| TagError::new(tag, reason);
        let pattern = |text: &str| Pattern::parse(text).map_err(|error| bad(&error.to_string()));
        let (key, value) = tag.split_once('=').unwrap_or((tag, ""));
        match key {
            "description" => self.description = value.to_owned(),
            "success" => self.load = Load::Accepted,
            "failure" => {
                let errno = Errno::from_name(value).ok_or_else(|| bad("no known errno"))?;
                self.load = Load::Refused(errno);
            }
            "msg" => self.messages.push(pattern(value)?),
            "without_cap" => {
                let cap = CapabilitySet::from_name(value).filter(|cap| !cap.is_empty());
                self.without_cap = Some(cap.ok_or_else(|| bad("no known capability"))?);
            }
            "module" => self.modules.push(value.to_owned()),
            "without_module" => self.without_module = Some(value.to_owned()),
            "with" => self.with.push(value.to_owned()),
            "event" => {
                self.event = match value {
                    "syscall" => Event::Syscall,
                    "timer" => Event::Timer,
                    "iter" => Event::Iter,
                    "printk" => Event::Printk,
                    "nmi" => Event::Nmi,
                    "test_run" => Event::TestRun,
                    "none" => Event::None,
                    _ => return Err(bad("no known event")),
                }
            }
            "retval" => self.retval = Some(value.parse().map_err(|_| bad("no number"))?),
            "released" => self.released = Some(value.to_owned()),
            "expires" => self.expires = true,
            "in_order" => self.in_order = true,
            "untraced" => self.untraced = true,
            "long" => self.long = true,
            "calls" => {
                let (count, functions) = value.split_once(',').ok_or_else(|| bad("no comma"))?;
                self.calls.push(Calls {
                    count: count.parse().map_err(|_| bad("no number"))?,
                    functions: functions.split('|').map(str::to_owned).collect(),
                });
            }
            "attributed" => {
                let mut parts = value.splitn(3, ',').map(str::to_owned);
                let mut part = || parts.next().ok_or_else(|| bad("fewer than three parts"));
                self.attributed = Some(Attribution {
                    kfunc: part()?,
                    context: part()?,
                    why: part()?,
                });
            }
            "console" => self.console.push(pattern(value)?),
            "not_console" => self.not_console.push(pattern(value)?),
            "ends" => {
                self.end = match value {
                    "panic" => End::Panic,
                    "reset" => End::Reset,
                    "power_off" => End::PowerOff,
                    "halt" => End::Halt,
                    "crash_dump" => End::CrashDump,
                    _ => return Err(bad("no known end")),
                }
            }
            "append" => self.append = value.to_owned(),
            "crash_kernel" => self.crash_kernel = true,
            "module_params" => self.module_params = Some(value.to_owned()),
            "quiet" => self.quiet = true,
            "stop_commands" => {
                self.stop_commands = Some(match value {
                    "marked" => StopCommands::Marked,
                    "missing" => StopCommands::Missing,
                    "failing" => StopCommands::Failing,
                    "hanging" => StopCommands::Hanging,
                    _ => return Err(bad("no known state of the commands")),
                })
            }
            _ => return Err(bad("no known key")),
        }
        Ok(())
    }
}

impl Attribution {
    /// A regular expression for the line, with the program's id as `id` and its tag as `tag`.
    pub fn regex(&self, program: &str) -> String {
        let (shown, cut) = program.split_at(program.len().min(PROGRAM_NAME_MAX));
        let mut name = regex::escape(shown);
        if !cut.is_empty() {
            name.push_str(&format!("(?:{})?", regex::escape(cut)));
        }
        format!(
            r#"bpf_destructive: {} by program "{name}" id (?<id>\d+) tag (?<tag>[0-9a-f]{{16}}) on cpu \d+ task .+ pid \d+ in {} context: {}"#,
            self.kfunc,
            self.context,
            regex::escape(&self.why),
        )
    }
}

impl Pattern {
    pub fn parse(source: &str) -> Result<Self, regex::Error> {
        let mut expression = String::new();
        let mut rest = source;
        while let Some((literal, after)) = rest.split_once("{{") {
            let Some((inner, after)) = after.split_once("}}") else {
                break;
            };
            expression.push_str(&regex::escape(literal));
            expression.push_str("(?:");
            expression.push_str(inner);
            expression.push(')');
            rest = after;
        }
        expression.push_str(&regex::escape(rest));
        Ok(Self {
            source: source.to_owned(),
            regex: Regex::new(&expression)?,
        })
    }

    pub fn regex(&self) -> &Regex {
        &self.regex
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// The first pattern that is not found after the ones before it.
pub fn missing_in_order<'a>(text: &str, patterns: &'a [Pattern]) -> Option<&'a Pattern> {
    let mut rest = text;
    patterns
        .iter()
        .find(|pattern| match pattern.regex.find(rest) {
            Some(found) => {
                rest = &rest[found.end()..];
                false
            }
            None => true,
        })
}

const ERRNO_NAMES: &[(&str, i32)] = &[
    ("E2BIG", libc::E2BIG),
    ("EACCES", libc::EACCES),
    ("EBUSY", libc::EBUSY),
    ("EEXIST", libc::EEXIST),
    ("EINVAL", libc::EINVAL),
    ("ENOENT", libc::ENOENT),
    ("ENOSPC", libc::ENOSPC),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("EPERM", libc::EPERM),
    ("ESRCH", libc::ESRCH),
];

impl Errno {
    fn from_name(name: &str) -> Option<Self> {
        ERRNO_NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| Self(*number))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ERRNO_NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TagError {
    fn new(tag: &str, reason: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tag '{}': {}; see progs/expect.h", self.tag, self.reason)
    }
}

impl std::error::Error for TagError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tags: &[&str]) -> Result<Option<Expectation>, TagError> {
        Expectation::from_tags(tags.iter().copied())
    }

    #[test]
    fn foreign_tags_make_no_test() {
        assert_eq!(read(&["module:bpf_destructive", "comment:else"]), Ok(None));
    }

    #[test]
    fn defaults() {
        let expectation = read(&["comment:backstop:0:description=does a = b"])
            .unwrap()
            .unwrap();
        assert_eq!(expectation.description, "does a = b");
        assert_eq!(expectation.load, Load::Accepted);
        assert_eq!(expectation.event, Event::Syscall);
        assert_eq!(expectation.end, End::Return);
        assert_eq!(expectation.retval, None);
    }

    #[test]
    fn every_tag() {
        let expectation = read(&[
            "comment:backstop:10:msg=second",
            "comment:backstop:9:msg=first",
            "comment:backstop:1:description=x",
            "comment:backstop:2:failure=EACCES",
            "comment:backstop:3:without_cap=SYS_BOOT",
            "comment:backstop:4:event=nmi",
            "comment:backstop:5:retval=-22",
            "comment:backstop:6:attributed=bpf_panic,NMI,a, b",
            "comment:backstop:7:ends=power_off",
            "comment:backstop:8:append=panic=1 quiet",
            "comment:backstop:11:crash_kernel",
            "comment:backstop:12:stop_commands=missing",
            "comment:backstop:13:console=c",
            "comment:backstop:15:module_params=a=1",
            "comment:backstop:16:quiet",
            "comment:backstop:14:not_console=d",
            "comment:backstop:17:without_module=bpf_unwind",
            "comment:backstop:18:with=other",
            "comment:backstop:19:released=ab",
            "comment:backstop:20:in_order",
            "comment:backstop:21:calls=2,one|another",
            "comment:backstop:22:untraced",
        ])
        .unwrap()
        .unwrap();
        let messages: Vec<_> = expectation
            .messages
            .iter()
            .map(Pattern::to_string)
            .collect();
        assert_eq!(messages, ["first", "second"]);
        assert_eq!(expectation.load, Load::Refused(Errno(libc::EACCES)));
        assert_eq!(expectation.without_cap, Some(CapabilitySet::SYS_BOOT));
        assert_eq!(expectation.event, Event::Nmi);
        assert_eq!(expectation.retval, Some(-22));
        assert_eq!(expectation.attributed.unwrap().why, "a, b");
        assert_eq!(expectation.end, End::PowerOff);
        assert_eq!(expectation.append, "panic=1 quiet");
        assert!(expectation.crash_kernel);
        assert_eq!(expectation.stop_commands, Some(StopCommands::Missing));
        assert_eq!(expectation.module_params.as_deref(), Some("a=1"));
        assert!(expectation.quiet);
        assert_eq!(expectation.without_module.as_deref(), Some("bpf_unwind"));
        assert_eq!(expectation.with, ["other"]);
        assert_eq!(expectation.released.as_deref(), Some("ab"));
        assert!(expectation.in_order);
        assert!(expectation.untraced);
        let functions = ["one", "another"].map(str::to_owned).to_vec();
        assert_eq!(
            expectation.calls,
            [Calls {
                count: 2,
                functions
            }]
        );
        assert_eq!(expectation.console.len(), 1);
        assert_eq!(expectation.not_console.len(), 1);
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        for tag in [
            "comment:backstop:description=no number",
            "comment:backstop:0:success",
            "comment:backstop:0:unheard_of",
            "comment:backstop:0:ends=badly",
            "comment:backstop:0:event=weather",
            "comment:backstop:0:failure=EWRONG",
            "comment:backstop:0:without_cap=FLY",
            "comment:backstop:0:retval=x",
            "comment:backstop:0:calls=f",
            "comment:backstop:0:calls=x,f",
            "comment:backstop:0:attributed=bpf_panic,task",
            "comment:backstop:0:console={{(}}",
            "comment:backstop:0:msg=of a success",
        ] {
            assert!(read(&[tag]).is_err(), "{tag}");
        }
    }

    #[test]
    fn patterns_are_literal_outside_braces() {
        let matches = |pattern, text| Pattern::parse(pattern).unwrap().regex().is_match(text);
        assert!(matches("a.c(", "xa.c(x"));
        assert!(!matches("a.c", "abc"));
        assert!(matches("id {{[0-9]+|none}}!", "id 42!"));
        assert!(matches("id {{[0-9]+|none}}!", "id none!"));
        assert!(!matches("id {{[0-9]+}}!", "id [0-9]+!"));
        assert!(matches("{{ open", "{{ open"));
    }

    #[test]
    fn messages_are_found_in_order() {
        let patterns = ["one", "two"].map(|text| Pattern::parse(text).unwrap());
        assert_eq!(missing_in_order("one two", &patterns), None);
        assert_eq!(missing_in_order("two one", &patterns), Some(&patterns[1]));
        assert_eq!(missing_in_order("", &patterns), Some(&patterns[0]));
    }

    #[test]
    fn an_attribution_names_everything() {
        let attribution = Attribution {
            kfunc: "bpf_halt".into(),
            context: "hardirq".into(),
            why: "now".into(),
        };
        let regex = Regex::new(&attribution.regex("crash_dump_hardirq")).unwrap();
        let line = |name| {
            format!(
                "bpf_destructive: bpf_halt by program \"{name}\" id 12 tag 0123456789abcdef \
                 on cpu 0 task my task pid 99 in hardirq context: now"
            )
        };
        let found = line("crash_dump_hard");
        let found = regex.captures(&found).unwrap();
        assert_eq!(&found["id"], "12");
        assert_eq!(&found["tag"], "0123456789abcdef");
        assert!(regex.is_match(&line("crash_dump_hardirq")));
        assert!(!regex.is_match(&line("crash_dump")));
    }
}
