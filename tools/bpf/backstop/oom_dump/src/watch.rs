// SPDX-License-Identifier: GPL-2.0
//! Loads the program, attaches it, and waits.

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use libbpf_rs::ErrorKind;
use libbpf_rs::RingBufferBuilder;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::skel::Skel;
use libbpf_rs::skel::SkelBuilder;

use crate::preflight::Cgroup;

#[allow(unsafe_code, clippy::all)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/oom_dump.skel.rs"));
}

/// Watches `cgroup` for as long as the process and the machine live.
///
/// Prints one line when the program is attached, and one for every time the machine should have
/// been dumped and was not.
pub fn watch(cgroup: &Cgroup) -> Result<Infallible, libbpf_rs::Error> {
    let mut storage = MaybeUninit::uninit();
    let mut open = skeleton::OomDumpSkelBuilder::default().open(&mut storage)?;
    let constants = open
        .maps
        .rodata_data
        .as_deref_mut()
        .expect("the program has constants");
    constants.cgroup_id = cgroup.id;
    set_text(
        &mut constants.why,
        &format!("out of memory in cgroup {}", cgroup.name),
    );

    let mut skeleton = open.load()?;
    skeleton.attach()?;
    println!(
        "oom_dump: watching cgroup {} (id {})",
        cgroup.name, cgroup.id
    );

    let mut failures = RingBufferBuilder::new();
    failures.add(&skeleton.maps.failures, |bytes| {
        report(&cgroup.name, bytes);
        0
    })?;
    let failures = failures.build()?;
    loop {
        match failures.poll(Duration::MAX) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
}

/// Says which victim was killed without a dump: `bytes` is a `struct failure` of the program.
fn report(cgroup: &str, bytes: &[u8]) {
    let Some((error, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let Some((pid, comm)) = rest.split_first_chunk() else {
        return;
    };
    let error = io::Error::from_raw_os_error(-i32::from_ne_bytes(*error));
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no crash kernel is loaded any more".to_owned(),
        _ => error.to_string(),
    };
    let pid = i32::from_ne_bytes(*pid);
    let comm = comm.split(|&byte| byte == 0).next().unwrap_or_default();
    let comm = String::from_utf8_lossy(comm);
    eprintln!(
        "oom_dump: out of memory in cgroup {cgroup}, victim {comm} pid {pid}: no dump: {reason}"
    );
}

/// Copies as much of `text` as fits before the final NUL.
fn set_text(to: &mut [i8], text: &str) {
    let room = to.len() - 1;
    for (to, &from) in to[..room].iter_mut().zip(text.as_bytes()) {
        *to = from as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_too_long_keeps_its_end_mark() {
        let mut to = [0; 4];
        set_text(&mut to, "abcdef");
        assert_eq!(to, [b'a' as i8, b'b' as i8, b'c' as i8, 0]);
    }
}
