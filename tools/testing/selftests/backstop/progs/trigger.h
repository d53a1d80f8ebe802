/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The trigger that user space cocks when everything is attached, and the
 * contexts a program can be in when it goes off. Include after vmlinux.h.
 */
#ifndef _BACKSTOP_TRIGGER_H
#define _BACKSTOP_TRIGGER_H

#include <bpf/bpf_helpers.h>

/* Where the kernel is, from the least to the most restricted. */
enum context {
	TASK,
	SOFTIRQ,
	HARDIRQ,
	NMI,
};

/* Shared with user space, see trigger.rs. */
struct trigger {
	__u32 cocked;	/* set by user space, cleared by the event that takes it */
	__u32 tgid;	/* whose events are taken in task context; 0: anyone's */
	__u32 fired;	/* set after the call returned */
	__s32 retval;	/* and what it returned */
};

struct trigger trigger SEC(".data.trigger");

extern const unsigned long __preempt_count __ksym;

/* As in_nmi(), in_hardirq() and in_serving_softirq() of linux/preempt.h have it on x86. */
static __always_inline enum context context_now(void)
{
	unsigned long count = *(const unsigned long *)bpf_this_cpu_ptr(&__preempt_count);

	if (count & 0xf0000000)
		return NMI;
	if (count & 0x0f000000)
		return HARDIRQ;
	if (count & 0x00000100)
		return SOFTIRQ;
	return TASK;
}

/* Whether this event is the one: the right context, the right process, the first. */
static __always_inline bool take(enum context context)
{
	if (context_now() != context)
		return false;
	if (context == TASK && trigger.tgid &&
	    trigger.tgid != bpf_get_current_pid_tgid() >> 32)
		return false;
	return __sync_bool_compare_and_swap(&trigger.cocked, 1, 0);
}

static __always_inline void record(int retval)
{
	trigger.retval = retval;
	trigger.fired = 1;
}

#endif /* _BACKSTOP_TRIGGER_H */
