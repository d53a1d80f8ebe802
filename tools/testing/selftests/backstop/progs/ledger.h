/* SPDX-License-Identifier: GPL-2.0 */
/* The ledger of module bpf_unwind_test: what became of its counted objects. Include after vmlinux.h. */
#ifndef _BACKSTOP_LEDGER_H
#define _BACKSTOP_LEDGER_H

#include "kfunc.h"

#define __unwind_test	__kfunc_of(bpf_unwind_test)

/* Shared with user space. */
struct bpf_unwind_ledger {
	__u32 live;
	__u32 faults;
	__u32 acquired;
	__u32 released;
	char log[128];
};

void bpf_unwind_ledger(struct bpf_unwind_ledger *ledger) __unwind_test;
void bpf_unwind_reset(void) __unwind_test;

#endif /* _BACKSTOP_LEDGER_H */
