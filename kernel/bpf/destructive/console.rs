// SPDX-License-Identifier: GPL-2.0

//! Console lines that are printed at once, from any context and whatever the log level.

use kernel::{
    bindings,
    bpf::{
        Mem,
        Program, //
    },
    cpu::CpuId,
    error::to_result,
    fmt::{
        self,
        Display, //
    },
    preempt::Context,
    prelude::*,
    str::BStr,
    types::NotThreadSafe, //
};

/// A section in which this CPU's messages go to the consoles before printk() returns.
///
/// Legacy consoles, whose locks this CPU may hold, are left to an irq_work, or to the last flush
/// before the machine stops.
///
/// # Invariants
///
/// The emergency section, the forced console and the deferral of legacy consoles are entered once
/// and not yet left; preemption is disabled.
struct Loud(NotThreadSafe);

impl Loud {
    fn enter() -> Self {
        // SAFETY: All may be called in any context; `drop` leaves what is entered here.
        unsafe {
            bindings::nbcon_cpu_emergency_enter();
            bindings::printk_force_console_enter();
            bindings::__printk_deferred_enter();
        }
        // INVARIANT: Entered just now.
        Self(NotThreadSafe)
    }
}

impl Drop for Loud {
    fn drop(&mut self) {
        // SAFETY: By the type invariant all were entered, on this CPU.
        unsafe {
            bindings::__printk_deferred_exit();
            bindings::printk_force_console_exit();
            bindings::nbcon_cpu_emergency_exit();
        }
    }
}

/// Names the program that called `kfunc`, where it runs, and why.
pub(crate) fn announce(kfunc: &str, caller: &Program, why: impl Display) {
    let _loud = Loud::enter();
    let task = current!();

    pr_emerg!(
        "{} by program \"{}\" id {} tag {} on cpu {} task {} pid {} in {} context: {}\n",
        kfunc,
        caller.name(),
        caller.id(),
        caller.tag(),
        CpuId::current().as_u32(),
        task.comm(),
        task.pid(),
        Context::current(),
        why,
    );
}

/// Says what the module itself does.
pub(crate) fn say(what: impl Display) {
    let _loud = Loud::enter();

    pr_emerg!("{what}\n");
}

/// A text formatted as bpf_trace_printk() does, in a buffer of this CPU.
///
/// # Invariants
///
/// `data` was prepared by `bpf_bprintf_prepare()` with a buffer, and `data.buf` holds `len`
/// initialised bytes of text.
pub(crate) struct Text {
    data: bindings::bpf_bprintf_data,
    len: usize,
    _this_cpu: NotThreadSafe,
}

impl Text {
    /// Size of a raw argument in bytes.
    const ARGUMENT: usize = size_of::<u64>();

    /// Formats `args`, an array of `u64`.
    pub(crate) fn format(fmt: &CStr, args: Mem<'_>) -> Result<Self> {
        let len = args.len();
        if len % Self::ARGUMENT != 0
            || len > Self::ARGUMENT * bindings::MAX_BPRINTF_VARARGS as usize
        {
            return Err(EINVAL);
        }

        let mut data = bindings::bpf_bprintf_data {
            bin_args: core::ptr::null_mut(),
            buf: core::ptr::null_mut(),
            get_bin_args: true,
            get_buf: true,
        };

        // SAFETY: `fmt` is a string of the size given, `args` holds `len / 8` raw arguments, and
        // `data` asks for both buffers.
        to_result(unsafe {
            bindings::bpf_bprintf_prepare(
                fmt.as_char_ptr(),
                fmt.to_bytes_with_nul().len() as u32,
                args.as_ptr().cast(),
                (len / Self::ARGUMENT) as u32,
                &mut data,
            )
        })?;

        // SAFETY: `bpf_bprintf_prepare()` has checked `fmt` against the arguments it stored in
        // `data.bin_args`, and `data.buf` is `MAX_BPRINTF_BUF` bytes long.
        let wanted = unsafe {
            bindings::bstr_printf(
                data.buf,
                bindings::MAX_BPRINTF_BUF as usize,
                fmt.as_char_ptr(),
                data.bin_args,
            )
        };

        // INVARIANT: Prepared above. bstr_printf() returns the length of the whole text, of which
        // what fits is there, followed by a NUL.
        Ok(Self {
            data,
            len: usize::try_from(wanted)
                .unwrap_or(0)
                .min(bindings::MAX_BPRINTF_BUF as usize - 1),
            _this_cpu: NotThreadSafe,
        })
    }
}

impl Display for &Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: By the type invariant, `len` initialised bytes, which live as long as `self`.
        let text = unsafe { core::slice::from_raw_parts(self.data.buf.cast(), self.len) };

        BStr::from_bytes(text).fmt(f)
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, prepared and not yet cleaned up.
        unsafe { bindings::bpf_bprintf_cleanup(&mut self.data) };
    }
}
