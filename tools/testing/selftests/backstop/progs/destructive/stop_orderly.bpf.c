// SPDX-License-Identifier: GPL-2.0
/* Stops that ask user space first, and what happens when it is not there. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "contexts.h"
#include "destructive.h"

char LICENSE[] SEC("license") = "GPL";

/*
 * The marked commands say so and ask the first process. Without commands, or when they fail, the
 * kernel calls the notifiers by itself; when they hang, the deadline ends it.
 */
#define ORDERLY(action, kfunc, command, kernel_says, tags)			\
	FROM_RAW_TP(action##_orderly_raw_tp, kfunc, "orderly",			\
		    record(kfunc(BPF_STOP_ORDERLY)),				\
		    __stop_commands(marked) __console(command " was run")	\
		    __console(kernel_says) __retval(0) tags)			\
	FROM_HARDIRQ(action##_orderly_hardirq, kfunc, "orderly",		\
		     record(kfunc(BPF_STOP_ORDERLY)),				\
		     __stop_commands(marked) __console(command " was run")	\
		     __console(kernel_says) __retval(0) tags)			\
	FROM_NMI(action##_orderly_nmi, kfunc, "orderly",			\
		 record(kfunc(BPF_STOP_ORDERLY)),				\
		 __stop_commands(marked) __console(command " was run")		\
		 __console(kernel_says) __retval(0) tags)			\
	FROM_RAW_TP(action##_orderly_missing, kfunc, "orderly",			\
		    record(kfunc(BPF_STOP_ORDERLY)),				\
		    __stop_commands(missing)					\
		    __console(command " failed (-2), running the notifiers")	\
		    __console(kernel_says) __retval(0) tags)			\
	FROM_NMI(action##_orderly_missing_nmi, kfunc, "orderly",		\
		 record(kfunc(BPF_STOP_ORDERLY)),				\
		 __stop_commands(missing)					\
		 __console(command " failed (-2), running the notifiers")	\
		 __console(kernel_says) __retval(0) tags)			\
	FROM_RAW_TP(action##_orderly_failing, kfunc, "orderly",			\
		    record(kfunc(BPF_STOP_ORDERLY)),				\
		    __stop_commands(failing)					\
		    __console(command " failed ({{[1-9][0-9]*}}), running the notifiers") \
		    __console(kernel_says) __retval(0) tags)			\
	FROM_RAW_TP(action##_orderly_hanging, kfunc, "orderly",			\
		    record(kfunc(BPF_STOP_ORDERLY)),				\
		    __stop_commands(hanging) __module_params("orderly_deadline=1") \
		    __console("deadline passed: now")				\
		    __not_console(kernel_says) __retval(0) tags)

ORDERLY(halt, bpf_halt, "/sbin/halt", "reboot: System halted", __ends(halt))
ORDERLY(reboot, bpf_reboot, "/sbin/reboot", "reboot: Restarting system", __ends(reset))
ORDERLY(power_off, bpf_power_off, "/sbin/poweroff", "reboot: Power down", __ends(power_off))

SEC("raw_tp/sys_enter")
__description("what has been ordered is not ordered again")
__in_task(bpf_reboot, "orderly") __stop_commands(marked)
__console("by program \"orderly_twice\" {{.*}}: neither again nor otherwise")
__console("/sbin/reboot was run") __ends(reset)
int orderly_twice(void *ctx)
{
	if (take(TASK)) {
		record(bpf_reboot(BPF_STOP_ORDERLY));
		/* -114: EALREADY */
		if (bpf_reboot(BPF_STOP_ORDERLY) == -114 && bpf_halt(BPF_STOP_ORDERLY) == -114)
			bpf_console_write("neither again nor otherwise");
	}
	return 0;
}

SEC("raw_tp/sys_enter")
__description("a stop at once does not wait for an orderly one")
__in_task(bpf_power_off, "orderly") __stop_commands(hanging)
__console("bpf_reboot by program \"orderly_then_no{{w?}}\"") __ends(reset)
int orderly_then_now(void *ctx)
{
	if (take(TASK)) {
		bpf_power_off(BPF_STOP_ORDERLY);
		record(bpf_reboot(BPF_STOP_NOW));
	}
	return 0;
}
