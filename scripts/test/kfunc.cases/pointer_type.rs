// rustc: a BPF program cannot pass a pointer to `str` to a kfunc
#[kfunc]
fn bpf_pointer_type(name: &str) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_pointer_type]; }
