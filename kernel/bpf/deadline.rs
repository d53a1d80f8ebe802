// SPDX-License-Identifier: GPL-2.0

//! Ends BPF programs that run too long.
//!
//! While this module and `bpf_unwind` are loaded, programs get checkpoints where they can stay
//! long. About once a millisecond a program asks there whether its run goes on; a run that has
//! outlived its deadline is ended as if it had thrown, and what it holds is released.
//!
//! A deadline bounds the time that the run itself takes: gaps between checkpoints which are longer
//! than the fuel of a program can last are not its own, see [`Run`].
//!
//! Works in any context, NMI included, and allocates nothing.
//!
//! Documentation: `Documentation/bpf/deadlines.rst`.

use kernel::{
    bindings,
    bpf::{
        kfunc,
        kfunc_set,
        unwind::{
            stream::{
                Stage,
                Stream, //
            },
            Cause,
            Checkpoint,
            Checkpoints,
            Deadline,
            Registered,
            Supervise, //
        },
        Program, //
    },
    module::this_module,
    prelude::*, //
};

#[path = "deadline/fuel.rs"]
mod fuel;
#[path = "deadline/limit.rs"]
mod limit;

use limit::{
    Class,
    Setting,
    Taken, //
};

module! {
    type: Module,
    name: "bpf_deadline",
    authors: ["Backstop developers"],
    description: "Ends BPF programs that run too long",
    license: "GPL",
}

static CHECKPOINTS: Checkpoints = Checkpoints::new::<Watch>(this_module::<LocalModule>());

struct Module {
    _registered: Registered,
}

impl kernel::Module for Module {
    fn init(_: &'static ThisModule) -> Result<Self> {
        KFUNCS.register()?;
        Ok(Self {
            _registered: CHECKPOINTS.register()?,
        })
    }
}

/// Watches runs.
struct Watch;

impl Supervise for Watch {
    fn supervise(checkpoint: Checkpoint<'_>) -> Option<u32> {
        let deadline = checkpoint.deadline();
        // What an exception callback calls uses the fuel of the run outside, which is to be looked at.
        let Some(mut run) = checkpoint.run() else {
            return Some(0);
        };
        let now = now();
        let gap = run.advance(now);
        let since = deadline.note_look(now);
        let class = Class::now(checkpoint.may_sleep());
        let spent = run.spent();
        let handed = run.handed();
        let taken = limit::taken(
            spent,
            run.in_class(class as u8),
            class,
            checkpoint.may_sleep(),
            deadline.limit(),
        );

        deadline.note_run(spent);
        let (cause, exceeded) = match taken {
            _ if deadline.is_stopped() => (Cause::Stopped, None),
            Taken::All(limit) => (Cause::Deadline, Some(limit)),
            Taken::Half => {
                checkpoint.leave_loops();
                return Some(fuel::next(deadline, gap, since));
            }
            Taken::Little => return Some(fuel::next(deadline, gap, since)),
        };
        let program = checkpoint.program();
        let Some(ending) = checkpoint.ending() else {
            return Some(fuel::next(deadline, gap, since));
        };

        // Of a chain of tail calls, the program that executes may be the last and have taken little.
        let guilty = handed <= spent / 2;
        let row = deadline.note_end(now, spent, exceeded, guilty, limit::APART);
        if row >= Setting::Row.get() as u32 && !deadline.is_stopped() {
            stop_often(program, deadline, row);
        }
        ending.end(cause, spent, exceeded);
        None
    }
}

/// Has a program run no more whose runs had to be ended again and again.
///
/// Tells its stderr stream and not the console, whose locks may be held.
#[cold]
fn stop_often(program: &Program, deadline: &Deadline, row: u32) {
    if deadline
        .stop(bindings::bpf_stopped_BPF_STOPPED_OFTEN)
        .is_ok()
    {
        let mut stage = Stage::new();

        // A report that finds no memory is lost.
        let _ = stage
            .print(fmt!("ERROR: Not run any more\nRuns ended in row = {row}\n"))
            .and_then(|()| stage.commit(program, Stream::Stderr));
    }
}

/// Returns the time in ns, in any context.
fn now() -> u64 {
    // SAFETY: Always safe to call.
    unsafe { bindings::ktime_get_mono_fast_ns() }
}

/// Whether the caller may decide over the programs of others.
fn check_privilege() -> Result {
    // SAFETY: Always safe to call in a task.
    if unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as c_int) } {
        Ok(())
    } else {
        Err(EPERM)
    }
}

/// Stops a program, or lets it run again.
///
/// C prototype: `int bpf_prog_stop(u32 id, u32 stop)`
///
/// Runs that have begun end at their next checkpoint, on all CPUs, and release what they hold; none
/// begins until the program is let run again. A run that is ended, or not begun, returns what
/// Documentation/bpf/deadlines.rst says for its type.
///
/// Context: task. The caller has CAP_SYS_ADMIN in the initial user namespace. The one who loads the
/// program has CAP_SYS_BOOT there, since its callbacks may run with the privileges of others.
///
/// @id: of the program.
/// @stop: 1 to stop it, 0 to let it run again.
///
/// Return: 0; `-EPERM` without the capability; `-EINVAL` for any other @stop; `-ENOENT` if there is no
/// such program, or it is being unloaded; `-EOPNOTSUPP` if it has no checkpoints; `-EALREADY` if it is
/// stopped, or not stopped, already.
///
/// # Examples
///
/// ```c
/// err = bpf_prog_stop(id, 1);
/// ```
#[kfunc(sleepable, destructive)]
fn bpf_prog_stop(id: u32, stop: u32) -> Result {
    check_privilege()?;
    let change = match stop {
        0 => Deadline::resume,
        1 => |deadline: &Deadline| deadline.stop(bindings::bpf_stopped_BPF_STOPPED_OPERATOR),
        _ => return Err(EINVAL),
    };

    Deadline::of_program(id, change)?.ok_or(EOPNOTSUPP)??;
    if stop == 1 {
        // SAFETY: Interrupts are on where programs may sleep.
        unsafe { bindings::bpf_deadline_kick() };
    }
    Ok(())
}

/// Returns a default.
///
/// C prototype: `s64 bpf_deadline_get(u32 setting)`
///
/// Context: task.
///
/// @setting: 0 to 3, the deadline in us: of programs that may sleep; of others; while preemption is
/// off; while interrupts are. 4: how many runs in succession are ended before a program is stopped.
///
/// Return: the value; `-EINVAL` for any other @setting.
#[kfunc(sleepable)]
fn bpf_deadline_get(setting: u32) -> i64 {
    match Setting::try_from(setting) {
        Ok(setting) => setting.get() as i64,
        Err(err) => err.to_errno().into(),
    }
}

/// Sets a default, for programs that run already, too.
///
/// C prototype: `int bpf_deadline_set(u32 setting, u64 value)`
///
/// Context: task. The caller has CAP_SYS_ADMIN in the initial user namespace. The one who loads the
/// program has CAP_SYS_BOOT there, since its callbacks may run with the privileges of others.
///
/// @setting: as for bpf_deadline_get().
/// @value: 1,000 to 10,000,000 us, or 1 to 1,000,000 runs.
///
/// Return: 0; `-EPERM` without the capability; `-EINVAL` for any other @setting; `-ERANGE` for a @value
/// out of bounds.
#[kfunc(sleepable, destructive)]
fn bpf_deadline_set(setting: u32, value: u64) -> Result {
    check_privilege()?;
    Setting::try_from(setting)?.set(value)
}

kfunc_set! {
    /// For the operator's command, which user space runs.
    static KFUNCS: [Syscall] = [bpf_prog_stop, bpf_deadline_get, bpf_deadline_set];
}
