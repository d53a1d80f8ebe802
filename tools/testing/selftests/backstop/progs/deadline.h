/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of deadlines share: loops that take longer than any test, and
 * what programs that are ended are expected to leave. Include after vmlinux.h.
 */
#ifndef _BACKSTOP_DEADLINE_H
#define _BACKSTOP_DEADLINE_H

#include "unwind.h"

/* What an exception callback gets if a run is ended: -ETIMEDOUT, or -ECANCELED if it is stopped. */
#define EXPIRED		((__u64)-110)
#define STOPPED		((__u64)-125)

/* As many rounds as a bpf_for() or bpf_loop() can make: minutes. */
#define ROUNDS		(8 * 1024 * 1024)

__u64 sum;

/* A loop that is ended. */
static __always_inline void take_long(void)
{
	int i, j;

	bpf_for(i, 0, ROUNDS)
		bpf_for(j, 0, ROUNDS)
			sum += one;
}

/* Takes a while, but ends. */
static __always_inline void take_two_ms(void)
{
	__u64 until = bpf_ktime_get_ns() + 2 * 1000 * 1000;
	int i;

	bpf_for(i, 0, ROUNDS) {
		if (bpf_ktime_get_ns() > until)
			break;
	}
}

/* Counts as long as nothing ends it, with no call between the rounds. */
#define COUNT_ON(i)								\
	asm volatile("again_%=: .8byte %[may_goto];"	/* goto out */		\
		     "%[i] += 1;"						\
		     "goto again_%=;"						\
		     "out_%=:"							\
		     : [i] "+r"(i)						\
		     : [may_goto] "i"(0xe5 | 2 << 16))

/* One after the other, with no jump back. */
#define TEN(calls)								\
	do {									\
		calls; calls; calls; calls; calls;				\
		calls; calls; calls; calls; calls;				\
	} while (0)

/* Ends after tens of milliseconds instead of 250. */
#define __deadline_us(n)	__attribute__((btf_decl_tag("deadline_us:" __expect_string(n))))
#define __soon		__deadline_us(30000)

/* The exception callback of programs that are ended. */
__noinline int ended(__u64 cookie)
{
	return settle(cookie == EXPIRED ? COOKIE : cookie);
}

/* A program that is run, is ended, and lets go of these objects, by label. */
#define __ends_late(labels)							\
	__module(bpf_unwind) __module(bpf_deadline) __exception_cb(ended) __soon	\
	__event(test_run) __retval(42) __released(labels) __expires

#endif /* _BACKSTOP_DEADLINE_H */
