// btf: ERROR: resolve_btfids: kfunc bpf_no_set_at_all is in no kfunc set
#[kfunc]
fn bpf_no_set_at_all() {}
