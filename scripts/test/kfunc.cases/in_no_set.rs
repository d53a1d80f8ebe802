// btf: ERROR: resolve_btfids: kfunc bpf_in_no_set is in no kfunc set
#[kfunc]
fn bpf_in_no_set() {}

#[kfunc]
fn bpf_in_a_set() {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_in_a_set]; }
