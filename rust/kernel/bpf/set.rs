// SPDX-License-Identifier: GPL-2.0

//! Sets of kfuncs, and their registration.

use crate::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::atomic::{
        AtomicFlag,
        Relaxed, //
    },
    types::Opaque,
    ThisModule, //
};
use core::ptr;

/// A set of kfuncs and the hooks that may call them, made by [`kfunc_set!`](super::kfunc_set).
///
/// # Invariants
///
/// * `kfuncs.set` is null, or points to a `struct btf_id_set8` with room for `len` kfuncs that
///   lives as long as `self`, and so does `kfuncs.owner`.
/// * No other set of the module names one of `hooks`.
pub struct KfuncSet {
    name: &'static CStr,
    module: &'static CStr,
    hooks: &'static [bindings::bpf_prog_type],
    kfuncs: Opaque<bindings::btf_kfunc_id_set>,
    ids: *const bindings::btf_id_set8,
    owner: *const bindings::module,
    len: usize,
    registered: AtomicFlag,
}

// SAFETY: Nothing is written after `new` but `registered`, which is atomic.
unsafe impl Sync for KfuncSet {}

impl KfuncSet {
    /// Describes a set.
    ///
    /// # Safety
    ///
    /// `ids` is null, or points to a kfunc set in the section `.BTF_ids` with `len` kfuncs, of
    /// the module `owner`, which has no other set for one of `hooks`. `filter` calls
    /// [`filter`](Self::filter) of this set, if it is there.
    #[doc(hidden)]
    pub const unsafe fn new(
        name: &'static CStr,
        module: &'static CStr,
        owner: &'static ThisModule,
        hooks: &'static [bindings::bpf_prog_type],
        ids: *mut bindings::btf_id_set8,
        len: usize,
        filter: bindings::btf_kfunc_filter_t,
    ) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            name,
            module,
            hooks,
            kfuncs: Opaque::new(bindings::btf_kfunc_id_set {
                owner: owner.as_ptr(),
                set: ids,
                filter,
            }),
            ids,
            owner: owner.as_ptr(),
            len,
            registered: AtomicFlag::new(false),
        }
    }

    /// Registers the set for its hooks: from now on their programs can call the kfuncs.
    ///
    /// To be called once, when the module is initialised. There is no undo: what is registered
    /// goes with the module, which programs that call its kfuncs keep loaded.
    ///
    /// Returns
    ///
    /// * `ENOENT` if there is no BTF, which C's `register_btf_kfunc_id_set()` silently accepts;
    /// * `EINVAL` if a kfunc of the set is not in that BTF, or one of its name is elsewhere, too;
    /// * `EEXIST` if it was called before.
    pub fn register(&'static self) -> Result {
        if self.registered.xchg(true, Relaxed) {
            return Err(EEXIST);
        }
        self.check_btf()?;
        self.check_ids()?;

        for hook in self.hooks {
            // SAFETY: By the type invariants, `kfuncs` describes a set that lives as long as the
            // module, and the only one for the hook.
            to_result(unsafe { bindings::register_btf_kfunc_id_set(*hook, self.kfuncs.get()) })
                .inspect_err(|_| self.report("the kernel refuses it, see above"))?;
        }
        Ok(())
    }

    /// Returns whether [`register`](Self::register) was called.
    pub fn is_registered(&self) -> bool {
        self.registered.load(Relaxed)
    }

    /// Decides about a program that calls a kfunc by one of the hooks; anything but 0 refuses it.
    ///
    /// # Safety
    ///
    /// `prog` points to a program.
    #[doc(hidden)]
    pub unsafe fn filter(
        &self,
        except: &[bindings::bpf_attach_type],
        prog: *const bindings::bpf_prog,
        kfunc: u32,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        let attach_type = unsafe { (*prog).expected_attach_type };

        (self.decides(kfunc) && except.contains(&attach_type)).into()
    }

    /// Returns whether the kfunc is of this set.
    ///
    /// The kernel asks the filters of a hook for all kfuncs in the same BTF: in that of a module,
    /// which has one set for the hook, for those of this set only. There, ids may have been
    /// relocated since `resolve_btfids` filled in the set; in that of vmlinux, they never are.
    fn decides(&self, kfunc: u32) -> bool {
        !self.owner.is_null() || (0..self.len).any(|i| self.id(i) == Some(kfunc))
    }

    /// Checks that the kernel knows the BTF of the module, or vmlinux's.
    fn check_btf(&self) -> Result {
        // SAFETY: By the type invariants, `owner` is a module or null, which means vmlinux.
        let btf = from_err_ptr(unsafe { bindings::btf_get_module_btf(self.owner) })
            .inspect_err(|_| self.report("the BTF cannot be read"))?;
        if btf.is_null() {
            self.report("no BTF; build with CONFIG_DEBUG_INFO_BTF and against this very vmlinux");
            return Err(ENOENT);
        }
        // SAFETY: `btf_get_module_btf()` took a reference.
        unsafe { bindings::btf_put(btf) };
        Ok(())
    }

    /// Checks that `resolve_btfids` filled in the set, the count and every id.
    fn check_ids(&self) -> Result {
        if self.ids.is_null() {
            self.report("built without CONFIG_DEBUG_INFO_BTF");
            return Err(ENOENT);
        }

        // SAFETY: By the type invariants, `ids` is a set. A volatile read, since the compiler
        // knows the set only as it was before `resolve_btfids` ran.
        let count = unsafe { ptr::read_volatile(&raw const (*self.ids).cnt) };
        // CAST: `u32` fits wherever BPF runs.
        if count as usize != self.len {
            self.report("resolve_btfids has not seen it");
            return Err(EINVAL);
        }

        if (0..self.len).any(|i| self.id(i) == Some(0)) {
            self.report("a kfunc is not in the BTF");
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Returns the BTF id of a kfunc of the set, as `resolve_btfids` filled it in.
    fn id(&self, i: usize) -> Option<u32> {
        if self.ids.is_null() || i >= self.len {
            return None;
        }

        // SAFETY: By the type invariants, `ids` is a set with room for `len` kfuncs. A volatile
        // read, since the compiler knows the set only as it was before `resolve_btfids` ran.
        Some(unsafe {
            let pairs =
                (&raw const (*self.ids).pairs).cast::<bindings::btf_id_set8__bindgen_ty_1>();
            ptr::read_volatile(&raw const (*pairs.add(i)).id)
        })
    }

    /// Says why the set is not registered.
    fn report(&self, why: &str) {
        pr_err!(
            "{}: kfunc set {} not registered: {why}\n",
            self.module,
            self.name
        );
    }
}
