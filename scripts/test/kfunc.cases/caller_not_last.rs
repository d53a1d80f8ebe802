// rustc: the calling program is the last parameter of a kfunc
#[kfunc]
fn bpf_caller_not_last(caller: &Program, how: u32) {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_caller_not_last]; }
