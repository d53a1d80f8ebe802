//! `vm veristat`: the programs of the kernel's own BPF selftests on the unpatched kernel and on the patched
//! one. Those that cannot throw get the same verdict for the same work, and the JIT makes the same of them.
//! Some objects cannot be loaded without the test that they belong to; that is to be so on both kernels.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::try_join;
use glob::Pattern;

use crate::accelerator::Accelerator;
use crate::host;
use crate::image::{self, Image, Side, Symbols, Types};
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::outcome::Ending;
use crate::qemu::{Event, Machine, Share};
use crate::schedule::Slots;
use crate::watch::{self, Orders};
use crate::{BpfTests, Common, Unpatched};

/// Objects that are left out, unless they are asked for.
const SKIPPED: &str = include_str!("../veristat.skipped");
const MEMORY_MIB: u32 = 3072;
const CPUS: u32 = 2;
/// Some objects take minutes.
const PATIENCE: u32 = 40;
/// What throws, in the unpatched kernel and in the patched one.
const THROWS: [&str; 2] = ["bpf_throw", "bpf_throw_stub"];
/// The module that gives programs checkpoints, and what they call there.
const DEADLINES: &str = "bpf_deadline.ko";
const CHECKPOINT: &str = "bpf_checkpoint_stub";
/// The line before a program's image.
const DUMP: &str = "DUMP (JITED) ";
const HEADER: &str = "file_name,";
/// The line that says that veristat gave up on an object, and why.
const FAILED: &str = "not ok ";

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    unpatched: Unpatched,
    #[command(flatten)]
    tests: BpfTests,
    /// What stands in for bpftool in the guest
    #[arg(
        long,
        value_name = "FILE",
        default_value = "build/cargo/vm/release/prog-image"
    )]
    prog_image: PathBuf,
    /// Have programs of the patched kernel get deadlines, and leave out those with a checkpoint and, where
    /// they are refused, what was counted
    #[arg(long)]
    deadlines: bool,
    /// Only objects that match one of these globs [default: all but those of veristat.skipped]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    objects: Vec<String>,
}

/// What one kernel says of a program.
#[derive(Debug)]
struct Program {
    accepted: bool,
    /// Names and values of what veristat counts.
    counts: Vec<(String, String)>,
    image: Option<Image>,
}

/// Programs by object and name.
type Programs = BTreeMap<(String, String), Program>;

/// All that one kernel says.
struct Answers {
    programs: Programs,
    symbols: Symbols,
    types: Types,
    /// Objects that veristat gave up on, and why.
    failed: BTreeMap<String, String>,
}

pub async fn main(options: Options) -> Result<u8> {
    let (common, tests) = (&options.common, &options.tests);
    let unpatched = Kernel::open(&options.unpatched.dir)?;
    let patched = Kernel::open(&common.kernel)?;
    let objects = objects(&tests.unpatched, &options.objects)?;
    let mut modules = patched.modules("kernel/bpf/");
    modules.retain(|module| options.deadlines || !module.ends_with(DEADLINES));
    let images = options.images(&patched, &modules)?;
    let accelerator = common.accelerator(&patched, &images).await?;
    let slots = Slots::new(None)?;
    let ask = |name, kernel, tests, loaded| {
        options.ask(name, kernel, tests, loaded, &objects, &accelerator, &slots)
    };
    let (before, after) = try_join!(
        ask("veristat-unpatched", &unpatched, &tests.unpatched, &[]),
        ask("veristat-patched", &patched, &tests.own, &modules),
    )?;
    let mentions_throw = |object: &str| mentions_throw(&tests.unpatched.join(object));
    let report = compare(&before, &after, options.deadlines, mentions_throw);
    print!("{}", report.text(objects.len()));
    ensure!(report.same > 0, "no program is the same");
    Ok((!report.worse.is_empty()).into())
}

impl Options {
    fn images(&self, kernel: &Kernel, loaded: &[PathBuf]) -> Result<Images> {
        let mut guest = Initramfs::base()?;
        guest.script("/bin/run-veristat", include_str!("../guest/run-veristat"));
        guest.program("/bin/bpftool", &self.prog_image)?;
        guest.libraries(&self.tests.unpatched.join("veristat"))?;
        guest.modules(loaded)?;
        Images::make(kernel, &guest, &self.common.log_dir)
    }

    /// Has a machine with this kernel load all programs.
    #[expect(clippy::too_many_arguments)]
    async fn ask(
        &self,
        name: &'static str,
        kernel: &Kernel,
        tests: &Path,
        loaded: &[PathBuf],
        objects: &[String],
        accelerator: &Accelerator,
        slots: &Slots,
    ) -> Result<Answers> {
        let images = self.images(kernel, loaded)?;
        let types = types(kernel, &tests.join("modules/bpf_testmod.ko"))?;
        let results = self.common.log_dir.join(format!("{name}-results"));
        if results.exists() {
            fs::remove_dir_all(&results)?;
        }
        fs::create_dir_all(&results)?;
        fs::write(results.join("objects"), objects.join("\n") + "\n")?;
        let share = |tag, directory: &Path, writable| Share {
            tag,
            directory: directory.to_owned(),
            writable,
        };
        let machine = Machine {
            accelerator: accelerator.clone(),
            kernel: kernel.image.clone(),
            initrd: Some(images.initrd()),
            // So that an address tells what it is one of.
            append: "nokaslr".to_owned(),
            memory_mib: MEMORY_MIB,
            cpus: CPUS,
            command: Some("exec run-veristat".to_owned()),
            shares: vec![
                share("tests", &self.tests.unpatched, false),
                share("modules", &tests.join("modules"), false),
                share("results", &results, true),
            ],
            icount: false,
            saved: None,
            logs: self.common.log_dir.join(name),
        };
        let mut orders = Orders::new(accelerator.deadlines(kernel));
        orders.deadlines.boot *= PATIENCE;
        orders.deadlines.test *= PATIENCE;
        let _slot = slots.take(MEMORY_MIB).await;
        let mut done = 0;
        let record = watch::run_observed(&machine, &orders, &mut |event| {
            if matches!(event, Event::Channel(line) if line.starts_with("ok ") || line.starts_with(FAILED)) {
                done += 1;
                if done % 100 == 0 {
                    eprintln!("    {name}: {done} of {} objects", objects.len());
                }
            }
        })
        .await?;
        ensure!(
            matches!(record.ending, Ending::Finished { status: 0 }),
            "Linux {}: {}; logs: {}",
            kernel.release,
            record.ending,
            record.logs.display()
        );
        let read = |file: &str| {
            let file = results.join(file);
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        Ok(Answers {
            programs: parse(&read("programs")?)?,
            symbols: Symbols::parse(&read("kallsyms")?)?,
            types,
            failed: failed(&record.channel),
        })
    }
}

/// The BPF objects of a build of test_progs that match one of the globs, else all that are not skipped.
fn objects(tests: &Path, globs: &[String]) -> Result<Vec<String>> {
    let pattern = |glob: &str| Pattern::new(glob).with_context(|| format!("'{glob}' is no glob"));
    let patterns =
        |globs: &mut dyn Iterator<Item = &str>| globs.map(pattern).collect::<Result<Vec<_>>>();
    let asked = patterns(&mut globs.iter().map(String::as_str))?;
    let mut skipped = SKIPPED
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|glob| !glob.is_empty());
    let skipped = patterns(&mut skipped)?;
    let mut objects = Vec::new();
    for entry in fs::read_dir(tests).with_context(|| format!("cannot read {}", tests.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let chosen = match &asked[..] {
            [] => !skipped.iter().any(|glob| glob.matches(&name)),
            asked => asked.iter().any(|glob| glob.matches(&name)),
        };
        if chosen && name.ends_with(".bpf.o") {
            objects.push(name);
        }
    }
    ensure!(
        !objects.is_empty(),
        "no BPF object in {} matches",
        tests.display()
    );
    objects.sort();
    Ok(objects)
}

/// Reads what veristat prints: images, each below a line that names its program, and tables of all programs.
fn parse(text: &str) -> Result<Programs> {
    let mut programs = Programs::new();
    let mut images = BTreeMap::<(String, String), Vec<&str>>::new();
    let mut header = Vec::new();
    let mut lines = text.lines().filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix(DUMP) {
            let key = name.trim_end_matches(':').split_once('/');
            let (object, program) = key.with_context(|| format!("'{line}' names no program"))?;
            let image = images
                .entry((object.to_owned(), program.to_owned()))
                .or_default();
            while let Some(line) =
                lines.next_if(|line| !line.contains(',') && !line.starts_with(DUMP))
            {
                image.push(line);
            }
        } else if line.starts_with(HEADER) {
            header = line.split(',').collect();
        } else {
            let values = Vec::from_iter(line.split(','));
            ensure!(
                values.len() == header.len(),
                "'{line}' is not what veristat counts"
            );
            let mut counts = header
                .iter()
                .zip(values)
                .map(|(name, value)| (name.to_string(), value.to_owned()));
            let (Some((_, object)), Some((_, program)), Some((_, verdict))) =
                (counts.next(), counts.next(), counts.next())
            else {
                bail!("'{line}' names no program");
            };
            let image = images.remove(&(object.clone(), program.clone()));
            let image = image.map(Image::parse).transpose()?;
            let answer = Program {
                accepted: verdict == "success",
                counts: counts.collect(),
                image: image.filter(|image| !image.is_empty()),
            };
            programs.insert((object, program), answer);
        }
    }
    Ok(programs)
}

/// The types of a kernel and of the module that is loaded, whose numbers a program may have in its code.
fn types(kernel: &Kernel, module: &Path) -> Result<Types> {
    let vmlinux = kernel.vmlinux();
    let dump = |base: &[&OsStr], file: &Path| -> Result<String> {
        let mut bpftool = Command::new("bpftool");
        bpftool.args(base).args(["btf", "dump", "file"]).arg(file);
        let types = host::output(&mut bpftool)
            .with_context(|| format!("no types in {}", file.display()))?;
        Ok(String::from_utf8_lossy(&types).into_owned())
    };
    let base = [OsStr::new("--base-btf"), vmlinux.as_os_str()];
    Ok(Types::parse(
        &(dump(&[], &vmlinux)? + &dump(&base, module)?),
    ))
}

/// The objects that veristat gave up on, by what run-veristat says.
fn failed(said: &[String]) -> BTreeMap<String, String> {
    said.iter()
        .filter_map(|line| line.strip_prefix(FAILED)?.split_once(": "))
        .map(|(object, why)| (object.to_owned(), why.to_owned()))
        .collect()
}

/// Whether an object has to do with exceptions at all.
fn mentions_throw(object: &Path) -> bool {
    let name = b"bpf_throw";
    fs::read(object).is_ok_and(|bytes| bytes.windows(name.len()).any(|window| window == name))
}

/// What there is to say of the programs.
#[derive(Debug, Default)]
struct Report {
    /// Programs that are the same, and how many of them are accepted and so have an image.
    same: usize,
    images: usize,
    /// Programs that have a checkpoint.
    checkpoints: usize,
    /// Programs that may throw, and those of them that are accepted now.
    throw: usize,
    lifted: Vec<String>,
    /// Objects that cannot be loaded, on either kernel for the same reason.
    failed: Vec<String>,
    worse: Vec<String>,
}

fn compare(
    before: &Answers,
    after: &Answers,
    deadlines: bool,
    mentions_throw: impl Fn(&str) -> bool,
) -> Report {
    let mut report = Report::default();
    let failed = before.failed.keys().chain(after.failed.keys());
    for object in BTreeSet::from_iter(failed) {
        let [old, new] = [before, after].map(|answers| answers.failed.get(object));
        let said = |why: Option<&String>| why.map_or("loaded", String::as_str).to_owned();
        if old == new {
            report.failed.push(format!("{object}: {}", said(old)));
        } else {
            let line = format!("{object}: {} -> {}", said(old), said(new));
            report.worse.push(line);
        }
    }
    for (key @ (object, name), old) in &before.programs {
        let name = format!("{object}/{name}");
        let Some(new) = after.programs.get(key) else {
            report.worse.push(format!("{name}: not there"));
            continue;
        };
        let calls = |program: &Program, answers: &Answers, functions: &[&str]| {
            let image = program.image.as_ref();
            image.is_some_and(|image| image.calls(functions, &answers.symbols))
        };
        // A program that is refused has no image to see it by.
        let throws = calls(old, before, &THROWS)
            || calls(new, after, &THROWS)
            || (new.image.is_none() && mentions_throw(object));
        if throws {
            report.throw += 1;
            match (old.accepted, new.accepted) {
                (false, true) => report.lifted.push(name),
                (true, false) => report.worse.push(format!("{name}: refused")),
                _ => {}
            }
            continue;
        }
        if deadlines && calls(new, after, &[CHECKPOINT]) {
            report.checkpoints += 1;
            if !old.accepted {
                report.worse.push(format!("{name}: refused -> accepted"));
            }
            continue;
        }
        // A program that cannot have a deadline is verified again without.
        if deadlines && !old.accepted && !new.accepted {
            report.same += 1;
            continue;
        }
        match difference(old, new, before, after) {
            Some(what) => report.worse.push(format!("{name}: {what}")),
            None => {
                report.same += 1;
                report.images += usize::from(old.image.is_some());
            }
        }
    }
    for (object, name) in after.programs.keys() {
        if !before
            .programs
            .contains_key(&(object.clone(), name.clone()))
        {
            report
                .worse
                .push(format!("{object}/{name}: not there before"));
        }
    }
    report
}

/// In what a program that cannot throw is not the same.
fn difference(old: &Program, new: &Program, before: &Answers, after: &Answers) -> Option<String> {
    let verdict = |program: &Program| {
        if program.accepted {
            "accepted"
        } else {
            "refused"
        }
    };
    if old.accepted != new.accepted {
        return Some(format!("{} -> {}", verdict(old), verdict(new)));
    }
    let counts = old
        .counts
        .iter()
        .zip(&new.counts)
        .filter(|(old, new)| old != new);
    let counts = counts.map(|((name, old), (_, new))| format!("{name} {old} -> {new}"));
    let counts = Vec::from_iter(counts);
    if !counts.is_empty() {
        return Some(counts.join(", "));
    }
    match (&old.image, &new.image) {
        (None, None) => None,
        (Some(old), Some(new)) => image::difference(
            Side {
                image: old,
                symbols: &before.symbols,
                types: &before.types,
            },
            Side {
                image: new,
                symbols: &after.symbols,
                types: &after.types,
            },
        ),
        _ => Some("only one has an image".to_owned()),
    }
}

impl Report {
    fn text(&self, objects: usize) -> String {
        let mut text = String::new();
        let mut section = |title: &str, lines: &[String]| {
            if !lines.is_empty() {
                text.push_str(&format!("{title}:\n"));
                lines
                    .iter()
                    .for_each(|line| text.push_str(&format!("  {line}\n")));
            }
        };
        section(
            "programs that may throw, and are accepted on the patched kernel only",
            &self.lifted,
        );
        section(
            "objects that cannot be loaded by themselves, on neither kernel",
            &self.failed,
        );
        section("what is not the same", &self.worse);
        text.push_str(&format!(
            "veristat: {} programs of {objects} objects that cannot throw are the same in verdict and counts, \
             {} of them accepted and the same in their image; {} that may throw are left out, \
             {} with a checkpoint, and {} objects that cannot be loaded; {} are not the same\n",
            self.same,
            self.images,
            self.throw,
            self.checkpoints,
            self.failed.len(),
            self.worse.len()
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: &str = "file_name,prog_name,verdict,total_insns,total_states\n";

    fn answers(programs: &str) -> Answers {
        let symbols = "ffffffff81000000 T work\nffffffff81000100 T bpf_throw\n\
                       ffffffff81000200 T bpf_checkpoint_stub\n";
        Answers {
            programs: parse(programs).unwrap(),
            symbols: Symbols::parse(symbols).unwrap(),
            types: Types::parse(""),
            failed: BTreeMap::new(),
        }
    }

    fn worse(before: &str, after: &str) -> Vec<String> {
        let of = |rows: &str| answers(&format!("{COUNTS}{rows}"));
        compare(&of(before), &of(after), false, |object| {
            object == "throws.bpf.o"
        })
        .worse
    }

    #[test]
    fn what_veristat_prints_is_read() {
        let text = format!(
            "DUMP (JITED) a.bpf.o/x:\nffffffffc0000000 c3\nffffffffc0000100 90c3\n\n\
             DUMP (JITED) a.bpf.o/y:\nffffffffc0000200 c3\n\n\
             {COUNTS}a.bpf.o,x,success,5,1\na.bpf.o,y,success,6,1\na.bpf.o,z,failure,7,2\n\
             {COUNTS}b.bpf.o,x,success,5,1\n"
        );
        let programs = parse(&text).unwrap();
        let found = programs.iter().map(|((object, name), program)| {
            (
                format!("{object}/{name}"),
                program.accepted,
                program.image.is_some(),
                program.counts[0].1.as_str(),
            )
        });
        assert_eq!(
            Vec::from_iter(found),
            [
                ("a.bpf.o/x".to_owned(), true, true, "5"),
                ("a.bpf.o/y".to_owned(), true, true, "6"),
                ("a.bpf.o/z".to_owned(), false, false, "7"),
                ("b.bpf.o/x".to_owned(), true, false, "5"),
            ]
        );
        assert!(parse("a.bpf.o,x,success,5,1\n").is_err());
    }

    #[test]
    fn programs_that_cannot_throw_have_to_be_the_same() {
        let row = "a.bpf.o,x,success,5,1\n";
        assert!(worse(row, row).is_empty());
        assert_eq!(
            worse(row, "a.bpf.o,x,success,6,1\n"),
            ["a.bpf.o/x: total_insns 5 -> 6"]
        );
        assert_eq!(
            worse(row, "a.bpf.o,x,failure,5,1\n"),
            ["a.bpf.o/x: accepted -> refused"]
        );
        assert_eq!(worse(row, ""), ["a.bpf.o/x: not there"]);
        assert_eq!(worse("", row), ["a.bpf.o/x: not there before"]);
        let image =
            |code| format!("DUMP (JITED) a.bpf.o/x:\nffffffffc0000000 {code}\n\n{COUNTS}{row}");
        assert!(worse(&image("90c3"), &image("90c3")).is_empty());
        assert_eq!(
            worse(&image("90c3"), &image("91c3")),
            ["a.bpf.o/x: function 0, byte 0: 90 c3 | 91 c3"]
        );
        assert_eq!(
            worse(&image("90c3"), row),
            ["a.bpf.o/x: only one has an image"]
        );
    }

    #[test]
    fn objects_have_to_be_loaded_on_both_kernels_or_neither() {
        let of = |lines: &[&str]| Answers {
            failed: failed(&Vec::from_iter(lines.iter().map(|line| line.to_string()))),
            ..answers(COUNTS)
        };
        let report = compare(
            &of(&[
                "ok a.bpf.o",
                "not ok b.bpf.o: status 22",
                "not ok c.bpf.o: status 22",
            ]),
            &of(&[
                "not ok a.bpf.o: status 3",
                "not ok b.bpf.o: status 22",
                "ok c.bpf.o",
            ]),
            false,
            |_| false,
        );
        assert_eq!(report.failed, ["b.bpf.o: status 22"]);
        assert_eq!(
            report.worse,
            [
                "a.bpf.o: loaded -> status 3",
                "c.bpf.o: status 22 -> loaded"
            ]
        );
    }

    #[test]
    fn programs_with_a_checkpoint_may_differ_but_not_in_their_verdict() {
        // A call of bpf_checkpoint_stub from ffffffffc0000000.
        let image = "DUMP (JITED) a.bpf.o/x:\nffffffffc0000000 e8fb0100c1\n\n".to_owned();
        let ends = answers(&format!("{image}{COUNTS}a.bpf.o,x,success,6,1\n"));
        let compared = |row: &str, after: &Answers| {
            let before = answers(&format!("{COUNTS}{row}"));
            let report = compare(&before, after, true, |_| false);
            (report.checkpoints, report.same, report.worse)
        };
        let same = compared("a.bpf.o,x,success,5,1\n", &ends);
        assert_eq!(same, (1, 0, vec![]));
        let accepted = compared("a.bpf.o,x,failure,5,1\n", &ends);
        assert_eq!(accepted.2, ["a.bpf.o/x: refused -> accepted"]);
        let refused = answers(&format!("{COUNTS}a.bpf.o,x,failure,10,2\n"));
        let again = compared("a.bpf.o,x,failure,5,1\n", &refused);
        assert_eq!(again, (0, 1, vec![]));
        let refused = compared("a.bpf.o,x,success,5,1\n", &refused);
        assert_eq!(refused.2, ["a.bpf.o/x: accepted -> refused"]);
    }

    #[test]
    fn programs_that_throw_may_differ_but_not_be_refused() {
        // A call of bpf_throw from ffffffffc0000000.
        let image = "DUMP (JITED) a.bpf.o/x:\nffffffffc0000000 e8fb0000c1\n\n".to_owned();
        let accepted = format!("{image}{COUNTS}a.bpf.o,x,success,5,1\n");
        let cheaper = format!("{image}{COUNTS}a.bpf.o,x,success,4,1\n");
        assert!(worse(&accepted, &cheaper).is_empty());
        // One that is refused is known by its object.
        let refused = "throws.bpf.o,x,failure,5,1\n";
        assert!(worse(refused, "throws.bpf.o,x,failure,4,1\n").is_empty());
        assert_eq!(
            worse("throws.bpf.o,x,success,5,1\n", refused),
            ["throws.bpf.o/x: refused"]
        );
        let before = answers(&format!("{COUNTS}a.bpf.o,x,failure,5,1\n"));
        let report = compare(&before, &answers(&accepted), false, |_| false);
        assert_eq!(
            (report.throw, &report.lifted[..]),
            (1, &["a.bpf.o/x".to_owned()][..])
        );
    }
}
