// SPDX-License-Identifier: GPL-2.0
//! The module comes and goes: a program pins it, and nothing else does.

use anyhow::{Result, bail, ensure};

use super::{MODULE, test};
use crate::arm::Armed;
use crate::catalogue::{Test, object};
use crate::loader;
use crate::machine::{ensure_busy, load_module, module_is_loaded, unload_unused};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "module_not_loaded",
            "without the module the loader names it and the kfunc",
            not_loaded,
        ),
        test(
            "module_busy",
            "the module cannot go while a program calls it, and can afterwards",
            busy,
        ),
        test(
            "module_again",
            "a module that went and came back serves programs",
            again,
        ),
    ]
}

fn not_loaded(_: &Armed) -> Result<()> {
    unload_unused(MODULE)?;
    let loaded = loader::load(object("destructive", "privilege")?, &["halt"]);
    load_module(MODULE, "")?;
    let Err(refusal) = loaded? else {
        bail!("a program loads without its kfunc")
    };
    for name in ["bpf_halt", "module bpf_destructive"] {
        ensure!(
            refusal.log.contains(name),
            "nothing names {name}\n{refusal}"
        );
    }
    Ok(())
}

fn busy(_: &Armed) -> Result<()> {
    let program = loader::load(object("destructive", "privilege")?, &["halt"])??;
    ensure_busy(MODULE)?;
    drop(program);
    unload_unused(MODULE)?;
    ensure!(
        !module_is_loaded(MODULE),
        "unloaded, but still in /sys/module"
    );
    load_module(MODULE, "")
}

fn again(_: &Armed) -> Result<()> {
    for _ in 0..3 {
        unload_unused(MODULE)?;
        load_module(MODULE, "")?;
        drop(loader::load(
            object("destructive", "privilege")?,
            &["halt"],
        )??);
    }
    Ok(())
}
