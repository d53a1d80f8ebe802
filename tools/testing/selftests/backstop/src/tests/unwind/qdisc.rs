// SPDX-License-Identifier: GPL-2.0
//! Operations of a queueing discipline, which own the packet that they are called with: it is freed when
//! they end, unless they have let go of it before.

use std::ffi::CString;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use libbpf_rs::libbpf_sys::{self, bpf_tc_hook};
use libbpf_rs::{Link, Object as LoadedObject};

use super::{LOOPBACK, MODULE, RUNS, attach_struct_ops, ensure_caught, load};
use crate::arm::Armed;
use crate::catalogue::Test;
use crate::expectation::Event;
use crate::ledger::Ledger;
use crate::test_run::ensure_done;
use crate::tests::code;
use crate::trigger::Trigger;
use crate::wait::wait_until;

/// The operations that libbpf loads, all in one object.
const OPERATIONS: [&str; 9] = [
    "holds_argument",
    "has_dropped",
    "has_moved",
    "throws_below",
    "takes_long",
    "dequeue",
    "init",
    "reset",
    "destroy",
];

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "qdisc_holds",
            "a packet that an operation was given is freed when that throws",
            |_| throws_on("holds_argument", ""),
        ),
        test(
            "qdisc_dropped",
            "a packet that an operation has dropped is not freed again when that throws",
            |_| throws_on("has_dropped", ""),
        ),
        test(
            "qdisc_moved",
            "a packet that was moved into an object is freed with it",
            |_| throws_on("has_moved", ""),
        ),
        test(
            "qdisc_below",
            "a packet of the main function is freed by a throw below it",
            |_| throws_on("throws_below", "a"),
        ),
        test(
            "qdisc_ended",
            "a packet is freed when the operation takes too long",
            |_| throws_on("takes_long", ""),
        ),
        test(
            "qdisc_stopped",
            "packets are freed when the operation is not to run any more",
            stopped,
        ),
    ]
}

fn test(name: &str, description: &str, run: fn(&Armed) -> Result<()>) -> Test {
    const MODULES: &[&str] = &[MODULE, "bpf_unwind_test", "bpf_deadline"];
    code("unwind", name, MODULES, description, run)
}

/// The discipline of the loopback device, until it is dropped.
struct Qdisc {
    hook: bpf_tc_hook,
    _kind: CString,
}

impl Qdisc {
    fn new(kind: &str) -> Result<Self> {
        const TC_H_ROOT: u32 = u32::MAX;
        let kind = CString::new(kind)?;
        let mut hook = bpf_tc_hook {
            sz: size_of::<bpf_tc_hook>() as _,
            ifindex: LOOPBACK,
            attach_point: libbpf_sys::BPF_TC_QDISC,
            parent: TC_H_ROOT,
            handle: 0x8000 << 16,
            qdisc: kind.as_ptr(),
        };
        // SAFETY: `hook` is whole, has the size that it names, and outlives the call, as `kind` does.
        let error = unsafe { libbpf_sys::bpf_tc_hook_create(&mut hook) };
        ensure_done(error).context("making the discipline that of the loopback device")?;
        Ok(Self { hook, _kind: kind })
    }
}

impl Drop for Qdisc {
    fn drop(&mut self) {
        // SAFETY: as in `new`; the name lives as long as this.
        let error = unsafe { libbpf_sys::bpf_tc_hook_destroy(&mut self.hook) };
        if let Err(error) = ensure_done(error) {
            println!("the loopback device still has the discipline: {error}");
        }
    }
}

/// The bytes of a socket's packets that nobody has freed yet.
fn on_the_way(socket: &UdpSocket) -> Result<i32> {
    let mut bytes = 0;
    // SAFETY: `bytes` is what the call writes.
    let error = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    ensure!(error == 0, "SIOCOUTQ: {}", std::io::Error::last_os_error());
    Ok(bytes)
}

/// An operation that all packets of the loopback device go through.
struct Road {
    _qdisc: Qdisc,
    _registered: Link,
    trigger: Trigger,
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Road {
    fn through(loaded: &mut LoadedObject, operation: &str) -> Result<Self> {
        let registered = attach_struct_ops(loaded, &format!("{operation}_ops"))?;
        Ok(Self {
            _qdisc: Qdisc::new(operation)?,
            _registered: registered,
            trigger: Trigger::of(loaded)?,
            sender: UdpSocket::bind("127.0.0.1:0")?,
            receiver: UdpSocket::bind("127.0.0.1:0")?,
        })
    }

    /// Sends a packet and sees it freed, once, or the kernel complains. What the exception callback
    /// has recorded.
    fn send(&self) -> Result<i32> {
        self.trigger.cock(Event::Syscall)?;
        // What a discipline drops is an error to nobody.
        self.sender
            .send_to(b"packet", self.receiver.local_addr()?)?;
        let state = self.trigger.state()?;
        ensure!(
            state.fired != 0,
            "the operation did not end early: {state:?}"
        );
        wait_until("the packet was not freed", || {
            Ok(on_the_way(&self.sender)? == 0)
        })?;
        Ok(state.retval)
    }
}

fn throws_on(operation: &str, released: &str) -> Result<()> {
    let ledger = Ledger::open()?;
    let mut loaded = load("qdisc", &OPERATIONS)?;
    let road = Road::through(&mut loaded, operation)?;
    for _ in 0..RUNS {
        ensure_caught(operation, road.send()?)?;
    }
    drop(road);
    ledger.settle_released(released, RUNS)
}

/// An operation that was ended so often that it is stopped: what it is called with is still freed.
fn stopped(_: &Armed) -> Result<()> {
    const ROW: usize = 10;
    const ECANCELED: i32 = -libc::ECANCELED;
    let mut loaded = load("qdisc", &OPERATIONS)?;
    let road = Road::through(&mut loaded, "takes_long")?;
    for _ in 0..ROW {
        ensure_caught("takes_long", road.send()?)?;
    }
    for _ in 0..RUNS {
        let recorded = road.send()?;
        // WRONG_COOKIE of progs/unwind.h, less the cookie
        ensure!(
            recorded == -1000 - ECANCELED,
            "it recorded {recorded}, and is to be stopped"
        );
    }
    Ok(())
}
