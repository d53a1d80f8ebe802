// builds
#[kfunc(destructive)]
fn bpf_builds(why: &CStr, #[size(len)] data: Mem<'_>, task: Option<&Task>, caller: &Program) {}

#[kfunc]
fn r#bpf_builds_raw(#[size(r#move)] r#type: Mem<'_>, r#in: u32) {}

kfunc_set! { static KFUNCS: [Tracing, Kprobe] except [LsmCgroup] = [bpf_builds, r#bpf_builds_raw]; }
kfunc_set! { static r#OTHER: [Xdp] = [bpf_builds]; }
