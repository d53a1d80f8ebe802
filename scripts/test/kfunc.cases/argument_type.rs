// rustc: a BPF program cannot pass `Option<u32>` to a kfunc
#[kfunc]
fn bpf_argument_type(value: Option<u32>) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_argument_type]; }
