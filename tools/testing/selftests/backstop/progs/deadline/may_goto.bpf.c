// SPDX-License-Identifier: GPL-2.0
/*
 * Programs that rely on may_goto to leave their loops, and bring along no deadline: the loops are
 * left before their runs have to be ended. A test run is in the class atomic.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

/* True until the kernel has the loop left. */
#define can_loop								\
	({									\
		__label__ stop, go_on;						\
		bool going = true;						\
										\
		asm volatile goto("may_goto %l[stop]" :::: stop);		\
		goto go_on;							\
stop:										\
		going = false;							\
go_on:										\
		going;								\
	})

#define __leaves_loops(description)						\
	SEC("tc") __description(description) __event(test_run)			\
	__module(bpf_unwind) __module(bpf_deadline)

/* Of a number that the verifier does not know, so that it need not follow the rounds. */
static __noinline int count(void)
{
	__u64 begin = sum, i = begin;

	COUNT_ON(i);
	return i - begin > 1;
}

__leaves_loops("a loop is left, and the program goes on") __retval(1)
int leave(void *ctx)
{
	return count();
}

__leaves_loops("the loops of functions that are called later are left, too") __retval(4)
int leave_all(void *ctx)
{
	__u64 begin = sum, i = begin;

	COUNT_ON(i);
	return (i - begin > 1) + count() + count() + count();
}

#define ENOUGH	5000

__u64 total;

static __noinline void count_some(void)
{
	int i;

	bpf_for(i, 0, ENOUGH)
		total += one;
}

__leaves_loops("a loop is left of which a function is called all the time") __retval(2)
int leave_around(void *ctx)
{
	__u64 before = total;

	while (can_loop)
		count_some();
	return total - before > ENOUGH ? 2 : 1;
}

static int count_called(__u32 i, void *ctx)
{
	total += one;
	return 0;
}

__leaves_loops("a loop is left that calls helpers with callbacks all the time") __retval(2)
int leave_around_callbacks(void *ctx)
{
	__u64 before = total;

	while (can_loop)
		bpf_loop(ENOUGH, count_called, NULL, 0);
	return total - before > ENOUGH ? 2 : 1;
}

__leaves_loops("a run whose other loops go on is ended")
__exception_cb(ended) __retval(42) __released("a") __expires
int go_on(void *ctx)
{
	struct bpf_unwind_object *object;
	__u64 i = 0;
	int j;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_for(j, 0, ROUNDS)
		COUNT_ON(i);
	bpf_unwind_object_release(object);
	return 2;
}
