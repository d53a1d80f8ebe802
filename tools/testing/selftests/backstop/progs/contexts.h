/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One test per context that a tracing program can be in.
 *
 * IN_EVERY_CONTEXT(action, kfunc, why, call, tags) makes action_raw_tp,
 * action_kprobe, action_fentry, action_hardirq and action_nmi: tests of the
 * same kfunc, each really attached and really triggered, which do @call.
 * @why is what the attribution line ends with, @tags what else is expected.
 */
#ifndef _BACKSTOP_CONTEXTS_H
#define _BACKSTOP_CONTEXTS_H

#include "expect.h"
#include "trigger.h"

#define __in_task(kfunc, why)		__attributed(kfunc, task, why)
#define __in_softirq(kfunc, why)	__attributed(kfunc, softirq, why) __event(timer)
#define __in_hardirq(kfunc, why)	__attributed(kfunc, hardirq, why) __event(timer)
#define __in_nmi(kfunc, why)		__attributed(kfunc, NMI, why) __event(nmi)

#define IN_CONTEXT(name, hook, context, where, call, tags)			\
	SEC(hook) where tags							\
	int name(void *ctx)							\
	{									\
		if (take(context))						\
			call;							\
		return 0;							\
	}

#define FROM_RAW_TP(name, kfunc, why, call, tags)				\
	IN_CONTEXT(name, "raw_tp/sys_enter", TASK, __in_task(kfunc, why), call,	\
		   __description(#kfunc " from a raw tracepoint") tags)

#define FROM_KPROBE(name, kfunc, why, call, tags)				\
	IN_CONTEXT(name, "kprobe/__x64_sys_getpgid", TASK, __in_task(kfunc, why), call, \
		   __description(#kfunc " from a kprobe") tags)

#define FROM_FENTRY(name, kfunc, why, call, tags)				\
	IN_CONTEXT(name, "fentry/__x64_sys_getpgid", TASK, __in_task(kfunc, why), call, \
		   __description(#kfunc " from a function's entry") tags)

#define FROM_SOFTIRQ(name, kfunc, why, call, tags)				\
	IN_CONTEXT(name, "tp_btf/softirq_entry", SOFTIRQ, __in_softirq(kfunc, why), call, \
		   __description(#kfunc " from a soft interrupt") tags)

#define FROM_HARDIRQ(name, kfunc, why, call, tags)				\
	IN_CONTEXT(name, "tp_btf/hrtimer_expire_entry", HARDIRQ, __in_hardirq(kfunc, why), call, \
		   __description(#kfunc " from the timer interrupt") tags)

#define FROM_NMI(name, kfunc, why, call, tags)					\
	IN_CONTEXT(name, "tp_btf/nmi_handler", NMI, __in_nmi(kfunc, why), call,	\
		   __description(#kfunc " from a non-maskable interrupt") tags)

#define IN_EVERY_CONTEXT(action, kfunc, why, call, tags)			\
	FROM_RAW_TP(action##_raw_tp, kfunc, why, call, tags)			\
	FROM_KPROBE(action##_kprobe, kfunc, why, call, tags)			\
	FROM_FENTRY(action##_fentry, kfunc, why, call, tags)			\
	FROM_HARDIRQ(action##_hardirq, kfunc, why, call, tags)			\
	FROM_NMI(action##_nmi, kfunc, why, call, tags)

#endif /* _BACKSTOP_CONTEXTS_H */
