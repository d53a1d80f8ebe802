// rustc: expected type, found function `bpf_not_a_kfunc`
fn bpf_not_a_kfunc() {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_not_a_kfunc]; }
