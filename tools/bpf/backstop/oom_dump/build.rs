// SPDX-License-Identifier: GPL-2.0
//! Compiles the BPF program and writes its skeleton.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "src/bpf/oom_dump.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed=src/bpf");
    println!("cargo::rerun-if-env-changed=CLANG");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    SkeletonBuilder::new()
        .source(SOURCE)
        .clang(env::var_os("CLANG").map_or_else(|| "clang".into(), PathBuf::from))
        .clang_args(["-Wall", "-Werror"])
        .build_and_generate(out.join("oom_dump.skel.rs"))
        .unwrap_or_else(|error| panic!("{SOURCE}: {error:#}"));
}
