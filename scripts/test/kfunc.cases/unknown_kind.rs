// rustc: cannot find type `Lsm` in module `kernel::bpf::hook`
#[kfunc]
fn bpf_unknown_kind() {}

kfunc_set! { static KFUNCS: [Tracing] except [Lsm] = [bpf_unknown_kind]; }
