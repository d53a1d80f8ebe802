// SPDX-License-Identifier: GPL-2.0

//! Stopping the machine now, from any context: one CPU acts, and only once.

use core::hint::spin_loop;

use kernel::{
    bindings,
    prelude::*,
    types::NotThreadSafe, //
};

/// The ways to end a machine that has no dump to take.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Stop {
    Halt = 1,
    Reboot = 2,
    PowerOff = 3,
}

impl Stop {
    /// Whether this machine can be stopped so.
    pub(crate) fn check_supported(self) -> Result {
        // SAFETY: Reads the head of a notifier list, from any context.
        if self == Stop::PowerOff && !unsafe { bindings::kernel_can_power_off() } {
            return Err(EOPNOTSUPP);
        }
        Ok(())
    }
}

/// Whether there is a crash kernel to boot.
pub(crate) fn crash_kernel_loaded() -> bool {
    #[cfg(CONFIG_CRASH_DUMP)]
    {
        // SAFETY: Reads a pointer, from any context.
        unsafe { bindings::kexec_crash_loaded() != 0 }
    }
    #[cfg(not(CONFIG_CRASH_DUMP))]
    false
}

/// Interrupts of this CPU are disabled, in NMI context too, until this is dropped.
///
/// # Invariants
///
/// `flags` were saved on this CPU, and interrupts have been disabled since.
struct InterruptsDisabled {
    flags: usize,
    _this_cpu: NotThreadSafe,
}

impl InterruptsDisabled {
    fn new() -> Self {
        // SAFETY: May be called in any context; `drop` restores the flags.
        let flags = unsafe { bindings::local_irq_save() };

        // INVARIANT: Saved just now.
        Self {
            flags,
            _this_cpu: NotThreadSafe,
        }
    }
}

impl Drop for InterruptsDisabled {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the flags are those of this CPU.
        unsafe { bindings::local_irq_restore(self.flags) };
    }
}

/// Whether the machine is being stopped, by whomever.
pub(crate) fn in_progress() -> bool {
    // SAFETY: Reads an atomic, from any context.
    unsafe { bindings::panic_in_progress() }
}

/// The right to end the machine, held by at most one context of one CPU.
///
/// `panic_cpu` arbitrates, so that panics, crash_kexec() and these kfuncs exclude each other. Who
/// does not get it returns to its program at once and is stopped, like any other CPU, by the one
/// who did.
///
/// # Invariants
///
/// `panic_cpu` is this CPU, set by [`Claim::take`], and interrupts are disabled so that it stays
/// so.
#[must_use]
pub(crate) struct Claim {
    _interrupts: InterruptsDisabled,
}

impl Claim {
    /// Claims the machine, `-EBUSY` if it is already being stopped.
    pub(crate) fn take() -> Result<Self> {
        let interrupts = InterruptsDisabled::new();

        // SAFETY: An atomic exchange, from any context; interrupts are disabled.
        if !unsafe { bindings::panic_try_start() } {
            return Err(EBUSY);
        }
        // INVARIANT: `panic_try_start()` has set `panic_cpu` to this CPU.
        Ok(Self {
            _interrupts: interrupts,
        })
    }

    /// Boots the crash kernel; returns if it is being replaced or removed at this moment.
    pub(crate) fn crash_dump(self) -> Error {
        #[cfg(CONFIG_CRASH_DUMP)]
        // SAFETY: By the type invariant `panic_cpu` is this CPU, as __crash_kexec() requires.
        // Without registers, it takes those of this call.
        unsafe {
            bindings::__crash_kexec(core::ptr::null_mut())
        };
        EBUSY
    }

    /// Panics with `why` as the message.
    pub(crate) fn panic(self, why: &CStr) -> ! {
        // SAFETY: By the type invariant `panic_cpu` is ours to give back. panic() takes it itself,
        // after it has redirected to the CPU that `panic_force_cpu=` names; should another CPU be
        // faster, it stops this one. It may be called from any context. `why` is a string, as the
        // format says.
        unsafe {
            bindings::panic_reset();
            bindings::panic(c"%s".as_char_ptr(), why.as_char_ptr())
        }
    }

    /// Stops the machine.
    pub(crate) fn stop(self, stop: Stop) -> ! {
        self.stop_other_cpus();
        match stop {
            Stop::Reboot => {
                // SAFETY: May be called from any context.
                unsafe { bindings::emergency_restart() }
            }
            Stop::PowerOff => {
                // SAFETY: In a panic, with `reboot_force` set, this waits for no other CPU.
                unsafe { bindings::machine_power_off() }
            }
            Stop::Halt => {}
        }

        // A machine that does not switch off or restart stays halted.
        // SAFETY: In a panic, this waits for no other CPU.
        unsafe { bindings::machine_halt() };
        loop {
            spin_loop();
        }
    }

    /// Leaves this CPU alone, as far as the others can be stopped, with everything printed.
    fn stop_other_cpus(&self) {
        // SAFETY: smp_send_stop() is called by the one CPU that may; it does nothing while
        // `reboot_force` is set, which means afterwards that nobody waits for the others. No driver
        // waits for their locks while `oops_in_progress`. By the type invariant this is the CPU
        // that `panic_cpu` names, which may flush the consoles whatever locks are held.
        unsafe {
            bindings::reboot_force = 0;
            bindings::smp_send_stop();
            bindings::reboot_force = 1;

            bindings::oops_in_progress = bindings::oops_in_progress.wrapping_add(1);
            bindings::printk_legacy_allow_panic_sync();
            bindings::console_flush_on_panic(bindings::con_flush_mode_CONSOLE_FLUSH_PENDING);
            bindings::nbcon_atomic_flush_unsafe();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // SAFETY: By the type invariant `panic_cpu` is ours to give back.
        unsafe { bindings::panic_reset() };
    }
}
