//! `vm bench`: how many instructions BPF programs take, on the unpatched kernel and on the patched one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::console;
use crate::images::Images;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::outcome::Ending;
use crate::plot;
use crate::qemu::Machine;
use crate::watch::{self, Orders};
use crate::{Common, TestProgram, Unpatched};

/// Rows whose names begin so need modules that only the patched kernel has.
const PATCHED_ONLY: [&str; 3] = [
    "one kfunc call",
    "references held",
    "from deadline to ended",
];
/// Counting makes a machine slower.
const COUNTING: u32 = 5;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    unpatched: Unpatched,
    #[command(flatten)]
    program: TestProgram,
    /// Where the counts go, as JSON
    #[arg(long, value_name = "FILE", default_value = "build/bench.json")]
    out: PathBuf,
    /// Where the plot of what throws cost goes, as SVG
    #[arg(long, value_name = "FILE", default_value = "build/bench.svg")]
    plot: PathBuf,
    /// Run nothing, plot these counts of an earlier run
    #[arg(long, value_name = "JSON", conflicts_with = "out")]
    from: Option<PathBuf>,
}

pub async fn main(options: Options) -> Result<u8> {
    let rows = match &options.from {
        Some(file) => read(file)?,
        None => run(&options).await?,
    };
    let file = &options.plot;
    fs::write(file, plot::svg(&rows)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("what throws cost, as a plot: {}", file.display());
    Ok(0)
}

/// The rows of a report.
fn read(file: &Path) -> Result<Vec<Row>> {
    let what = || format!("cannot read counts from {}", file.display());
    let text = fs::read_to_string(file).with_context(what)?;
    let report: Report = serde_json::from_str(&text).with_context(what)?;
    Ok(report.rows)
}

/// Counts, and reports.
async fn run(options: &Options) -> Result<Vec<Row>> {
    let common = &options.common;
    let accelerator = Accelerator::tcg("instructions are counted");
    let unpatched = Kernel::open(&options.unpatched.dir)?;
    let patched = Kernel::open(&common.kernel)?;
    let (before, after) = futures::try_join!(
        count(options, &unpatched, &accelerator, "bench-unpatched"),
        count(options, &patched, &accelerator, "bench-patched"),
    )?;
    let rows = compare(&before, &after)?;
    print!(
        "{}",
        table(["instructions per run", "unpatched", "patched", ""], &rows)
    );
    let report = Report {
        unit: "guest instructions per run".to_owned(),
        unpatched: common.facts_by_name(&unpatched, &accelerator).await?,
        patched: common.facts_by_name(&patched, &accelerator).await?,
        rows,
    };
    let out = &options.out;
    let text = serde_json::to_string_pretty(&report)? + "\n";
    fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
    eprintln!("with versions, as JSON: {}", out.display());
    Ok(report.rows)
}

/// A line of what the guest's program prints. A nanosecond is an instruction here.
#[derive(Debug, Deserialize)]
struct Line {
    row: String,
    runs: Option<u64>,
    nanoseconds_per_run: Option<u64>,
}

/// Has a machine with this kernel count.
async fn count(
    options: &Options,
    kernel: &Kernel,
    accelerator: &Accelerator,
    name: &str,
) -> Result<Vec<Line>> {
    let common = &options.common;
    let mut guest = Initramfs::base()?;
    guest.program("/bin/backstop_selftests", &options.program.path)?;
    // A module that is loaded makes a throw dearer: the unwinder looks there too.
    guest.idle_modules(&kernel.modules("kernel/bpf/"))?;
    let images = Images::make(kernel, &guest, &common.log_dir)?;
    let machine = Machine {
        accelerator: accelerator.clone(),
        kernel: kernel.image.clone(),
        initrd: Some(images.initrd()),
        append: String::new(),
        memory_mib: kernel.memory_mib(),
        cpus: 1,
        command: Some("exec backstop_selftests --bench".to_owned()),
        shares: Vec::new(),
        icount: true,
        saved: None,
        logs: common.log_dir.join(name),
    };
    let mut orders = Orders::new(accelerator.deadlines(kernel));
    orders.deadlines.boot *= COUNTING;
    orders.deadlines.test *= COUNTING;
    let record = watch::run(&machine, &orders).await?;

    let failed = |what: &dyn std::fmt::Display| {
        let logs = record.logs.display();
        format!("Linux {}: {what}; logs: {logs}", kernel.release)
    };
    let splats = console::unexpected(&record.console, &[], false);
    if let Some(splat) = splats.first() {
        bail!(failed(&format!(
            "unexpected on the console: {}",
            splat.text
        )));
    }
    if !matches!(record.ending, Ending::Finished { status: 0 }) {
        bail!(failed(&record.ending));
    }
    record
        .channel
        .iter()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).with_context(|| failed(&line)))
        .collect()
}

#[derive(Debug, PartialEq, Deserialize, Serialize)]
pub struct Row {
    pub row: String,
    pub runs: Option<u64>,
    /// None: it has no such kfunc.
    pub unpatched: Option<u64>,
    pub patched: Option<u64>,
}

/// Puts the counts of both kernels beside each other.
fn compare(before: &[Line], after: &[Line]) -> Result<Vec<Row>> {
    ensure!(!after.is_empty(), "the guest's program counted nothing");
    let count = |lines: &[Line], name: &str| {
        let line = lines.iter().find(|line| line.row == name);
        line.and_then(|line| line.nanoseconds_per_run)
    };
    let row = |line: &Line| {
        let name = &line.row;
        let row = Row {
            row: name.clone(),
            runs: line.runs,
            unpatched: count(before, name),
            patched: count(after, name),
        };
        ensure!(
            row.patched.is_some(),
            "'{name}' does not run on the patched kernel"
        );
        ensure!(
            row.unpatched.is_some() || PATCHED_ONLY.iter().any(|begin| name.starts_with(begin)),
            "'{name}' does not run on the unpatched kernel"
        );
        Ok(row)
    };
    after.iter().map(row).collect()
}

/// Columns under a heading: names to the left, numbers to the right, the last one how they differ.
fn table(heading: [&str; 4], rows: &[Row]) -> String {
    let number =
        |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let mut lines = vec![heading.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let change = row.unpatched.zip(row.patched).map(|(unpatched, patched)| {
            let change = i128::from(patched) - i128::from(unpatched);
            if change == 0 {
                "=".to_owned()
            } else {
                format!("{change:+}")
            }
        });
        [
            row.row.clone(),
            number(row.unpatched),
            number(row.patched),
            change.unwrap_or_default(),
        ]
    }));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let widths: [usize; 4] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let mut text = String::new();
    for [row, unpatched, patched, change] in &lines {
        let line = format!(
            "{row:0$}  {unpatched:>1$}  {patched:>2$}  {change:>3$}",
            widths[0], widths[1], widths[2], widths[3]
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What the counts are written down with.
#[derive(Deserialize, Serialize)]
struct Report {
    unit: String,
    unpatched: BTreeMap<String, String>,
    patched: BTreeMap<String, String>,
    rows: Vec<Row>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    const PATCHED: &str = r#"{"row":"empty","runs":10,"nanoseconds_per_run":99}
{"row":"throw","runs":10,"nanoseconds_per_run":400}
{"row":"one kfunc call","runs":10,"nanoseconds_per_run":104}"#;

    #[test]
    fn kernels_beside_each_other() {
        let unpatched = r#"{"row":"empty","runs":10,"nanoseconds_per_run":99}
{"row":"throw","runs":10,"nanoseconds_per_run":1746}
{"row":"one kfunc call","absent":"bpf_noop"}"#;
        let rows = compare(&lines(unpatched), &lines(PATCHED)).unwrap();
        assert_eq!(
            table(["instructions", "unpatched", "patched", ""], &rows),
            "\
instructions    unpatched  patched
empty                  99       99      =
throw                1746      400  -1346
one kfunc call          -      104
"
        );
    }

    #[test]
    fn what_was_not_counted_is_named() {
        let missing = |before: &str, after: &str| {
            let error = compare(&lines(before), &lines(after)).unwrap_err();
            error.to_string()
        };
        let absent = r#"{"row":"throw","absent":"bpf_throw"}"#;
        assert!(missing(absent, PATCHED).contains("unpatched kernel"));
        assert!(missing(PATCHED, absent).contains("'throw' does not run on the patched kernel"));
        assert!(missing(PATCHED, "").contains("nothing"));
    }
}
