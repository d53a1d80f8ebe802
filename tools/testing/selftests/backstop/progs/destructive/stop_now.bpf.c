// SPDX-License-Identifier: GPL-2.0
/* Every kfunc that stops the machine at once, from every context. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "contexts.h"
#include "destructive.h"

char LICENSE[] SEC("license") = "GPL";

void bpf_local_irq_save(unsigned long *flags) __ksym;
void bpf_local_irq_restore(unsigned long *flags) __ksym;

IN_EVERY_CONTEXT(panic, bpf_panic, "the selftest says so",
		 record(bpf_panic("the selftest says so")),
		 __ends(panic)
		 __console("Kernel panic - not syncing: {{.*}}the selftest says so"))

IN_EVERY_CONTEXT(crash_dump, bpf_crash_dump, "the selftest wants a dump",
		 record(bpf_crash_dump("the selftest wants a dump")),
		 __ends(crash_dump) __crash_kernel)

IN_EVERY_CONTEXT(halt, bpf_halt, "now", record(bpf_halt(BPF_STOP_NOW)), __ends(halt))

IN_EVERY_CONTEXT(reboot, bpf_reboot, "now", record(bpf_reboot(BPF_STOP_NOW)), __ends(reset))

IN_EVERY_CONTEXT(power_off, bpf_power_off, "now", record(bpf_power_off(BPF_STOP_NOW)),
		 __ends(power_off))

FROM_SOFTIRQ(panic_softirq, bpf_panic, "the selftest says so",
	     record(bpf_panic("the selftest says so")),
	     __ends(panic)
	     __console("Kernel panic - not syncing: {{.*}}the selftest says so"))

FROM_SOFTIRQ(reboot_softirq, bpf_reboot, "now", record(bpf_reboot(BPF_STOP_NOW)),
	     __ends(reset))

/* A run queue is locked and interrupts are off where the scheduler switches tasks. */
#define UNDER_RQ_LOCK(name, kfunc, why, call, tags)				\
	IN_CONTEXT(name, "tp_btf/sched_switch", TASK, __in_task(kfunc, why), call, \
		   __description(#kfunc " with a run queue locked") __event(timer) tags)

UNDER_RQ_LOCK(panic_rq_lock, bpf_panic, "under the lock", record(bpf_panic("under the lock")),
	      __ends(panic))
UNDER_RQ_LOCK(crash_dump_rq_lock, bpf_crash_dump, "under the lock",
	      record(bpf_crash_dump("under the lock")),
	      __ends(crash_dump) __crash_kernel)
UNDER_RQ_LOCK(halt_rq_lock, bpf_halt, "now", record(bpf_halt(BPF_STOP_NOW)), __ends(halt))
UNDER_RQ_LOCK(reboot_rq_lock, bpf_reboot, "now", record(bpf_reboot(BPF_STOP_NOW)),
	      __ends(reset))
UNDER_RQ_LOCK(power_off_rq_lock, bpf_power_off, "now", record(bpf_power_off(BPF_STOP_NOW)),
	      __ends(power_off))

/* The console's thread is printing, and holds the lock of the serial port. */
#define IN_CONSOLE(name, kfunc, why, call, tags)				\
	IN_CONTEXT(name, "fentry/univ8250_console_write_thread", TASK,		\
		   __in_task(kfunc, why), call,					\
		   __description(#kfunc " while the console prints") __event(printk) tags)

IN_CONSOLE(panic_console, bpf_panic, "in mid-line", record(bpf_panic("in mid-line")),
	   __ends(panic))
IN_CONSOLE(crash_dump_console, bpf_crash_dump, "in mid-line",
	   record(bpf_crash_dump("in mid-line")),
	   __ends(crash_dump) __crash_kernel)
IN_CONSOLE(halt_console, bpf_halt, "now", record(bpf_halt(BPF_STOP_NOW)), __ends(halt))
IN_CONSOLE(reboot_console, bpf_reboot, "now", record(bpf_reboot(BPF_STOP_NOW)), __ends(reset))
IN_CONSOLE(power_off_console, bpf_power_off, "now", record(bpf_power_off(BPF_STOP_NOW)),
	   __ends(power_off))

#define IRQS_OFF(name, kfunc, why, call, tags)					\
	SEC("raw_tp/sys_enter")							\
	__description(#kfunc " with interrupts disabled") __in_task(kfunc, why) tags \
	int name(void *ctx)							\
	{									\
		unsigned long flags;						\
										\
		if (take(TASK)) {						\
			bpf_local_irq_save(&flags);				\
			call;							\
			bpf_local_irq_restore(&flags);				\
		}								\
		return 0;							\
	}

IRQS_OFF(panic_irqs_off, bpf_panic, "with interrupts off", record(bpf_panic("with interrupts off")),
	 __ends(panic))
IRQS_OFF(crash_dump_irqs_off, bpf_crash_dump, "with interrupts off",
	 record(bpf_crash_dump("with interrupts off")),
	 __ends(crash_dump) __crash_kernel)
IRQS_OFF(halt_irqs_off, bpf_halt, "now", record(bpf_halt(BPF_STOP_NOW)), __ends(halt))
IRQS_OFF(reboot_irqs_off, bpf_reboot, "now", record(bpf_reboot(BPF_STOP_NOW)), __ends(reset))
IRQS_OFF(power_off_irqs_off, bpf_power_off, "now", record(bpf_power_off(BPF_STOP_NOW)),
	 __ends(power_off))

SEC("raw_tp/sys_enter")
__description("bpf_crash_dump without a crash kernel says so and the machine goes on")
__retval(-2)
int crash_dump_without_kernel(void *ctx)
{
	if (take(TASK))
		record(bpf_crash_dump("there is no crash kernel"));
	return 0;
}

/* -22: EINVAL, and nothing was done, so nothing is said either. */
#define UNKNOWN_HOW(kfunc, name, how)						\
	SEC("raw_tp/sys_enter")							\
	__description(#kfunc "(" #how ") is refused and nothing is done")	\
	__retval(-22) __not_console(#kfunc " by program")			\
	int name(void *ctx)							\
	{									\
		if (take(TASK))							\
			record(kfunc(how));					\
		return 0;							\
	}

UNKNOWN_HOW(bpf_halt, halt_unknown, 2)
UNKNOWN_HOW(bpf_halt, halt_unknown_max, 0xffffffff)
UNKNOWN_HOW(bpf_reboot, reboot_unknown, 2)
UNKNOWN_HOW(bpf_reboot, reboot_unknown_max, 0xffffffff)
UNKNOWN_HOW(bpf_power_off, power_off_unknown, 2)
UNKNOWN_HOW(bpf_power_off, power_off_unknown_max, 0xffffffff)

/* -95: EOPNOTSUPP. Without ACPI and without pvpanic, which QEMU takes for a switch, nothing could. */
#define NO_POWER_OFF(name, how)							\
	SEC("raw_tp/sys_enter")							\
	__description("bpf_power_off(" #how ") is refused where nothing can switch the machine off") \
	__append("acpi=off initcall_blacklist=pvpanic_pci_driver_init")		\
	__retval(-95) __not_console("bpf_power_off by program")			\
	int name(void *ctx)							\
	{									\
		if (take(TASK))							\
			record(bpf_power_off(how));				\
		return 0;							\
	}

NO_POWER_OFF(power_off_unsupported, BPF_STOP_NOW)
NO_POWER_OFF(power_off_unsupported_orderly, BPF_STOP_ORDERLY)
