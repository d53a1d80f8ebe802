// SPDX-License-Identifier: GPL-2.0
/* What --bench runs: each program is a row of its table, run by itself with nothing around it. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

void bpf_throw(__u64 cookie) __ksym;
int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

ROW("program without throw or loop", 1000000)
int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

ROW("throw in the main program", 100000)
int throw_main(struct xdp_md *ctx)
{
	bpf_throw(0);
	return XDP_PASS;
}

/* Four subprograms that cannot be inlined, the last of which throws, or might. */
#define FOUR_DEEP(name, condition)						\
	static __noinline int name##_4(int length)				\
	{									\
		if (condition)							\
			bpf_throw(0);						\
		return length;							\
	}									\
	static __noinline int name##_3(int length)				\
	{									\
		int ret = name##_4(length);					\
										\
		barrier_var(ret);						\
		return ret + 1;							\
	}									\
	static __noinline int name##_2(int length)				\
	{									\
		int ret = name##_3(length);					\
										\
		barrier_var(ret);						\
		return ret + 1;							\
	}									\
	static __noinline int name##_1(int length)				\
	{									\
		int ret = name##_2(length);					\
										\
		barrier_var(ret);						\
		return ret + 1;							\
	}									\
	int name(struct xdp_md *ctx)						\
	{									\
		return name##_1(ctx->data_end - ctx->data) ? XDP_PASS : XDP_DROP; \
	}

ROW("throw four deep", 30000)
int throw_deep(struct xdp_md *ctx);
FOUR_DEEP(throw_deep, length >= 0)

ROW("four deep, throw possible, not taken", 1000000)
int maybe_deep(struct xdp_md *ctx);
FOUR_DEEP(maybe_deep, length < 0)

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
