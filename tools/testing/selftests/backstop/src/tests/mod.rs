// SPDX-License-Identifier: GPL-2.0
//! Tests that tags cannot say, by subject.

mod concurrency;
mod deadline;
mod fuzz;
mod memory;
mod module;
mod namespace;
mod operator;
mod unwind;

use anyhow::Result;

use crate::arm::Armed;
use crate::catalogue::{Body, Test};
use crate::expectation::Expectation;

const MODULE: &str = "bpf_destructive";

pub fn all() -> Vec<Test> {
    [
        concurrency::tests(),
        deadline::tests(),
        memory::tests(),
        module::tests(),
        namespace::tests(),
        operator::tests(),
        unwind::tests(),
        fuzz::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A test that returns and expects nothing of the console.
fn code(
    group: &str,
    name: &str,
    modules: &'static [&'static str],
    description: &str,
    run: fn(&Armed) -> Result<()>,
) -> Test {
    Test {
        name: format!("{group}/{name}"),
        expectation: Expectation {
            description: description.into(),
            ..Expectation::default()
        },
        body: Body::Code { modules, run },
    }
}

/// Such a test of module bpf_destructive.
fn test(name: &str, description: &str, run: fn(&Armed) -> Result<()>) -> Test {
    code("destructive", name, &[MODULE], description, run)
}
