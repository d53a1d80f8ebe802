// SPDX-License-Identifier: GPL-2.0
/*
 * What --bench runs where the modules are: a kernel without them cannot load
 * any program of an object that names their kfuncs.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "kfunc.h"
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

__u64 bpf_rust_noop(__u64 value) __kfunc_of(bpf_rust_kfunc_test);
__u64 bpf_c_noop(__u64 value) __kfunc_of(bpf_c_kfunc_test);

ROW("one kfunc call, in C", 1000000)
int kfunc_c(struct xdp_md *ctx)
{
	return bpf_c_noop(XDP_PASS);
}

ROW("one kfunc call, in Rust", 1000000)
int kfunc_rust(struct xdp_md *ctx)
{
	return bpf_rust_noop(XDP_PASS);
}
