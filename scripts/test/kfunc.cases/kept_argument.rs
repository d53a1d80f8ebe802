// rustc: `call` does not live long enough
#[kfunc]
fn bpf_kept_argument(name: &'static CStr) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_kept_argument]; }
