// btf: ERROR: resolve_btfids: kfunc bpf_task_acquire is already in BTF of vmlinux
#[kfunc]
fn bpf_task_acquire() {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_task_acquire]; }
