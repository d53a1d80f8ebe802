// rustc: BPF passes at most 5 arguments
#[kfunc]
fn bpf_too_many_arguments(a: u32, b: u32, c: u32, #[size(len)] data: Mem<'_>, caller: &Program) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_too_many_arguments]; }
