// SPDX-License-Identifier: GPL-2.0
/* Nor does a struct_ops program: in a file of its own, as libbpf loads it with its map. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "destructive.h"
#include "expect.h"

char LICENSE[] SEC("license") = "GPL";

SEC("struct_ops/ssthresh")
__description("a struct_ops program cannot call bpf_halt")
__event(none) __failure(EACCES) __msg("calling kernel function bpf_halt is not allowed")
__u32 refuse_struct_ops(struct sock *sk)
{
	bpf_halt(BPF_STOP_NOW);
	return 2;
}

SEC(".struct_ops")
struct tcp_congestion_ops backstop_refused = {
	.ssthresh = (void *)refuse_struct_ops,
	.name = "backstop",
};
