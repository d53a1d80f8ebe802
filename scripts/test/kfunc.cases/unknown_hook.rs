// rustc: cannot find type `PerfEvent` in module `kernel::bpf::hook`
#[kfunc]
fn bpf_unknown_hook() {}

kfunc_set! { static KFUNCS: [PerfEvent] = [bpf_unknown_hook]; }
