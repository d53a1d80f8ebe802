// SPDX-License-Identifier: GPL-2.0
/*
 * Programs that throw where they are really attached: in every hook that may call bpf_throw(), and
 * in every context. Each throws from two functions below the main program, and holds something in
 * all of them.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "trigger.h"
#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

/* The event's program returned what its exception callback did. */
__noinline int caught_event(__u64 cookie)
{
	record(settle(cookie));
	return 0;
}

static __noinline int throw_below(int cookie)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('b');
	unsigned long flags;

	if (!object)
		return 0;
	bpf_local_irq_save(&flags);
	if (one)
		bpf_throw(cookie);
	bpf_local_irq_restore(&flags);
	bpf_unwind_object_release(object);
	return 1;
}

static __noinline int throw_between(int cookie)
{
	struct bpf_iter_unwind it;
	int ret;

	bpf_iter_unwind_new(&it, 'i', 1);
	bpf_preempt_disable();
	ret = throw_below(cookie);
	bpf_preempt_enable();
	bpf_iter_unwind_destroy(&it);
	return ret;
}

/* Bytes of the stack decide whether it is private. */
#define THROW_FROM(name, hook, context, what, bytes, tags)			\
	SEC(hook)								\
	__description("a throw from " what " releases what is held")		\
	__exception_cb(caught_event) __retval(42) __released("abi") tags	\
	int from_##name(void *ctx)						\
	{									\
		struct bpf_unwind_object *object;				\
		volatile char used[bytes];					\
										\
		if (!take(context))						\
			return 0;						\
		used[0] = 0;							\
		used[bytes - 1] = 0;						\
		/* Its address has it stay whole. */				\
		asm volatile ("" :: "r"(used));					\
		begin();							\
		object = bpf_unwind_object_acquire('a');			\
		if (!object)							\
			return 0;						\
		throw_between(COOKIE);						\
		bpf_unwind_object_release(object);				\
		return 0;							\
	}

THROW_FROM(raw_tp, "raw_tp/sys_enter", TASK, "a raw tracepoint", 8, __event(syscall))
THROW_FROM(raw_tp_private_stack, "raw_tp/sys_enter", TASK,
	   "a raw tracepoint, on a stack of its own", 200, __event(syscall))
THROW_FROM(tracepoint, "tp/syscalls/sys_enter_getpgid", TASK, "a tracepoint", 8, __event(syscall))
THROW_FROM(tp_btf, "tp_btf/sys_enter", TASK, "a typed tracepoint", 8, __event(syscall))
THROW_FROM(tp_btf_private_stack, "tp_btf/sys_enter", TASK,
	   "a typed tracepoint, on a stack of its own", 200, __event(syscall))
THROW_FROM(kprobe, "kprobe/__x64_sys_getpgid", TASK, "a kprobe", 8, __event(syscall))
THROW_FROM(kprobe_private_stack, "kprobe/__x64_sys_getpgid", TASK,
	   "a kprobe, on a stack of its own", 200, __event(syscall))
THROW_FROM(kretprobe, "kretprobe/__x64_sys_getpgid", TASK, "a kretprobe", 8, __event(syscall))
THROW_FROM(kprobe_multi, "kprobe.multi/__x64_sys_getpgid", TASK, "a probe on many functions", 8,
	   __event(syscall))
THROW_FROM(kretprobe_multi, "kretprobe.multi/__x64_sys_getpgid", TASK,
	   "a probe on the returns of many functions", 8, __event(syscall))
THROW_FROM(kprobe_session, "kprobe.session/__x64_sys_getpgid", TASK,
	   "a probe on calls and returns of many functions", 8, __event(syscall))
THROW_FROM(fentry, "fentry/__x64_sys_getpgid", TASK, "a function's entry", 8, __event(syscall))
THROW_FROM(fentry_private_stack, "fentry/__x64_sys_getpgid", TASK,
	   "a function's entry, on a stack of its own", 200, __event(syscall))
THROW_FROM(fentry_sleepable, "fentry.s/__x64_sys_getpgid", TASK, "a sleepable program", 8,
	   __event(syscall))
THROW_FROM(fexit, "fexit/__x64_sys_getpgid", TASK, "a function's exit", 8, __event(syscall))
THROW_FROM(fsession, "fsession/__x64_sys_getpgid", TASK, "a function's entry or exit", 8,
	   __event(syscall))
THROW_FROM(fmod_ret, "fmod_ret/__x64_sys_getpgid", TASK,
	   "a program that may change a function's result", 8, __event(syscall))
THROW_FROM(lsm, "lsm/task_getpgid", TASK, "a security hook", 8, __event(syscall))
THROW_FROM(lsm_sleepable, "lsm.s/file_open", TASK, "a sleepable security hook", 8,
	   __event(syscall))
THROW_FROM(iter, "iter/task", TASK, "an iterator", 8, __event(iter))
THROW_FROM(iter_sleepable, "iter.s/task", TASK, "a sleepable iterator", 8, __event(iter))
THROW_FROM(perf, "perf_event", HARDIRQ, "a perf event", 8, __event(syscall))
THROW_FROM(perf_private_stack, "perf_event", HARDIRQ,
	   "a perf event, on a stack of its own", 200, __event(syscall))
THROW_FROM(softirq, "tp_btf/softirq_entry", SOFTIRQ, "a soft interrupt", 8, __event(timer))
THROW_FROM(hardirq, "tp_btf/hrtimer_expire_entry", HARDIRQ, "the timer interrupt", 8,
	   __event(timer))
THROW_FROM(rq_lock, "tp_btf/sched_switch", TASK, "where a run queue is locked", 8,
	   __event(timer))
THROW_FROM(nmi, "tp_btf/nmi_handler", NMI, "a non-maskable interrupt", 8, __event(nmi))
THROW_FROM(nmi_private_stack, "tp_btf/nmi_handler", NMI,
	   "a non-maskable interrupt, on a stack of its own", 200, __event(nmi))

/* A hook for which bpf_throw() is not offered. */
#define NO_THROW_FROM(name, hook, what)						\
	SEC(hook)								\
	__description(what " cannot throw")					\
	__event(none) __failure(EACCES)						\
	__msg("calling kernel function bpf_throw is not allowed")		\
	int refuse_##name(void *ctx)						\
	{									\
		bpf_throw(COOKIE);						\
		return 0;							\
	}

NO_THROW_FROM(socket, "socket", "a socket filter")

/* For tests/unwind.rs: what follows is attached to devices, control groups and programs. */

__noinline int caught_pass(__u64 cookie)
{
	record(settle(cookie));
	return 2; /* XDP_PASS */
}

__noinline int caught_allow(__u64 cookie)
{
	record(settle(cookie));
	return 1;
}

#define THROW_ON(name, hook, callback, type, normally)				\
	SEC(hook) __exception_cb(callback)					\
	int name(type *ctx)							\
	{									\
		struct bpf_unwind_object *object;				\
										\
		if (!__sync_bool_compare_and_swap(&trigger.cocked, 1, 0))	\
			return normally;					\
		begin();							\
		object = bpf_unwind_object_acquire('a');			\
		if (!object)							\
			return normally;					\
		throw_between(COOKIE);						\
		bpf_unwind_object_release(object);				\
		return normally;						\
	}

THROW_ON(on_xdp, "xdp", caught_pass, struct xdp_md, XDP_PASS)
THROW_ON(on_tc, "tcx/ingress", caught_event, struct __sk_buff, 0)
THROW_ON(on_cgroup_skb, "cgroup_skb/egress", caught_allow, struct __sk_buff, 1)
THROW_ON(on_uprobe, "uprobe", caught_event, struct pt_regs, 0)
THROW_ON(on_uprobe_sleepable, "uprobe.s", caught_event, struct pt_regs, 0)
THROW_ON(on_uretprobe, "uretprobe", caught_event, struct pt_regs, 0)

/* EPERM of the exception callback becomes the result of the function. */
__noinline int caught_deny(__u64 cookie)
{
	record(settle(cookie));
	return -1;
}

SEC("lsm/task_getpgid") __exception_cb(caught_deny)
int deny(void *ctx)
{
	struct bpf_unwind_object *object;

	if (!take(TASK))
		return 0;
	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	throw_between(COOKIE);
	bpf_unwind_object_release(object);
	return 0;
}
