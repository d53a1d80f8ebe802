// SPDX-License-Identifier: GPL-2.0
/*
 * What --bench runs with the module that releases what a program holds when it
 * throws. A kernel without that throws as it does.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "kfunc.h"
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

void bpf_throw(__u64 cookie) __kfunc_of(bpf_unwind);

ROW("throw in the main program", 100000)
int throw_main(struct xdp_md *ctx)
{
	bpf_throw(0);
	return XDP_PASS;
}

/* So many subprograms that cannot be inlined, the last of which throws, or might. */
#define LAST(name, condition)							\
	static __noinline int name##_0(int length)				\
	{									\
		if (condition)							\
			bpf_throw(0);						\
		return length;							\
	}
#define ABOVE(name, frame, below)						\
	static __noinline int name##_##frame(int length)			\
	{									\
		int ret = name##_##below(length);				\
										\
		barrier_var(ret);						\
		return ret + 1;							\
	}
#define MAIN(name, frames, below)					\
	int name##_##frames(struct xdp_md *ctx)					\
	{									\
		return below(ctx->data_end - ctx->data) ? XDP_PASS : XDP_DROP;	\
	}

LAST(taken, length >= 0)
ABOVE(taken, 1, 0)
ABOVE(taken, 2, 1)
ABOVE(taken, 3, 2)
ABOVE(taken, 4, 3)
ABOVE(taken, 5, 4)
ABOVE(taken, 6, 5)

LAST(possible, length < 0)
ABOVE(possible, 1, 0)
ABOVE(possible, 2, 1)
ABOVE(possible, 3, 2)

ROW("throw one deep", 30000)
MAIN(throw, 1, taken_0)
ROW("throw two deep", 30000)
MAIN(throw, 2, taken_1)
ROW("throw three deep", 30000)
MAIN(throw, 3, taken_2)
ROW("throw four deep", 30000)
MAIN(throw, 4, taken_3)
ROW("throw five deep", 30000)
MAIN(throw, 5, taken_4)
ROW("throw six deep", 30000)
MAIN(throw, 6, taken_5)
ROW("throw seven deep", 30000)
MAIN(throw, 7, taken_6)
ROW("four deep, throw possible, not taken", 1000000)
MAIN(no_throw, 4, possible_3)
