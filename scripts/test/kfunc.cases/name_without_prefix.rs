// rustc: the name of a kfunc starts with `bpf_`
#[kfunc]
fn init() {}

kfunc_set! { static KFUNCS: [Tracing] = [init]; }
