// SPDX-License-Identifier: GPL-2.0
//! backstop: shows how long BPF programs run, and ends them.

mod control;
mod limit;
mod list;
mod order;
mod program;
mod ps;
mod record;
mod refusal;
mod screen;
mod span;
mod stop;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use refusal::Refusal;

/// Show how long BPF programs run, and end them.
///
/// While the module bpf_deadline is loaded, programs that are loaded have a deadline: a run that
/// takes longer is ended, and what it holds is released.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Show what libbpf has to say
    #[arg(short, long, global = true)]
    verbose: bool,
}

const AFTER_HELP: &str = "\
Needs root, and the module bpf_deadline. Exit codes: 0 done, 1 refused, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    /// Show programs, their deadlines, and when a run was last ended
    Ps(ps::Options),
    /// End all runs of programs now, and let them run no more
    Kill(stop::Options),
    /// Let programs run again
    Resume(stop::Options),
    /// Show how long runs may take, or change it
    Limit(limit::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if !cli.verbose {
        libbpf_rs::set_print(None);
    }
    let done = match &cli.command {
        Command::Ps(options) => ps::run(options).map_err(|refusal| vec![refusal]),
        Command::Kill(options) => stop::run(options, stop::Change::Stop),
        Command::Resume(options) => stop::run(options, stop::Change::Resume),
        Command::Limit(options) => limit::run(options).map_err(|refusal| vec![refusal]),
    };
    let refusals = match done {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(refusals) if refusals.iter().all(Refusal::is_closed_pipe) => return ExitCode::SUCCESS,
        Err(refusals) => refusals,
    };
    for refusal in refusals {
        eprintln!("backstop: {refusal}");
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[test]
    fn options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_usage_is_told() {
        let refused = |words: &[&str]| {
            let words = ["backstop"].iter().chain(words);
            Cli::try_parse_from(words).err().map(|error| error.kind())
        };
        assert_eq!(refused(&["kill", "1", "2"]), None);
        assert_eq!(refused(&["ps", "--watch"]), None);
        assert_eq!(refused(&["ps", "--watch", "0.5", "--json"]), None);
        assert_eq!(refused(&["limit", "row", "3"]), None);
        assert_eq!(refused(&["kill"]), Some(ErrorKind::MissingRequiredArgument));
        for words in [
            ["kill", "one"],
            ["kill", "4294967296"],
            ["resume", "1.5"],
            ["ps", "--watch=0"],
            ["ps", "--watch=soon"],
            ["ps", "--watch=inf"],
        ] {
            assert_eq!(
                refused(&words),
                Some(ErrorKind::ValueValidation),
                "{words:?}"
            );
        }
        for words in [["ps", "--sort=colour"], ["limit", "nmi"]] {
            assert_eq!(refused(&words), Some(ErrorKind::InvalidValue), "{words:?}");
        }
    }
}
