// SPDX-License-Identifier: GPL-2.0
/*
 * Runs that are ended by the deadline of their class, and runs that checkpoints leave as they are;
 * for tests/deadline.rs.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"
#include "trigger.h"

char LICENSE[] SEC("license") = "GPL";

SEC("syscall")
int sleepable(void *ctx)
{
	take_long();
	return 0;
}

SEC("fentry/__x64_sys_getpgid")
int task(void *ctx)
{
	if (take(TASK))
		take_long();
	return 0;
}

SEC("syscall")
int atomic(void *ctx)
{
	bpf_preempt_disable();
	take_long();
	bpf_preempt_enable();
	return 0;
}

SEC("syscall")
int irq(void *ctx)
{
	unsigned long flags;

	bpf_local_irq_save(&flags);
	take_long();
	bpf_local_irq_restore(&flags);
	return 0;
}

/* Longer than its class in all, but never for long with interrupts off. */
SEC("syscall") __deadline_us(400000)
int sections(void *ctx)
{
	unsigned long flags;
	int i, j;

	bpf_for(i, 0, ROUNDS) {
		bpf_local_irq_save(&flags);
		sum += one;
		bpf_local_irq_restore(&flags);
		bpf_for(j, 0, 1000)
			sum += one;
	}
	return 0;
}

#define MANY 1000000

/* Not in a register nor on the stack, where the verifier would follow each of them. */
__u64 rounds;

SEC("syscall")
__description("checkpoints leave all registers as they are")
__module(bpf_unwind) __module(bpf_deadline) __event(test_run) __retval(0)
__naked int registers(void)
{
	asm volatile("r9 = %[rounds] ll;"
		     "r9 = *(u64 *)(r9 + 0);"
		     "r0 = 1000;"
		     "r1 = 1001;"
		     "r2 = 1002;"
		     "r3 = 1003;"
		     "r4 = 1004;"
		     "r5 = 1005;"
		     "r6 = 1006;"
		     "r7 = 1007;"
		     "r8 = 1008;"
		     "again_%=: .8byte %[may_goto];"	/* goto wrong */
		     "r9 += 1;"
		     "if r0 != 1000 goto wrong_%=;"
		     "if r1 != 1001 goto wrong_%=;"
		     "if r2 != 1002 goto wrong_%=;"
		     "if r3 != 1003 goto wrong_%=;"
		     "if r4 != 1004 goto wrong_%=;"
		     "if r5 != 1005 goto wrong_%=;"
		     "if r6 != 1006 goto wrong_%=;"
		     "if r7 != 1007 goto wrong_%=;"
		     "if r8 != 1008 goto wrong_%=;"
		     "if r9 < %[many] goto again_%=;"
		     "r0 = 0;"
		     "exit;"
		     "wrong_%=: r0 = r9;"
		     "exit;"
		     :: [may_goto] "i"(0xe5 | 13 << 16), [many] "i"(60000),
			[rounds] "i"(&rounds)
		     : __clobber_all);
}

__u64 indexes;

static int count(__u32 i, void *ctx)
{
	rounds++;
	indexes += i;
	return 0;
}

SEC("syscall")
__description("checkpoints leave what a callback is given as it is")
__module(bpf_unwind) __module(bpf_deadline) __event(test_run) __retval(0)
int arguments(void *ctx)
{
	__u64 n = MANY;

	rounds = 0;
	indexes = 0;
	bpf_loop(n, count, NULL, 0);
	if (rounds != n)
		return 1;
	return indexes == n * (n - 1) / 2 ? 0 : 2;
}
