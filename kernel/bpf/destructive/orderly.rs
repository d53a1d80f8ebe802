// SPDX-License-Identifier: GPL-2.0

//! Orderly stops: user space first, else the notifier chains, else [`Claim::stop`].
//!
//! From the context of the call, NMI perhaps, an irq_work leads to hard interrupt context, where
//! the deadline is armed, and a work item from there to a task, which runs user space's command.
//! The module then stays loaded: the machine is going down.

use core::ptr;

use kernel::{
    bindings,
    fmt::{
        self,
        Display, //
    },
    impl_has_hr_timer,
    module::this_module,
    prelude::*,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc,
        ArcBorrow, //
    },
    time::{
        hrtimer::{
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeMode, //
        },
        Delta,
        Monotonic, //
    },
    workqueue::Queue, //
};

use crate::{
    console,
    irq_work::{
        IrqWork,
        Item, //
    },
    module_parameters,
    stop::{
        Claim,
        Stop, //
    },
};

/// No orderly stop is under way; otherwise [`ORDERED`] is the [`Stop`] of the one that is.
const NONE: u32 = 0;
static ORDERED: Atomic<u32> = Atomic::new(NONE);
static LAUNCH: IrqWork = IrqWork::new::<Launch>();

/// The one orderly stop, not yet started.
#[must_use]
pub(crate) struct Order(());

impl Order {
    /// Takes the order for `stop`, `-EALREADY` if there is one under way.
    pub(crate) fn take(stop: Stop) -> Result<Self> {
        ORDERED
            .cmpxchg(NONE, stop as u32, ordering::Full)
            .map_err(|_| EALREADY)?;
        Ok(Self(()))
    }

    /// Starts it, from any context.
    pub(crate) fn queue(self) {
        // SAFETY: The calling program holds a reference to the module; this adds one that is never
        // given back, so that the timer and the work find it loaded.
        unsafe { bindings::__module_get(this_module::<crate::LocalModule>().as_ptr()) };
        LAUNCH.queue();
    }
}

/// The [`Stop`] that was ordered.
fn ordered() -> Stop {
    match ORDERED.load(ordering::Acquire) {
        x if x == Stop::Halt as u32 => Stop::Halt,
        x if x == Stop::PowerOff as u32 => Stop::PowerOff,
        _ => Stop::Reboot,
    }
}

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Halt => "halt",
            Stop::Reboot => "reboot",
            Stop::PowerOff => "power off",
        })
    }
}

/// Hard interrupt context: arms the deadline and hands over to a task.
struct Launch;

impl Item for Launch {
    fn run() {
        let launched =
            Deadline::arm().is_ok() && queue().try_spawn(GFP_ATOMIC, run_user_space).is_ok();

        if !launched {
            stop_now("no memory");
        }
    }
}

/// The queue for work that takes long and may run anywhere.
fn queue() -> &'static Queue {
    // SAFETY: The system's queues are made at boot and never destroyed.
    unsafe { Queue::from_raw(bindings::system_dfl_wq) }
}

/// Gives up on order. Returns if the machine is already being stopped.
fn stop_now(why: &str) {
    let stop = ordered();
    if let Ok(claim) = Claim::take() {
        console::say(fmt!("orderly {stop} failed, {why}: now"));
        claim.stop(stop);
    }
}

/// Stops the machine when order takes too long.
#[pin_data]
struct Deadline {
    #[pin]
    timer: HrTimer<Self>,
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Deadline {
        mode: RelativeMode<Monotonic>, field: self.timer
    }
}

impl HrTimerCallback for Deadline {
    type Pointer<'a> = Arc<Self>;

    fn run(_this: ArcBorrow<'_, Self>, _: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        stop_now("deadline passed");
        HrTimerRestart::NoRestart
    }
}

impl Deadline {
    /// Arms the deadline, for good.
    fn arm() -> Result {
        let seconds = module_parameters::orderly_deadline.value();
        let deadline = Arc::pin_init(pin_init!(Self { timer <- HrTimer::new() }), GFP_ATOMIC)?;

        // Dropping the handle would cancel the timer.
        core::mem::forget(deadline.start(Delta::from_secs(seconds.into())));
        Ok(())
    }
}

/// Task context: runs user space's command and, if that fails, the notifier chains.
fn run_user_space() {
    let stop = ordered();
    let command = match stop {
        Stop::Halt => c"/sbin/halt",
        Stop::Reboot => c"/sbin/reboot",
        Stop::PowerOff => c"/sbin/poweroff",
    };

    let status = run(command);
    if status == 0 {
        // User space ends the machine, or the deadline does.
        return;
    }

    console::say(fmt!(
        "orderly {stop}: {command} failed ({status}), running the notifiers without user space"
    ));
    // SAFETY: In task context, as these require.
    unsafe {
        match stop {
            Stop::Halt => bindings::kernel_halt(),
            Stop::Reboot => bindings::kernel_restart(ptr::null_mut()),
            Stop::PowerOff => bindings::kernel_power_off(),
        }
    }
    stop_now("the notifiers have run");
}

/// Runs a command of user space to its end: 0, its wait status, or a negative error code.
fn run(command: &'static CStr) -> i32 {
    let mut argv = [command.as_char_ptr().cast_mut(), ptr::null_mut()];
    let mut envp = [
        c"HOME=/".as_char_ptr().cast_mut(),
        c"PATH=/sbin:/bin:/usr/sbin:/usr/bin"
            .as_char_ptr()
            .cast_mut(),
        ptr::null_mut(),
    ];

    // SAFETY: Both arrays are NULL-terminated, hold strings that are only read, and outlive the
    // call, which waits for the process.
    unsafe {
        bindings::call_usermodehelper(
            command.as_char_ptr(),
            argv.as_mut_ptr(),
            envp.as_mut_ptr(),
            bindings::UMH_WAIT_PROC as i32,
        )
    }
}
