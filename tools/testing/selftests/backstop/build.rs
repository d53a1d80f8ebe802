// SPDX-License-Identifier: GPL-2.0
//! Compiles progs/GROUP/*.bpf.c against the kernel's own types and lists the objects for the program.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=progs");
    println!("cargo:rerun-if-env-changed=KERNEL");
    println!("cargo:rerun-if-env-changed=CLANG");

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let kernel = kernel_types()?;
    write_vmlinux_h(&kernel, &out.join("vmlinux.h"))?;

    let mut list = String::from("pub const OBJECTS: &[Object] = &[\n");
    for source in sources(Path::new("progs"))? {
        let group = name_of(source.parent().context("source without a folder")?)?;
        let stem = name_of(&source)?.trim_end_matches(".bpf.c").to_owned();
        let object = out.join(format!("{group}-{stem}.bpf.o"));
        compile(&source, &object, &out)?;
        writeln!(
            list,
            "    Object {{ group: {group:?}, name: {stem:?}, elf: include_bytes!({object:?}) }},"
        )?;
    }
    list.push_str("];\n");
    fs::write(out.join("objects.rs"), list).context("writing objects.rs")
}

/// Where the types come from: the kernel named by KERNEL, the one this tree belongs to, the running one.
fn kernel_types() -> Result<PathBuf> {
    if let Some(kernel) = env::var_os("KERNEL") {
        let vmlinux = Path::new(&kernel).join("vmlinux");
        println!("cargo:rerun-if-changed={}", vmlinux.display());
        ensure!(
            vmlinux.exists(),
            "KERNEL={} has no vmlinux; build the kernel there first",
            kernel.to_string_lossy()
        );
        return Ok(vmlinux);
    }
    let top = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../../..");
    let places = [
        top.join("vmlinux"),
        top.join("build/linux/vmlinux"),
        "/sys/kernel/btf/vmlinux".into(),
    ];
    let Some(vmlinux) = places.iter().find(|place| place.exists()) else {
        bail!("no kernel to take types from; set KERNEL to a kernel tree with a vmlinux");
    };
    println!("cargo:rerun-if-changed={}", vmlinux.display());
    Ok(vmlinux.clone())
}

fn write_vmlinux_h(vmlinux: &Path, header: &Path) -> Result<()> {
    let dump = Command::new("bpftool")
        .args(["btf", "dump", "file"])
        .arg(vmlinux)
        .args(["format", "c"])
        .output()
        .context("running bpftool")?;
    ensure!(
        dump.status.success(),
        "bpftool found no types in {}: {}",
        vmlinux.display(),
        String::from_utf8_lossy(&dump.stderr)
    );
    fs::write(header, dump.stdout).context("writing vmlinux.h")
}

/// progs/GROUP/*.bpf.c, sorted, so that the list of tests has an order.
fn sources(progs: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for group in fs::read_dir(progs).context("reading progs")? {
        let group = group?.path();
        if group.is_dir() {
            for file in fs::read_dir(&group)? {
                let file = file?.path();
                if name_of(&file)?.ends_with(".bpf.c") {
                    sources.push(file);
                }
            }
        }
    }
    sources.sort();
    Ok(sources)
}

fn compile(source: &Path, object: &Path, include: &Path) -> Result<()> {
    let flags: [OsString; 7] = [
        "-mcpu=v3".into(),
        "-Wall".into(),
        "-Werror".into(),
        "-DBPF_NO_KFUNC_PROTOTYPES".into(),
        "-Iprogs".into(),
        "-isystem".into(),
        include.into(),
    ];
    SkeletonBuilder::new()
        .source(source)
        .obj(object)
        .clang(env::var_os("CLANG").unwrap_or_else(|| "clang".into()))
        .clang_args(flags)
        .build()
        .with_context(|| format!("compiling {}", source.display()))
}

fn name_of(path: &Path) -> Result<&str> {
    path.file_name()
        .and_then(|name| name.to_str())
        .with_context(|| format!("odd name {}", path.display()))
}
