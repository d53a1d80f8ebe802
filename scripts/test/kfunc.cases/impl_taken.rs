// btf: ERROR: resolve_btfids: kfunc bpf_impl_taken has an implicit argument and needs the name bpf_impl_taken_impl, which is already in BTF
#[kfunc]
fn bpf_impl_taken(why: &CStr, caller: &Program) {}

#[kfunc]
fn bpf_impl_taken_impl(value: u64) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_impl_taken, bpf_impl_taken_impl]; }
