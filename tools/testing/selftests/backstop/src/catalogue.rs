// SPDX-License-Identifier: GPL-2.0
//! All tests there are: the tagged functions of every BPF object, and those written in Rust.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context, Result, bail};
use libbpf_rs::btf::TypeId;
use libbpf_rs::btf::types::{DeclTag, Func};
use libbpf_rs::{Btf, ReferencesType};

use crate::arm::Armed;
use crate::expectation::Expectation;
use crate::tests;

/// A compiled progs/GROUP/NAME.bpf.c.
#[derive(Debug)]
pub struct Object {
    pub group: &'static str,
    pub name: &'static str,
    pub elf: &'static [u8],
}

/// The group of the programs that are measured, not judged.
pub const BENCH: &str = "bench";

include!(concat!(env!("OUT_DIR"), "/objects.rs"));

pub struct Test {
    /// GROUP/FUNCTION
    pub name: String,
    pub expectation: Expectation,
    pub body: Body,
}

pub enum Body {
    /// A program of an object, loaded, attached and triggered as its tags say.
    Program {
        object: &'static Object,
        program: String,
    },
    /// What tags cannot say. It calls Armed::announce() before the event that it expects.
    Code {
        modules: &'static [&'static str],
        run: fn(&Armed) -> Result<()>,
    },
}

impl Test {
    /// The modules that must be loaded for it.
    pub fn modules(&self) -> Result<BTreeSet<String>> {
        Ok(match &self.body {
            Body::Program { object, .. } => kfunc_modules(object)?
                .into_values()
                .chain(self.expectation.modules.iter().cloned())
                .collect(),
            Body::Code { modules, .. } => modules.iter().map(|&module| module.to_owned()).collect(),
        })
    }

    /// What the host looks for on the console, the attribution first.
    pub fn console(&self) -> Vec<String> {
        let attributed = match (&self.body, &self.expectation.attributed) {
            (Body::Program { program, .. }, Some(attribution)) => Some(attribution.regex(program)),
            _ => None,
        };
        let console = self
            .expectation
            .console
            .iter()
            .map(|pattern| pattern.regex().to_string());
        attributed.into_iter().chain(console).collect()
    }
}

pub fn all() -> Result<Vec<Test>> {
    let mut all = Vec::new();
    for object in OBJECTS.iter().filter(|object| object.group != BENCH) {
        all.extend(of_object(object).with_context(|| format!("{}.bpf.c", object.name))?);
    }
    all.extend(tests::all());
    let mut names = HashSet::new();
    if let Some(twice) = all.iter().find(|test| !names.insert(&test.name)) {
        bail!("two tests are called {}", twice.name);
    }
    Ok(all)
}

/// An object by its names, for the tests written in Rust.
pub fn object(group: &str, name: &str) -> Result<&'static Object> {
    OBJECTS
        .iter()
        .find(|object| object.group == group && object.name == name)
        .with_context(|| format!("no progs/{group}/{name}.bpf.c"))
}

fn of_object(object: &'static Object) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for (function, tags) in function_tags(object)? {
        let tags = tags.iter().map(String::as_str);
        if let Some(expectation) = Expectation::from_tags(tags).with_context(|| function.clone())? {
            tests.push(Test {
                name: format!("{}/{function}", object.group),
                expectation,
                body: Body::Program {
                    object,
                    program: function,
                },
            });
        }
    }
    Ok(tests)
}

/// The modules that the object's kfuncs belong to, by the name of the kfunc.
pub fn kfunc_modules(object: &Object) -> Result<BTreeMap<String, String>> {
    let modules = function_tags(object)?
        .into_iter()
        .filter_map(|(function, tags)| {
            let module = tags.iter().find_map(|tag| tag.strip_prefix("module:"))?;
            Some((function, module.to_owned()))
        });
    Ok(modules.collect())
}

/// The functions of an object in the order of its BTF, each with its declaration tags.
pub fn function_tags(object: &Object) -> Result<Vec<(String, Vec<String>)>> {
    let btf = Btf::from_raw(object.name, object.elf)?.context("the object has no BTF")?;
    let mut functions: BTreeMap<TypeId, (String, Vec<String>)> = BTreeMap::new();
    for tag in btf.type_by_kind::<DeclTag<'_>>() {
        let target = tag.referenced_type();
        let (Ok(function), None) = (Func::try_from(target), tag.component_index()) else {
            continue;
        };
        let (Some(name), Some(text)) = (function.name(), tag.name()) else {
            continue;
        };
        let entry = functions.entry(function.type_id());
        let (_, tags) = entry.or_insert_with(|| (name.to_string_lossy().into_owned(), Vec::new()));
        tags.push(text.to_string_lossy().into_owned());
    }
    Ok(functions.into_values().collect())
}

#[cfg(test)]
mod tests_of_catalogue {
    use super::*;
    use crate::expectation::End;

    #[test]
    fn every_object_and_tag_is_understood() {
        let all = all().unwrap();
        let test = |name: &str| all.iter().find(|test| test.name == name).unwrap();
        let panic = test("destructive/panic_nmi");
        assert_eq!(panic.expectation.end, End::Panic);
        assert!(panic.console()[0].starts_with("bpf_destructive: bpf_panic by program"));
        assert!(
            all.iter()
                .all(|test| !test.expectation.description.is_empty())
        );
    }

    #[test]
    fn kfuncs_name_their_module() {
        let modules = kfunc_modules(object("destructive", "stop_now").unwrap()).unwrap();
        assert_eq!(modules["bpf_halt"], "bpf_destructive");
    }
}
