// SPDX-License-Identifier: GPL-2.0
/* What --bench runs: each program is a row of its table, run by itself with nothing around it. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "bench_loops.h"
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

ROW("program without throw or loop", 1000000)
int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

ROW("bpf_iter_num, 1,000 rounds", 100000)
int iter_num(struct xdp_md *ctx)
{
	return sum_by_iter() ? XDP_PASS : XDP_DROP;
}

ROW("bpf_loop, 1,000 rounds", 100000)
int loop(struct xdp_md *ctx)
{
	return sum_by_loop() ? XDP_PASS : XDP_DROP;
}

ROW("may_goto, 1,000 rounds", 100000)
int by_may_goto(struct xdp_md *ctx)
{
	return sum_by_may_goto() ? XDP_PASS : XDP_DROP;
}
