// rustc: unknown kfunc flag; there are destructive, perfmon, rcu_protected, sleepable, spinlock_safe
#[kfunc(acquire)]
fn bpf_unknown_flag() {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_unknown_flag]; }
