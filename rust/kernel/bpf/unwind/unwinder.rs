// SPDX-License-Identifier: GPL-2.0

//! Who unwinds programs.

use super::Throw;
use crate::{
    bindings,
    error::to_result,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// Unwinds a program that throws.
pub trait Unwind {
    /// Releases what the frames hold up to where [`Throw::walk`] stops, and has the program go on.
    ///
    /// Called in any context, NMI included. A throw that is dropped goes on behind the call of
    /// the program, where the verifier has not looked: end it by [`Throw::go_on`] or
    /// [`Throw::give_up`].
    fn unwind(throw: Throw<'_>);
}

/// A module's [`Unwind`], ready to be registered.
pub struct Unwinder(Opaque<bindings::bpf_unwind_ops>);

// SAFETY: Nothing is written after `new`.
unsafe impl Sync for Unwinder {}

impl Unwinder {
    /// Describes what a module does.
    pub const fn new<T: Unwind>(module: &'static ThisModule) -> Self {
        Self(Opaque::new(bindings::bpf_unwind_ops {
            owner: module.as_ptr(),
            unwind: Some(Self::unwind::<T>),
        }))
    }

    /// Registers it: programs that are loaded from now on are unwound by it, and keep the module
    /// loaded.
    ///
    /// Returns `EBUSY` if there is one already.
    pub fn register(&'static self) -> Result<Registration> {
        // SAFETY: The operations live as long as the module, which programs that use them pin.
        to_result(unsafe { bindings::bpf_unwind_register(self.0.get()) })?;
        // INVARIANT: Registered just now.
        Ok(Registration(self))
    }

    /// # Safety
    ///
    /// To be called by `bpf_throw_stub()` only.
    unsafe extern "C" fn unwind<T: Unwind>(regs: *mut bindings::bpf_unwind_regs) {
        // SAFETY: The registers of a program that throws, which waits; it throws this way only
        // with a table.
        T::unwind(unsafe { Throw::from_raw(regs) });
    }
}

/// An [`Unwinder`] that programs are loaded with until this is dropped.
///
/// # Invariants
///
/// It is registered.
pub struct Registration(&'static Unwinder);

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::bpf_unwind_unregister(self.0 .0.get()) };
    }
}
