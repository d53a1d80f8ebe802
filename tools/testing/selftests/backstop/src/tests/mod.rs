// SPDX-License-Identifier: GPL-2.0
//! Tests that tags cannot say, by subject.

mod concurrency;
mod module;
mod namespace;

use crate::catalogue::Test;

pub fn all() -> Vec<Test> {
    [concurrency::tests(), module::tests(), namespace::tests()]
        .into_iter()
        .flatten()
        .collect()
}
