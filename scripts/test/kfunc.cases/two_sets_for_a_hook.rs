// rustc: conflicting implementations of trait `OneSetPerHook<Tracing>` for type `Case`
#[kfunc]
fn bpf_two_sets_for_a_hook() {}

kfunc_set! { static KFUNCS: [Tracing] = [bpf_two_sets_for_a_hook]; }
kfunc_set! { static OTHER: [Kprobe, Tracing] = [bpf_two_sets_for_a_hook]; }
