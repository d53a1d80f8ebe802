// SPDX-License-Identifier: GPL-2.0

//! BPF kfuncs that stop the machine.
//!
//! A tracing program that sees a bug can take the dump, or end the machine, at that very moment.
//! Each kfunc is one action; when and which is up to the program. They are refused at load unless
//! the loader has `CAP_SYS_BOOT` in the initial user namespace (`KF_DESTRUCTIVE`), and are
//! registered for tracing hooks only.
//!
//! Every call that is carried out first names its caller on the console. `how` is [`How::Now`] (0)
//! or [`How::Orderly`] (1).
//!
//! Documentation: `Documentation/bpf/destructive.rst`.

use kernel::{
    bpf::{
        kfunc,
        kfunc_set,
        Mem,
        Program, //
    },
    prelude::*,
};

#[path = "destructive/console.rs"]
mod console;
#[path = "destructive/irq_work.rs"]
mod irq_work;
#[path = "destructive/orderly.rs"]
mod orderly;
#[path = "destructive/stop.rs"]
mod stop;

use stop::{
    Claim,
    Stop, //
};

module! {
    type: Destructive,
    name: "bpf_destructive",
    authors: ["Backstop developers"],
    description: "BPF kfuncs that stop the machine",
    license: "GPL",
    params: {
        orderly_deadline: u32 {
            default: 300,
            description: "Seconds an orderly stop may take before it is done now (1-3600)",
        },
    },
}

/// How a machine is halted, restarted or powered off.
enum How {
    /// By this CPU at once, from any context: no user space, no notifiers.
    Now,
    /// By user space or, where that fails, the notifier chains; [`How::Now`] if that takes too
    /// long.
    Orderly,
}

impl TryFrom<u32> for How {
    type Error = Error;

    fn try_from(how: u32) -> Result<Self> {
        match how {
            0 => Ok(How::Now),
            1 => Ok(How::Orderly),
            _ => Err(EINVAL),
        }
    }
}

/// Writes text to every console, at once and whatever the log level.
///
/// C prototype: `int bpf_console_write(const char *msg__str)`
///
/// One line that names the caller and ends with the text. A console that cannot print in the
/// context of the call (a legacy console in NMI) prints as soon as the context has ended.
///
/// Context: any, NMI included.
///
/// @msg__str: the text, a constant string; a line of the log holds at most 1,000 bytes of it.
///
/// Return: 0.
///
/// # Examples
///
/// ```c
/// bpf_console_write("queue stuck");
/// ```
#[kfunc(destructive)]
fn bpf_console_write(msg: &CStr, caller: &Program) -> Result {
    console::announce("bpf_console_write", caller, msg);
    Ok(())
}

/// Writes formatted text to every console, at once and whatever the log level.
///
/// C prototype: `int bpf_console_printk(const char *fmt__str, const void *args, u32 len__sz)`
///
/// Context: any, NMI included.
///
/// @fmt__str: a constant format string, with the conversions that bpf_trace_printk() knows.
/// @args: the arguments, one `u64` each.
/// @len__sz: size of @args in bytes: a multiple of 8, at most 96.
///
/// Return: 0; `-EINVAL` for a size out of bounds or a format that does not fit the arguments;
/// `-EBUSY` when the buffers of this CPU are in use by interrupted programs.
///
/// # Examples
///
/// ```c
/// u64 args[] = { bpf_get_smp_processor_id(), depth };
///
/// bpf_console_printk("cpu %d: depth %d", args, sizeof(args));
/// ```
#[kfunc(destructive)]
fn bpf_console_printk(fmt: &CStr, #[size(len)] args: Mem<'_>, caller: &Program) -> Result {
    let text = console::Text::format(fmt, args)?;

    console::announce("bpf_console_printk", caller, &text);
    Ok(())
}

/// Boots the crash kernel, which saves a dump of this one.
///
/// C prototype: `int bpf_crash_dump(const char *why__str)`
///
/// Context: any, NMI included.
///
/// @why__str: the reason, a constant string, written to the console and with it into the dump.
///
/// Return: only without effect. `-ENOENT` when no crash kernel is loaded; `-EBUSY` when the machine
/// is already being stopped or a crash kernel is being loaded at this moment.
///
/// # Examples
///
/// ```c
/// if (bpf_crash_dump("list corrupted") == -ENOENT)
///         bpf_console_write("list corrupted, no crash kernel loaded");
/// ```
#[kfunc(destructive)]
fn bpf_crash_dump(why: &CStr, caller: &Program) -> Result {
    if !stop::crash_kernel_loaded() {
        return Err(ENOENT);
    }
    if stop::in_progress() {
        return Err(EBUSY);
    }

    // Before the claim, which may have to be given back: until then other CPUs cannot panic.
    console::announce("bpf_crash_dump", caller, why);
    Err(Claim::take()?.crash_dump())
}

/// Panics: what follows is the host's choice.
///
/// C prototype: `int bpf_panic(const char *why__str)`
///
/// A crash kernel, the panic notifiers and `panic_timeout` are applied as for any panic.
///
/// Context: any, NMI included.
///
/// @why__str: the reason, a constant string, and the message of the panic.
///
/// Return: only without effect, `-EBUSY` when the machine is already being stopped.
///
/// # Examples
///
/// ```c
/// bpf_panic("reference count underflow");
/// ```
#[kfunc(destructive)]
fn bpf_panic(why: &CStr, caller: &Program) -> Result {
    let claim = Claim::take()?;

    console::announce("bpf_panic", caller, why);
    claim.panic(why)
}

/// Stops all CPUs and leaves the machine on.
///
/// C prototype: `int bpf_halt(u32 how)`
///
/// Context: any, NMI included.
///
/// @how: 0 (now) or 1 (orderly).
///
/// Return: 0 when an orderly halt has been started; `-EINVAL` for any other @how, nothing done;
/// `-EALREADY` when an orderly stop is under way; `-EBUSY` when the machine is already being
/// stopped.
///
/// # Examples
///
/// ```c
/// bpf_halt(0);
/// ```
#[kfunc(destructive)]
fn bpf_halt(how: u32, caller: &Program) -> Result {
    end("bpf_halt", Stop::Halt, how.try_into()?, caller)
}

/// Restarts the machine.
///
/// C prototype: `int bpf_reboot(u32 how)`
///
/// Context: any, NMI included.
///
/// @how: 0 (now) or 1 (orderly).
///
/// Return: as bpf_halt().
///
/// # Examples
///
/// ```c
/// bpf_reboot(1);
/// ```
#[kfunc(destructive)]
fn bpf_reboot(how: u32, caller: &Program) -> Result {
    end("bpf_reboot", Stop::Reboot, how.try_into()?, caller)
}

/// Powers the machine off.
///
/// C prototype: `int bpf_power_off(u32 how)`
///
/// Context: any, NMI included.
///
/// @how: 0 (now) or 1 (orderly).
///
/// Return: as bpf_halt(); `-EOPNOTSUPP` when nothing on this machine can switch it off, nothing
/// done.
///
/// # Examples
///
/// ```c
/// bpf_power_off(0);
/// ```
#[kfunc(destructive)]
fn bpf_power_off(how: u32, caller: &Program) -> Result {
    end("bpf_power_off", Stop::PowerOff, how.try_into()?, caller)
}

/// Names the caller, then stops the machine now or starts an orderly stop.
fn end(kfunc: &'static str, stop: Stop, how: How, caller: &Program) -> Result {
    stop.check_supported()?;
    match how {
        How::Now => {
            let claim = Claim::take()?;
            console::announce(kfunc, caller, "now");
            claim.stop(stop)
        }
        How::Orderly => {
            if stop::in_progress() {
                return Err(EBUSY);
            }
            let order = orderly::Order::take(stop)?;
            console::announce(kfunc, caller, "orderly");
            order.queue();
            Ok(())
        }
    }
}

kfunc_set! {
    /// Never for XDP, TC, cgroup, socket or struct_ops programs.
    static KFUNCS: [Tracing, Kprobe] except [LsmCgroup] = [
        bpf_console_write,
        bpf_console_printk,
        bpf_crash_dump,
        bpf_panic,
        bpf_halt,
        bpf_reboot,
        bpf_power_off,
    ];
}

struct Destructive;

impl kernel::Module for Destructive {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let deadline = module_parameters::orderly_deadline.value();
        if !(1..=3600).contains(&deadline) {
            pr_err!(
                "orderly_deadline={deadline} is out of bounds, 1 to 3600 seconds are accepted\n"
            );
            return Err(EINVAL);
        }

        KFUNCS.register()?;
        Ok(Self)
    }
}
