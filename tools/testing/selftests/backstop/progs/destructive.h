/* SPDX-License-Identifier: GPL-2.0 */
/* The kfuncs of module bpf_destructive. Include after vmlinux.h. */
#ifndef _BACKSTOP_DESTRUCTIVE_H
#define _BACKSTOP_DESTRUCTIVE_H

#include "kfunc.h"

#define __destructive __kfunc_of(bpf_destructive)

enum bpf_stop_how {
	BPF_STOP_NOW = 0,	/* from any context, without notifiers */
	BPF_STOP_ORDERLY = 1,	/* user space and notifiers first */
};

int bpf_console_write(const char *msg__str) __destructive;
int bpf_console_printk(const char *fmt__str, const void *args, __u32 len__sz) __destructive;
int bpf_crash_dump(const char *why__str) __destructive;
int bpf_panic(const char *why__str) __destructive;
int bpf_halt(__u32 how) __destructive;
int bpf_reboot(__u32 how) __destructive;
int bpf_power_off(__u32 how) __destructive;

#endif /* _BACKSTOP_DESTRUCTIVE_H */
