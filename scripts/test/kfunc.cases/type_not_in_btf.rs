// btf: ERROR: resolve_btfids: kfunc bpf_type_not_in_btf has type 'struct rust_only *', which is not in BTF
struct RustOnly;

unsafe impl Struct for RustOnly {
    const TYPE: &'static str = "struct rust_only *";
}

#[kfunc]
fn bpf_type_not_in_btf(object: &RustOnly) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_type_not_in_btf]; }
