// rustc: a kfunc cannot return `Option<u32>` to a BPF program
#[kfunc]
fn bpf_return_type() -> Option<u32> {
    None
}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_return_type]; }
