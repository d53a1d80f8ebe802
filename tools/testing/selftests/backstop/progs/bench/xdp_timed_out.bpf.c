// SPDX-License-Identifier: GPL-2.0
/*
 * What --bench runs to tell how long it takes from the deadline of a run until it
 * has ended, a reference that it holds released: loops that take minutes. None
 * loads without the modules. A row's count is what is beyond the deadline.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

#define __unwind_test	__ksym __attribute__((btf_decl_tag("module:bpf_unwind_test")))

void bpf_unwind_reset(void) __unwind_test;
struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
void bpf_task_release(struct task_struct *p) __ksym;
int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

const volatile bool never;
volatile __u64 rounds;

#define ROUNDS (8 << 20)

/* As often as a program's runs may be ended in succession, and still run. */
#define TIMED_OUT(name)								\
	ROW("from deadline to ended: " name, 9)					\
	__needs(bpf_unwind) __needs(bpf_deadline)				\
	__attribute__((btf_decl_tag("deadline_us:1000")))

#define HOLDING(loop)								\
	struct task_struct *task = bpf_task_acquire(bpf_get_current_task_btf());	\
										\
	if (!task)								\
		return XDP_DROP;						\
	loop;									\
	if (never)								\
		bpf_unwind_reset();						\
	bpf_task_release(task);							\
	return XDP_PASS

static __always_inline void loop_by_iter(void)
{
	struct bpf_iter_num outer, inner;

	bpf_iter_num_new(&outer, 0, ROUNDS);
	while (bpf_iter_num_next(&outer)) {
		bpf_iter_num_new(&inner, 0, ROUNDS);
		while (bpf_iter_num_next(&inner))
			rounds++;
		bpf_iter_num_destroy(&inner);
	}
	bpf_iter_num_destroy(&outer);
}

static int count(__u32 index, void *ctx)
{
	rounds++;
	return 0;
}

static int loop_inside(__u32 index, void *ctx)
{
	bpf_loop(ROUNDS, count, NULL, 0);
	return 0;
}

/* The instruction may_goto; the kernel ends its loop after 250 ms. */
static __always_inline void loop_by_may_goto(void)
{
	__u64 i = 0;

	asm volatile("again_%=: .8byte %[may_goto];"	/* goto out */
		     "%[i] += 1;"
		     "goto again_%=;"
		     "out_%=:"
		     : [i] "+r"(i)
		     : [may_goto] "i"(0xe5 | 2 << 16));
}

TIMED_OUT("bpf_iter_num")
int iter_num(struct xdp_md *ctx)
{
	HOLDING(loop_by_iter());
}

TIMED_OUT("bpf_loop")
int loop(struct xdp_md *ctx)
{
	HOLDING(bpf_loop(ROUNDS, loop_inside, NULL, 0));
}

TIMED_OUT("may_goto")
int by_may_goto(struct xdp_md *ctx)
{
	HOLDING(loop_by_may_goto());
}
