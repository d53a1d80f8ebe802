// SPDX-License-Identifier: GPL-2.0
/*
 * What --bench runs to tell how long it takes from the deadline of a run until it
 * has ended, an object that it holds released: loops that take minutes. None
 * loads without the modules. A row's count is what is beyond the deadline.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

/* As often as a program's runs may be ended in succession, and still run. */
#define TIMED_OUT(name)								\
	ROW("from deadline to ended: " name, 9)					\
	__needs(bpf_unwind) __needs(bpf_deadline) __deadline_us(1000)

#define HOLDING(loop)								\
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a');	\
										\
	if (!object)								\
		return XDP_DROP;						\
	loop;									\
	bpf_unwind_object_release(object);					\
	return XDP_PASS

static int count(__u32 index, void *ctx)
{
	sum += one;
	return 0;
}

static int loop_inside(__u32 index, void *ctx)
{
	bpf_loop(ROUNDS, count, NULL, 0);
	return 0;
}

TIMED_OUT("bpf_iter_num")
int iter_num(struct xdp_md *ctx)
{
	HOLDING(take_long());
}

TIMED_OUT("bpf_loop")
int loop(struct xdp_md *ctx)
{
	HOLDING(bpf_loop(ROUNDS, loop_inside, NULL, 0));
}

TIMED_OUT("may_goto")
int by_may_goto(struct xdp_md *ctx)
{
	__u64 i = 0;

	HOLDING(COUNT_ON(i));
}
