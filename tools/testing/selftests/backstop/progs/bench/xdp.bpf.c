// SPDX-License-Identifier: GPL-2.0
/* What --bench runs: each program is a row of its table, run by itself with nothing around it. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

ROW("program without throw or loop", 1000000)
int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

ROW("bpf_iter_num, 1,000 rounds", 10000)
int iter_num(struct xdp_md *ctx)
{
	struct bpf_iter_num it;
	int sum = 0, *i;

	bpf_iter_num_new(&it, 0, 1000);
	while ((i = bpf_iter_num_next(&it)))
		sum += *i;
	bpf_iter_num_destroy(&it);
	return sum ? XDP_PASS : XDP_DROP;
}

static int add(__u32 index, int *sum)
{
	*sum += index;
	return 0;
}

ROW("bpf_loop, 1,000 rounds", 10000)
int loop(struct xdp_md *ctx)
{
	int sum = 0;

	bpf_loop(1000, add, &sum, 0);
	return sum ? XDP_PASS : XDP_DROP;
}
