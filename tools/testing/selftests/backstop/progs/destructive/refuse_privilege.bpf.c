// SPDX-License-Identifier: GPL-2.0
/* Without CAP_SYS_BOOT no destructive kfunc can be called. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "destructive.h"
#include "expect.h"

char LICENSE[] SEC("license") = "GPL";

#define NEEDS_SYS_BOOT(name, kfunc, call)					\
	SEC("raw_tp/sys_enter")							\
	__description(#kfunc " needs CAP_SYS_BOOT")				\
	__event(none) __without_cap(SYS_BOOT) __failure(EACCES)			\
	__msg("destructive kfunc calls require CAP_SYS_BOOT capability")	\
	int refuse_##name##_without_cap(void *ctx)				\
	{									\
		call;								\
		return 0;							\
	}

NEEDS_SYS_BOOT(write, bpf_console_write, bpf_console_write(""))
NEEDS_SYS_BOOT(printk, bpf_console_printk, __u64 arg = 0; bpf_console_printk("", &arg, sizeof(arg)))
NEEDS_SYS_BOOT(crash_dump, bpf_crash_dump, bpf_crash_dump(""))
NEEDS_SYS_BOOT(panic, bpf_panic, bpf_panic(""))
NEEDS_SYS_BOOT(halt, bpf_halt, bpf_halt(BPF_STOP_NOW))
NEEDS_SYS_BOOT(reboot, bpf_reboot, bpf_reboot(BPF_STOP_NOW))
NEEDS_SYS_BOOT(power_off, bpf_power_off, bpf_power_off(BPF_STOP_NOW))
