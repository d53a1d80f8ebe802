// rustc: a kfunc is a safe function
#[kfunc]
unsafe fn bpf_unsafe_function() {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_unsafe_function]; }
