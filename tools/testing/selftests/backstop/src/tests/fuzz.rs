// SPDX-License-Identifier: GPL-2.0
//! Programs of the fuzzer, each beside its twin: as many as fit into a run of all tests.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::code;
use crate::arm::Armed;
use crate::catalogue::Test;
use crate::fuzz::{self, Line};
use crate::leak;

const PROGRAMS: u64 = 75;
/// On a kernel that checks itself.
const FEWER: u64 = PROGRAMS / 3;

/// Of a program that takes longer, it is said so often that it goes on.
const LONG: Duration = Duration::from_secs(60);
/// The verifier may keep 30,000 states of a program. Where the kernel walks the stack when an object is
/// allocated, once for KASAN and once for kmemleak, and again when it is freed, each takes 10 ms.
const PATIENCE: usize = 15;

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
    let (programs, patience) = match leak::can_be_found() {
        true => (FEWER, PATIENCE),
        false => (PROGRAMS, 0),
    };
    thread::scope(|scope| {
        let (begins, begun) = channel();
        scope.spawn(move || say_it_goes_on(&begun, patience));
        let mut last = 0;
        let summary = fuzz::run(SEED, 0..programs, |line| {
            match line {
                Line::Begins(program) => {
                    last = program;
                    begins.send(program)?;
                }
                Line::Difference(difference) => println!("{difference}"),
                _ => (),
            }
            Ok(())
        });
        drop(begins);
        let summary = summary?;
        ensure!(last == programs - 1, "it ended after program {last}");
        ensure!(summary.is_well(), "{summary:?}");
        Ok(())
    })
}

/// Says of each program that begins, and while it takes long, that the test goes on. With no patience
/// left, whoever waits gives up.
fn say_it_goes_on(begun: &Receiver<u64>, patience: usize) {
    let Ok(mut program) = begun.recv() else {
        return;
    };
    let mut said = 0;
    loop {
        if said <= patience {
            println!("# goes on, with program {program}");
        }
        said += 1;
        match begun.recv_timeout(LONG) {
            Ok(next) => (program, said) = (next, 0),
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
