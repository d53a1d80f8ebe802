// SPDX-License-Identifier: GPL-2.0
/*
 * What --bench runs to tell what a deadline costs: loops, while the modules are
 * there that give them one. The unpatched kernel runs them without.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "bench_loops.h"
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

#define TIMED(name) ROW("with deadline: " name, 100000) __needs(bpf_unwind) __needs(bpf_deadline)

TIMED("bpf_iter_num, 1,000 rounds")
int iter_num(struct xdp_md *ctx)
{
	return sum_by_iter() ? XDP_PASS : XDP_DROP;
}

TIMED("bpf_loop, 1,000 rounds")
int loop(struct xdp_md *ctx)
{
	return sum_by_loop() ? XDP_PASS : XDP_DROP;
}

TIMED("may_goto, 1,000 rounds")
int by_may_goto(struct xdp_md *ctx)
{
	return sum_by_may_goto() ? XDP_PASS : XDP_DROP;
}

TIMED("program without throw or loop")
int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}
