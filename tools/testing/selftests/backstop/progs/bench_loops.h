/* SPDX-License-Identifier: GPL-2.0 */
/* Loops of 1,000 rounds that --bench runs with a deadline and without. Include after vmlinux.h. */
#ifndef _BACKSTOP_BENCH_LOOPS_H
#define _BACKSTOP_BENCH_LOOPS_H

#include <bpf/bpf_helpers.h>

int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

static __always_inline int sum_by_iter(void)
{
	struct bpf_iter_num it;
	int sum = 0, *i;

	bpf_iter_num_new(&it, 0, 1000);
	while ((i = bpf_iter_num_next(&it)))
		sum += *i;
	bpf_iter_num_destroy(&it);
	return sum;
}

static int add(__u32 index, int *sum)
{
	*sum += index;
	return 0;
}

static __always_inline int sum_by_loop(void)
{
	int sum = 0;

	bpf_loop(1000, add, &sum, 0);
	return sum;
}

/* The instruction may_goto, whose loop the kernel ends after 250 ms. */
static __always_inline int sum_by_may_goto(void)
{
	__u64 sum = 0, i = 0;

	asm volatile("again_%=: .8byte %[may_goto];"	/* goto out */
		     "%[sum] += %[i];"
		     "%[i] += 1;"
		     "if %[i] < 1000 goto again_%=;"
		     "out_%=:"
		     : [sum] "+r"(sum), [i] "+r"(i)
		     : [may_goto] "i"(0xe5 | 3 << 16));
	return sum;
}

#endif /* _BACKSTOP_BENCH_LOOPS_H */
