//! Reports what tests in a guest have reported by themselves.

use std::io;

use anyhow::Result;

use crate::console;
use crate::ktap::{Status, Stream, Writer};
use crate::outcome::{Ending, Verdict};
use crate::watch::Record;

/// Writes the results of a stream, with `prefix` before each name, and what else is wrong with the
/// machine; an empty stream is, for the reason that is given. Returns the exit status.
pub fn relay(
    facts: &[String],
    stream: Stream,
    prefix: &str,
    empty: &str,
    record: &Record,
) -> Result<u8> {
    let names: Vec<_> = stream
        .results
        .iter()
        .map(|test| format!("{prefix}{}", test.name))
        .collect();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let mut writer = Writer::new(io::stdout(), facts, &all)?;
    for (test, name) in stream.results.iter().zip(&names) {
        let verdict = match test.status {
            Status::Ok => Verdict::Pass,
            Status::Skip => Verdict::Skip(test.reason.clone()),
            Status::NotOk => Verdict::Fail(test.diagnostics.clone()),
        };
        writer.record(
            name,
            verdict,
            vec![format!("logs: {}", record.logs.display())],
        )?;
    }

    let mut faults = stream.faults;
    let splats = console::unexpected(&record.console, &[], false);
    faults.extend(
        splats
            .into_iter()
            .map(|splat| format!("unexpected on the console: {}", splat.text)),
    );
    if !matches!(record.ending, Ending::Finished { status: 0 }) {
        faults.push(record.ending.to_string());
    }
    if stream.results.is_empty() {
        faults.push(empty.to_owned());
    }
    for fault in &mut faults {
        fault.insert_str(0, "error: ");
    }
    let totals = writer.finish(&faults)?;
    Ok(if faults.is_empty() {
        totals.exit_code()
    } else {
        1
    })
}
