// SPDX-License-Identifier: GPL-2.0
/* The kfuncs that write to the console and return, from every context and hook. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "contexts.h"
#include "destructive.h"

char LICENSE[] SEC("license") = "GPL";

void bpf_local_irq_save(unsigned long *flags) __ksym;
void bpf_local_irq_restore(unsigned long *flags) __ksym;

static int printk_two(void)
{
	__u64 args[] = { 42, 0xbeef };

	return bpf_console_printk("forty-two is %d and beef %x", args, sizeof(args));
}

IN_EVERY_CONTEXT(write, bpf_console_write, "the selftest was here",
		 record(bpf_console_write("the selftest was here")), __retval(0))

FROM_SOFTIRQ(write_softirq, bpf_console_write, "the selftest was here",
	     record(bpf_console_write("the selftest was here")), __retval(0))

IN_EVERY_CONTEXT(printk, bpf_console_printk, "forty-two is 42 and beef beef",
		 record(printk_two()), __retval(0))

FROM_SOFTIRQ(printk_softirq, bpf_console_printk, "forty-two is 42 and beef beef",
	     record(printk_two()), __retval(0))

IN_CONTEXT(write_rq_lock, "tp_btf/sched_switch", TASK,
	   __in_task(bpf_console_write, "under the lock"),
	   record(bpf_console_write("under the lock")),
	   __description("bpf_console_write with a run queue locked") __event(timer) __retval(0))

IN_CONTEXT(write_console, "fentry/univ8250_console_write_thread", TASK,
	   __in_task(bpf_console_write, "in mid-line"),
	   record(bpf_console_write("in mid-line")),
	   __description("bpf_console_write while the console prints") __event(printk) __retval(0))

FROM_RAW_TP(write_quiet, bpf_console_write, "for all to see",
	    record(bpf_console_write("for all to see")), __quiet __retval(0))

SEC("raw_tp/sys_enter")
__description("bpf_console_write with interrupts disabled")
__in_task(bpf_console_write, "with interrupts off") __retval(0)
int write_irqs_off(void *ctx)
{
	unsigned long flags;

	if (take(TASK)) {
		bpf_local_irq_save(&flags);
		record(bpf_console_write("with interrupts off"));
		bpf_local_irq_restore(&flags);
	}
	return 0;
}

/* Every other hook that may call them. */
#define WRITE_FROM(name, hook, context, where, what, tags)			\
	IN_CONTEXT(name, hook, context, where(bpf_console_write, "from another hook"), \
		   record(bpf_console_write("from another hook")),		\
		   __description("bpf_console_write from " what) __retval(0) tags)

WRITE_FROM(write_tracepoint, "tp/syscalls/sys_enter_getpgid", TASK, __in_task, "a tracepoint",
	   __success)
WRITE_FROM(write_tp_btf, "tp_btf/sys_enter", TASK, __in_task, "a typed tracepoint", __success)
WRITE_FROM(write_fexit, "fexit/__x64_sys_getpgid", TASK, __in_task, "a function's exit", __success)
WRITE_FROM(write_fmod_ret, "fmod_ret/__x64_sys_getpgid", TASK, __in_task,
	   "a program that may change a function's result", __success)
WRITE_FROM(write_kretprobe, "kretprobe/__x64_sys_getpgid", TASK, __in_task, "a kretprobe",
	   __success)
WRITE_FROM(write_kprobe_multi, "kprobe.multi/__x64_sys_getpgid", TASK, __in_task,
	   "a probe on many functions", __success)
WRITE_FROM(write_lsm, "lsm/task_getpgid", TASK, __in_task, "a security hook", __success)
WRITE_FROM(write_lsm_sleepable, "lsm.s/file_open", TASK, __in_task,
	   "a sleepable security hook", __success)
WRITE_FROM(write_fentry_sleepable, "fentry.s/__x64_sys_getpgid", TASK, __in_task,
	   "a sleepable program", __success)
WRITE_FROM(write_iter, "iter/task", TASK, __in_task, "an iterator", __event(iter))
WRITE_FROM(write_perf_event, "perf_event", HARDIRQ, __in_hardirq, "a perf event", __success)

/* Arguments of bpf_console_printk that the verifier lets through. */
#define PRINTK_REFUSED(name, what, fmt, size)					\
	SEC("raw_tp/sys_enter")							\
	__description("bpf_console_printk refuses " what) __retval(-22)		\
	__not_console("bpf_console_printk by program")				\
	int name(void *ctx)							\
	{									\
		__u64 args[2] = {};						\
										\
		if (take(TASK))							\
			record(bpf_console_printk(fmt, args, size));		\
		return 0;							\
	}

PRINTK_REFUSED(printk_unknown_specifier, "a conversion it does not know", "%q", 16)
PRINTK_REFUSED(printk_too_few, "fewer arguments than conversions", "%d %d %d", 16)
PRINTK_REFUSED(printk_odd_size, "arguments that are not whole", "%d", 12)
