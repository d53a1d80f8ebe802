// rustc: a BPF program cannot pass `kernel::bpf::Mem<'_>` to a kfunc
#[kfunc]
fn bpf_memory_without_size(data: Mem<'_>) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_memory_without_size]; }
