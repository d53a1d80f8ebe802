// btf: ERROR: resolve_btfids: kfunc bpf_struct_by_value has type 'struct path', which is neither a scalar nor a pointer
struct ByValue;

unsafe impl Struct for ByValue {
    const TYPE: &'static str = "struct path";
}

#[kfunc]
fn bpf_struct_by_value(path: &ByValue) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_struct_by_value]; }
