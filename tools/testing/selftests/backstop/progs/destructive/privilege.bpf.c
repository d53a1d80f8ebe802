// SPDX-License-Identifier: GPL-2.0
/* What tests in Rust load with other privileges and targets; nothing is attached. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "destructive.h"

char LICENSE[] SEC("license") = "GPL";

SEC("raw_tp/sys_enter")
int halt(void *ctx)
{
	bpf_halt(BPF_STOP_NOW);
	return 0;
}

SEC("raw_tp/sys_enter")
int harmless(void *ctx)
{
	return 0;
}

__noinline int replaceable(struct xdp_md *ctx)
{
	int action = XDP_PASS;

	barrier_var(action);
	return action;
}

SEC("xdp")
int target(struct xdp_md *ctx)
{
	return replaceable(ctx);
}

SEC("freplace/replaceable")
int replacement(struct xdp_md *ctx)
{
	bpf_halt(BPF_STOP_NOW);
	return XDP_PASS;
}
