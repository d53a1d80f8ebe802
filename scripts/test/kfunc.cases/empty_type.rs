// btf: ERROR: resolve_btfids: malformed prototype of kfunc
struct NoType;

unsafe impl Struct for NoType {
    const TYPE: &'static str = "";
}

// The empty type ends the prototype, and the rest of it reads as another.
#[kfunc]
fn bpf_empty_type(object: &NoType, how: u32) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_empty_type]; }
