// rustc: a kfunc is listed by its own name
mod one {
    use super::*;

    #[kfunc(destructive)]
    pub fn bpf_listed_one() {}
}

mod other {
    use super::*;

    #[kfunc]
    pub fn bpf_listed_other() {}
}

use {one::bpf_listed_one, other::bpf_listed_other as bpf_listed_first};

kfunc_set! { static KFUNCS: [Tracing] = [bpf_listed_one, bpf_listed_first]; }
