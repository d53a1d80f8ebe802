// SPDX-License-Identifier: GPL-2.0

//! Hooks: the groups of program types for which kfuncs are registered.
//!
//! Several program types may share a hook, and a module registers one set of kfuncs for each. So
//! a hook is named here by itself, not by one of its program types.
//!
//! C source: `bpf_prog_type_to_kfunc_hook()` in [`kernel/bpf/btf.c`](srctree/kernel/bpf/btf.c)

use crate::bindings;

/// A hook for which a set of kfuncs can be registered.
pub trait Hook {
    /// One of the program types of the hook.
    const PROGRAM_TYPE: bindings::bpf_prog_type;
}

/// Says that a module has its set of kfuncs for the hook `H`.
///
/// [`kfunc_set!`](super::kfunc_set) implements it for the type of the module. A second set for the
/// same hook would make the kernel throw away all sets of the module; here, the second
/// implementation does not compile.
pub trait OneSetPerHook<H: Hook> {}

/// A kind of programs that a set can leave out of its hooks.
pub trait Kind {
    /// The attach type that programs of the kind, and their extensions, are loaded for.
    const ATTACH_TYPE: bindings::bpf_attach_type;
}

/// LSM programs of control groups, which share the hook [`Tracing`].
pub enum LsmCgroup {}

impl Kind for LsmCgroup {
    const ATTACH_TYPE: bindings::bpf_attach_type = bindings::bpf_attach_type_BPF_LSM_CGROUP;
}

macro_rules! hooks {
    ($($(#[$attr:meta])* $hook:ident = $program_type:ident;)*) => {$(
        $(#[$attr])*
        pub enum $hook {}

        impl Hook for $hook {
            const PROGRAM_TYPE: bindings::bpf_prog_type = bindings::$program_type;
        }
    )*}
}

hooks! {
    /// Programs of every type.
    Common = bpf_prog_type_BPF_PROG_TYPE_UNSPEC;
    /// XDP.
    Xdp = bpf_prog_type_BPF_PROG_TYPE_XDP;
    /// Traffic control classifiers.
    Tc = bpf_prog_type_BPF_PROG_TYPE_SCHED_CLS;
    /// `struct_ops`.
    StructOps = bpf_prog_type_BPF_PROG_TYPE_STRUCT_OPS;
    /// Tracing: fentry, fexit, fmod_ret, iterators, BTF and raw tracepoints, tracepoints, perf
    /// events, LSM, those of control groups ([`LsmCgroup`]) included.
    Tracing = bpf_prog_type_BPF_PROG_TYPE_TRACING;
    /// Programs that user space runs by the `BPF_PROG_RUN` command.
    Syscall = bpf_prog_type_BPF_PROG_TYPE_SYSCALL;
    /// Control groups, and `sock_ops`.
    Cgroup = bpf_prog_type_BPF_PROG_TYPE_CGROUP_SKB;
    /// Traffic control actions.
    SchedAct = bpf_prog_type_BPF_PROG_TYPE_SCHED_ACT;
    /// Stream parsers and verdicts of sockmap.
    SkSkb = bpf_prog_type_BPF_PROG_TYPE_SK_SKB;
    /// Socket filters.
    SocketFilter = bpf_prog_type_BPF_PROG_TYPE_SOCKET_FILTER;
    /// Lightweight tunnels.
    Lwt = bpf_prog_type_BPF_PROG_TYPE_LWT_OUT;
    /// Netfilter.
    Netfilter = bpf_prog_type_BPF_PROG_TYPE_NETFILTER;
    /// Kprobes, uprobes and their multi forms.
    Kprobe = bpf_prog_type_BPF_PROG_TYPE_KPROBE;
}
