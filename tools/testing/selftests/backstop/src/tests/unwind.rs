// SPDX-License-Identifier: GPL-2.0
//! What a throw lets go of, where that takes more than to run one program: sockets, rings and control
//! groups of user space, devices, trampolines and other programs on the same stack, two CPUs.

mod directory;
mod qdisc;
mod traced;
mod visible;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::{
    Link, MapCore, MapFlags, Object as LoadedObject, RingBufferBuilder, UserRingBuffer,
};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_congestion;
use rustix::process::getpid;

use self::directory::Directory;
use super::code;
use crate::arm::Armed;
use crate::catalogue::{Test, object};
use crate::cpus::on_both_cpus;
use crate::expectation::Event;
use crate::ledger::Ledger;
use crate::loaded::{map, program};
use crate::loader;
use crate::machine::{ensure_busy, load_module, unload_unused};
use crate::perform::DEADLINE;
use crate::section::Section;
use crate::test_run::{run, run_fd};
use crate::trigger::Trigger;
use crate::wait::wait_until;

const MODULE: &str = "bpf_unwind";
/// COOKIE of progs/unwind.h
const COOKIE: i32 = 42;
/// What is left behind shows itself when it is met again.
const RUNS: usize = 3;
/// The index of the loopback device.
const LOOPBACK: i32 = 1;

pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        test(
            "cgroup_goes",
            "a control group that a program held when it threw can go away",
            cgroup_goes,
        ),
        test(
            "sockets",
            "references to a socket, by every lookup, are released",
            sockets,
        ),
        test(
            "ring_delivers",
            "a ring buffer delivers what comes after a record that was thrown away",
            ring_delivers,
        ),
        test(
            "user_ring_drains",
            "a throw from the drain of a ring buffer of user space leaves the rest in it",
            user_ring_drains,
        ),
        test(
            "on_xdp",
            "a throw from XDP, on a device, passes the packet",
            on_xdp,
        ),
        test(
            "on_tc",
            "a throw from traffic control, on a device, passes the packet",
            on_tc,
        ),
        test(
            "on_cgroup_skb",
            "a throw from a control group's program lets the packet out",
            on_cgroup_skb,
        ),
        test(
            "on_uprobe",
            "throws on a function of user space, at its call and its return, leave it alone",
            on_uprobe,
        ),
        test(
            "struct_ops",
            "a throw from an operation that a program implements returns to the kernel",
            struct_ops,
        ),
        test(
            "denies",
            "what an exception callback returns in a security hook is the system call's result",
            denies,
        ),
        test(
            "below",
            "throws on a function's entry and exit change no register, nor the program above",
            below,
        ),
        test(
            "during_release",
            "a throw while another throw releases something ends first, and harms neither",
            during_release,
        ),
        test(
            "trampoline",
            "a throw through a function with programs on its entry and exit runs both",
            trampoline,
        ),
        test(
            "trampoline_iter",
            "an iterator on the stack of such a function is destroyed before the stack is used again",
            trampoline_iter,
        ),
        test(
            "freplace",
            "a throw from a program that replaces a function ends that program only",
            freplace,
        ),
        test(
            "both_cpus",
            "programs that throw on both CPUs at once do not meet",
            both_cpus,
        ),
        test(
            "module_busy",
            "the module cannot go while a program depends on it, and can afterwards",
            module_busy,
        ),
    ];
    tests.extend(qdisc::tests());
    tests.extend(traced::tests());
    tests.extend(visible::tests());
    tests
}

fn test(name: &str, description: &str, run: fn(&Armed) -> Result<()>) -> Test {
    code(
        "unwind",
        name,
        &[MODULE, "bpf_unwind_test"],
        description,
        run,
    )
}

fn load(name: &str, programs: &[&str]) -> Result<LoadedObject> {
    Ok(loader::load(object("unwind", name)?, programs)??)
}

fn ensure_caught(name: &str, retval: i32) -> Result<()> {
    ensure!(retval == COOKIE, "{name} returned {retval}, not {COOKIE}");
    Ok(())
}

const CGROUPS: &str = "/sys/fs/cgroup";

fn dying_cgroups() -> Result<u64> {
    let stat = fs::read_to_string(Path::new(CGROUPS).join("cgroup.stat"))?;
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("nr_dying_descendants "));
    Ok(line.context("no nr_dying_descendants")?.parse()?)
}

fn cgroup_goes(_: &Armed) -> Result<()> {
    let loaded = load("reference", &["cgroup_held"])?;
    let dying = dying_cgroups()?;
    let cgroup = Directory::new(Path::new(CGROUPS).join("held-at-a-throw"))?;
    let id = fs::metadata(&cgroup.path)?.ino();
    Section::of(&loaded, ".data.cgroup")?.write(&id.to_ne_bytes())?;
    for _ in 0..RUNS {
        ensure_caught("cgroup_held", run(&loaded, "cgroup_held")?)?;
    }
    drop(cgroup);
    wait_until("the control group was removed and is still there", || {
        Ok(dying_cgroups()? <= dying)
    })
}

fn sockets(_: &Armed) -> Result<()> {
    const LOOKUPS: [&str; 6] = [
        "sk_lookup_tcp",
        "sk_lookup_tcp_null",
        "skc_lookup_tcp",
        "sk_lookup_xdp",
        "sk_cast",
        "sk_map",
    ];
    let mut programs = vec!["sk_users"];
    programs.extend(LOOKUPS);
    let loaded = load("reference", &programs)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    let fd = server.as_raw_fd() as u64;
    map(&loaded, "sockets")?.update(&0u32.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)?;
    let tuple = tuple(client.local_addr()?, server.local_addr()?)?;
    Section::of(&loaded, ".data.tuple")?.write(&tuple)?;

    let users = run(&loaded, "sk_users")?;
    ensure!(users > 1, "the socket is not found: {users} users");
    for name in LOOKUPS {
        for _ in 0..RUNS {
            ensure_caught(name, run(&loaded, name)?)?;
        }
        let now = run(&loaded, "sk_users")?;
        ensure!(
            now == users,
            "{name} left {now} references to the socket, not {users}"
        );
    }
    Ok(())
}

/// The part of struct bpf_sock_tuple for IPv4: a packet from there to here.
fn tuple(from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
        bail!("not IPv4")
    };
    let mut bytes = Vec::new();
    bytes.extend(from.ip().octets());
    bytes.extend(to.ip().octets());
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    Ok(bytes)
}

fn ring_delivers(_: &Armed) -> Result<()> {
    let loaded = load("dynptr", &["thrown_away", "delivered"])?;
    let ring = map(&loaded, "ring")?;
    let mut seen = Vec::new();
    {
        let mut builder = RingBufferBuilder::new();
        builder.add(&ring, |record| {
            seen.push(record.first().copied().unwrap_or(0));
            0
        })?;
        let reader = builder.build()?;
        for _ in 0..RUNS {
            ensure_caught("thrown_away", run(&loaded, "thrown_away")?)?;
            ensure!(run(&loaded, "delivered")? == 0, "the ring is full");
        }
        reader.consume()?;
    }
    ensure!(seen == [2; RUNS], "the ring delivered {seen:?}");
    Ok(())
}

fn user_ring_drains(_: &Armed) -> Result<()> {
    let ledger = Ledger::open()?;
    let loaded = load("callback", &["drain_throws", "drain"])?;
    let ring = UserRingBuffer::new(&map(&loaded, "user_ring")?)?;
    for _ in 0..2 * RUNS {
        let sample = ring.reserve(8)?;
        ring.submit(sample)?;
    }
    for _ in 0..RUNS {
        ensure_caught("drain_throws", run(&loaded, "drain_throws")?)?;
    }
    ledger.settle_released("am", RUNS)?;
    let left = run(&loaded, "drain")?;
    ensure!(left == RUNS as i32, "{left} samples are left, not {RUNS}");
    Ok(())
}

/// Lets packets come by, until the program that is attached has thrown.
fn packets(loaded: &LoadedObject) -> Result<()> {
    let trigger = Trigger::of(loaded)?;
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    receiver.set_read_timeout(Some(DEADLINE))?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    for _ in 0..RUNS {
        trigger.cock(Event::Syscall)?;
        sender.send_to(b"packet", receiver.local_addr()?)?;
        // It was passed.
        receiver.recv(&mut [0; 16]).context("no packet came")?;
        let state = trigger.state()?;
        ensure!(
            state.cocked == 0,
            "the program did not run for the packet, or did not take it"
        );
        ensure!(state.fired != 0, "the program did not throw");
        ensure_caught("the program", state.retval)?;
    }
    Ok(())
}

fn on_device(name: &str, attach: impl Fn(&LoadedObject) -> Result<Link>) -> Result<()> {
    let ledger = Ledger::open()?;
    let loaded = load("attach", &[name])?;
    let attached = attach(&loaded)?;
    packets(&loaded)?;
    drop(attached);
    ledger.settle_released("abi", RUNS)
}

fn on_xdp(_: &Armed) -> Result<()> {
    on_device("on_xdp", |loaded| {
        Ok(program(loaded, "on_xdp")?.attach_xdp(LOOPBACK)?)
    })
}

fn on_tc(_: &Armed) -> Result<()> {
    on_device("on_tc", |loaded| {
        let program = program(loaded, "on_tc")?;
        // libbpf-rs lacks it.
        // SAFETY: the program is loaded, and no options are allowed.
        let link = unsafe {
            libbpf_rs::libbpf_sys::bpf_program__attach_tcx(
                libbpf_rs::AsRawLibbpf::as_libbpf_object(&program).as_ptr(),
                LOOPBACK,
                std::ptr::null(),
            )
        };
        let link = std::ptr::NonNull::new(link).context("attaching by tcx")?;
        // SAFETY: libbpf made the link just now, and gave it to us.
        Ok(unsafe { Link::from_ptr(link) })
    })
}

fn on_cgroup_skb(_: &Armed) -> Result<()> {
    let root = File::open(CGROUPS)?;
    on_device("on_cgroup_skb", |loaded| {
        Ok(program(loaded, "on_cgroup_skb")?.attach_cgroup(root.as_raw_fd())?)
    })
}

/// A function of this very program.
#[inline(never)]
extern "C" fn probed(value: u64) -> u64 {
    std::hint::black_box(value + 1)
}

/// Where a function of this program lies in its file.
fn offset_in_file(function: usize) -> Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let offset = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        let (start, end) = (hex(start)?, hex(end)?);
        let offset = hex(words.nth(1)?)?;
        (start..end)
            .contains(&function)
            .then(|| function - start + offset)
    });
    offset.context("the function is not mapped")
}

fn on_uprobe(_: &Armed) -> Result<()> {
    let offset = offset_in_file(probed as extern "C" fn(u64) -> u64 as usize)?;
    let programs = [
        ("on_uprobe", false),
        ("on_uprobe_sleepable", false),
        ("on_uretprobe", true),
    ];
    for (name, at_return) in programs {
        let ledger = Ledger::open()?;
        let loaded = load("attach", &[name])?;
        let trigger = Trigger::of(&loaded)?;
        let link =
            program(&loaded, name)?.attach_uprobe(at_return, -1, "/proc/self/exe", offset)?;
        for _ in 0..RUNS {
            trigger.cock(Event::Syscall)?;
            let returned = probed(1);
            ensure!(returned == 2, "with {name}, it returned {returned}");
            let state = trigger.state()?;
            ensure!(state.fired != 0, "{name} did not run");
            ensure_caught(name, state.retval)?;
        }
        drop(link);
        ledger.settle_released("abi", RUNS).context(name)?;
    }
    Ok(())
}

fn struct_ops(_: &Armed) -> Result<()> {
    const OPERATIONS: [&str; 4] = ["cc_init", "cc_ssthresh", "cc_undo_cwnd", "cc_cong_avoid"];
    let ledger = Ledger::open()?;
    let mut loaded = load("struct_ops", &OPERATIONS)?;
    let trigger = Trigger::of(&loaded)?;
    let attached = attach_struct_ops(&mut loaded, "unwind_cc")?;
    for _ in 0..RUNS {
        trigger.cock(Event::Syscall)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        // Of a connection, it begins at once.
        set_tcp_congestion(&client, "bpf_unwind")?;
        let state = trigger.state()?;
        ensure!(state.fired != 0, "the operation did not run");
        ensure_caught("cc_init", state.retval)?;
        set_tcp_congestion(&client, "reno")?;
    }
    drop(attached);
    ledger.settle_released("ab", RUNS)
}

/// Has the kernel call the operations of a map, until the link is dropped.
fn attach_struct_ops(loaded: &mut LoadedObject, name: &str) -> Result<Link> {
    let mut map = loaded
        .maps_mut()
        .find(|map| map.name() == name)
        .with_context(|| format!("no {name}"))?;
    Ok(map.attach_struct_ops()?)
}

fn denies(_: &Armed) -> Result<()> {
    let ledger = Ledger::open()?;
    let loaded = load("attach", &["deny"])?;
    let trigger = Trigger::of(&loaded)?;
    let attached = program(&loaded, "deny")?.attach()?;
    for _ in 0..RUNS {
        trigger.cock(Event::Syscall)?;
        match rustix::process::getpgid(Some(getpid())) {
            Err(Errno::PERM) => (),
            other => bail!("getpgid() gave {other:?}, not EPERM"),
        }
        ensure_caught("deny", trigger.state()?.retval)?;
        rustix::process::getpgid(Some(getpid())).context("a second getpgid()")?;
    }
    drop(attached);
    ledger.settle_released("abi", RUNS)
}

/// struct runs of progs/unwind/stack.bpf.c
#[derive(Debug)]
struct Counts {
    entered: u64,
    left: u64,
    below: u64,
    changed: u64,
}

impl Counts {
    fn of(object: &LoadedObject) -> Result<Self> {
        let [entered, left, below, changed] = Section::of(object, ".data.runs")?.words()?;
        Ok(Self {
            entered,
            left,
            below,
            changed,
        })
    }
}

fn below(_: &Armed) -> Result<()> {
    let ledger = Ledger::open()?;
    let loaded = load("stack", &["above", "below_fentry", "below_fexit"])?;
    let links = ["below_fentry", "below_fexit"]
        .into_iter()
        .map(|name| program(&loaded, name)?.attach().context(name))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..RUNS {
        ensure_caught("above", run(&loaded, "above")?)?;
    }
    let counts = Counts::of(&loaded)?;
    ensure!(
        counts.below == 2 * RUNS as u64,
        "the programs below did not all run: {counts:?}"
    );
    ensure!(
        counts.changed == 0,
        "registers changed, rbx and r12 to r15 being bits: {:#x}",
        counts.changed
    );
    drop(links);
    ledger.settle_released("mabiabi", RUNS)
}

fn during_release(_: &Armed) -> Result<()> {
    let ledger = Ledger::open()?;
    let loaded = load("stack", &["released_under", "during_release"])?;
    let link = program(&loaded, "during_release")?.attach()?;
    for _ in 0..RUNS {
        ensure_caught("released_under", run(&loaded, "released_under")?)?;
    }
    let counts = Counts::of(&loaded)?;
    ensure!(
        counts.below == RUNS as u64,
        "not every release was met by a throw: {counts:?}"
    );
    drop(link);
    ledger.settle_released("nopabi", RUNS)
}

/// The trampolines that exist, by name.
fn trampolines() -> Result<BTreeSet<String>> {
    Ok(fs::read_to_string("/proc/kallsyms")?
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|name| name.starts_with("bpf_trampoline_"))
        .map(str::to_owned)
        .collect())
}

/// Programs for the entry and the exit of a function of a loaded program.
fn trace(target: BorrowedFd<'_>, function: &str) -> Result<LoadedObject> {
    let fd = target.as_raw_fd();
    Ok(loader::load_with(
        object("unwind", "stack")?,
        &["on_entry", "on_exit"],
        |program| Ok(program.set_attach_target(fd, Some(function.into()))?),
    )??)
}

fn through_trampoline(name: &str, function: &str, labels: &str) -> Result<()> {
    let ledger = Ledger::open()?;
    let before = trampolines()?;
    let loaded = load("stack", &[name])?;
    let traced = trace(program(&loaded, name)?.as_fd(), function)?;
    let mut links = Vec::new();
    for name in ["on_entry", "on_exit"] {
        links.push(program(&traced, name)?.attach().context(name)?);
    }
    let there = trampolines()?;
    ensure!(there != before, "no trampoline was made: {there:?}");
    for _ in 0..RUNS {
        ensure_caught(name, run(&loaded, name)?)?;
    }
    let counts = Counts::of(&traced)?;
    let runs = RUNS as u64;
    ensure!(
        (counts.entered, counts.left) == (runs, runs),
        "the function was entered and left another number of times than {runs}: {counts:?}"
    );
    ledger.settle_released(labels, RUNS)?;
    // An image that was entered and not left would stay.
    drop(links);
    wait_until(
        "the trampoline is still there after all is detached",
        || Ok(trampolines()?.is_subset(&before)),
    )?;
    ensure_caught(name, run(&loaded, name)?)?;
    ledger.settle_released(labels, RUNS + 1)
}

fn trampoline(_: &Armed) -> Result<()> {
    through_trampoline("trace_target", "traced", "abi")
}

fn trampoline_iter(_: &Armed) -> Result<()> {
    through_trampoline("trace_target_iter", "traced_iter", "ai")
}

fn freplace(_: &Armed) -> Result<()> {
    let ledger = Ledger::open()?;
    let loaded = load("stack", &["replace_target"])?;
    let fd = program(&loaded, "replace_target")?.as_fd().as_raw_fd();
    let replacing = loader::load_with(object("unwind", "stack")?, &["replacement"], |program| {
        Ok(program.set_attach_target(fd, Some("replaceable".into()))?)
    })??;
    let link = program(&replacing, "replacement")?.attach()?;
    for _ in 0..RUNS {
        ensure_caught("replace_target", run(&loaded, "replace_target")?)?;
    }
    ledger.settle_released("abimn", RUNS)?;
    drop(link);
    let retval = run(&loaded, "replace_target")?;
    // The cookie was what the function itself returns, 1, and that is wrong.
    ensure!(
        retval == -1001,
        "without the replacement it returned {retval}"
    );
    Ok(())
}

fn both_cpus(_: &Armed) -> Result<()> {
    const MANY: usize = 2000;
    let ledger = Ledger::open()?;
    let loaded = load("stack", &["concurrent"])?;
    let concurrent = program(&loaded, "concurrent")?;
    let fd = concurrent.as_fd();
    on_both_cpus(|_| (0..MANY).try_for_each(|_| ensure_caught("concurrent", run_fd(fd)?)))?;
    let entries = ledger.entries()?;
    ensure!(
        entries.live == 0 && entries.faults == 0,
        "not all is as before: {entries:?}"
    );
    // m, a, b and the iterator of each run.
    let expected = 2 * MANY as u32 * 4;
    ensure!(
        entries.released == expected,
        "{} objects were released, not {expected}",
        entries.released
    );
    let throws = visible::throws(fd)?;
    ensure!(
        throws == 2 * MANY as u64,
        "{throws} throws were counted, not {}",
        2 * MANY
    );
    Ok(())
}

fn module_busy(_: &Armed) -> Result<()> {
    let loaded = load("shape", &["nowhere"])?;
    ensure_busy(MODULE)?;
    drop(loaded);
    unload_unused(MODULE)?;
    load_module(MODULE, "")?;
    drop(load("shape", &["nowhere"])?);
    Ok(())
}
