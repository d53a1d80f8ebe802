// rustc: `__` in the name of a parameter tells the verifier what to check
#[kfunc]
fn bpf_suffix_in_name(task__ign: &Task) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_suffix_in_name]; }
