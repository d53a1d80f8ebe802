// SPDX-License-Identifier: GPL-2.0
//! Programs of the fuzzer, each beside its twin: as many as fit into a run of all tests.

use anyhow::{Result, ensure};

use super::code;
use crate::arm::Armed;
use crate::catalogue::Test;
use crate::fuzz::{self, Line};
use crate::leak;

const PROGRAMS: u64 = 75;
/// On a kernel that checks itself.
const FEWER: u64 = PROGRAMS / 3;

pub fn tests() -> Vec<Test> {
    vec![
        test("fuzz_1", run::<1>),
        test("fuzz_2", run::<2>),
        test("fuzz_3", run::<3>),
        test("fuzz_4", run::<4>),
    ]
}

fn test(name: &str, run: fn(&Armed) -> Result<()>) -> Test {
    let description =
        "random programs that throw or are ended do and leave what their twins do and leave";
    code("unwind", name, fuzz::MODULES, description, run)
}

fn run<const SEED: u64>(_: &Armed) -> Result<()> {
    let programs = if leak::can_be_found() {
        FEWER
    } else {
        PROGRAMS
    };
    let mut last = 0;
    let summary = fuzz::run(SEED, 0..programs, |line| {
        match line {
            Line::Begins(program) => {
                last = program;
                println!("# goes on, with program {program}");
            }
            Line::Difference(difference) => println!("{difference}"),
            _ => (),
        }
        Ok(())
    })?;
    ensure!(last == programs - 1, "it ended after program {last}");
    ensure!(summary.is_well(), "{summary:?}");
    Ok(())
}
