// SPDX-License-Identifier: GPL-2.0
/*
 * Programs that run too long where they are really attached, in every context: each is ended in a
 * function below the main program, and holds something in both.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "deadline.h"
#include "trigger.h"

char LICENSE[] SEC("license") = "GPL";

__noinline int ended_event(__u64 cookie)
{
	record(settle(cookie == EXPIRED ? COOKIE : cookie));
	return 0;
}

static __noinline int stay(int n)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('b');
	unsigned long flags;
	int i, j;

	if (!object)
		return 0;
	bpf_local_irq_save(&flags);
	bpf_for(i, 0, ROUNDS)
		bpf_for(j, 0, ROUNDS)
			sum += n;
	bpf_local_irq_restore(&flags);
	bpf_unwind_object_release(object);
	return 1;
}

/* Bytes of the stack decide whether it is private. */
#define END_FROM(name, hook, context, what, bytes, tags)			\
	SEC(hook)								\
	__description("a run in " what " is ended, and what it holds released")	\
	__module(bpf_unwind) __module(bpf_deadline) __exception_cb(ended_event) __soon \
	__retval(42) __released("ab") __expires tags					\
	int from_##name(void *ctx)						\
	{									\
		struct bpf_unwind_object *object;				\
		volatile char used[bytes];					\
										\
		if (!take(context))						\
			return 0;						\
		used[0] = 0;							\
		used[bytes - 1] = 0;						\
		begin();							\
		object = bpf_unwind_object_acquire('a');			\
		if (!object)							\
			return 0;						\
		stay(one);							\
		bpf_unwind_object_release(object);				\
		return used[0];							\
	}

END_FROM(raw_tp, "raw_tp/sys_enter", TASK, "a raw tracepoint", 8, __event(syscall))
END_FROM(raw_tp_private_stack, "raw_tp/sys_enter", TASK,
	 "a raw tracepoint, on a stack of its own", 200, __event(syscall))
END_FROM(tracepoint, "tp/syscalls/sys_enter_getpgid", TASK, "a tracepoint", 8, __event(syscall))
END_FROM(tp_btf, "tp_btf/sys_enter", TASK, "a typed tracepoint", 8, __event(syscall))
END_FROM(kprobe, "kprobe/__x64_sys_getpgid", TASK, "a kprobe", 8, __event(syscall))
END_FROM(kprobe_multi, "kprobe.multi/__x64_sys_getpgid", TASK, "a probe on many functions", 8,
	 __event(syscall))
END_FROM(fentry, "fentry/__x64_sys_getpgid", TASK, "a function's entry", 8, __event(syscall))
END_FROM(fentry_sleepable, "fentry.s/__x64_sys_getpgid", TASK, "a sleepable program", 8,
	 __event(syscall))
END_FROM(fexit, "fexit/__x64_sys_getpgid", TASK, "a function's exit", 8, __event(syscall))
END_FROM(fmod_ret, "fmod_ret/__x64_sys_getpgid", TASK,
	 "a program that may change a function's result", 8, __event(syscall))
END_FROM(lsm, "lsm/task_getpgid", TASK, "a security hook", 8, __event(syscall))
END_FROM(iter, "iter/task", TASK, "an iterator", 8, __event(iter))
END_FROM(perf, "perf_event", HARDIRQ, "a perf event", 8, __event(syscall))
END_FROM(softirq, "tp_btf/softirq_entry", SOFTIRQ, "a soft interrupt", 8, __event(timer))
END_FROM(hardirq, "tp_btf/hrtimer_expire_entry", HARDIRQ, "the timer interrupt", 8,
	 __event(timer))
END_FROM(rq_lock, "tp_btf/sched_switch", TASK, "where a run queue is locked", 8, __event(timer))
END_FROM(nmi, "tp_btf/nmi_handler", NMI, "a non-maskable interrupt", 8, __event(nmi))
END_FROM(nmi_private_stack, "tp_btf/nmi_handler", NMI,
	 "a non-maskable interrupt, on a stack of its own", 200, __event(nmi))
