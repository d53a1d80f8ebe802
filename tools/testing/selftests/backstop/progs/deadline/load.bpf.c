// SPDX-License-Identifier: GPL-2.0
/* A program that a load ends, below one that is busy with it, for tests/deadline.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

__u64 below_runs SEC(".data.below");

__noinline int replaced(struct __sk_buff *skb)
{
	return skb->len;
}

SEC("tc") __soon
int above(struct __sk_buff *skb)
{
	int i;

	bpf_for(i, 0, ROUNDS)
		sum += replaced(skb);
	return 2;
}

/* No packet is that long. */
SEC("freplace/replaced")
int below_loads(struct __sk_buff *skb)
{
	__u64 word;

	below_runs++;
	take_two_ms();
	asm volatile("r6 = %[skb];"
		     "r0 = *(u32 *)skb[0x7fffff];"
		     "%[word] = r0;"
		     : [word] "=r"(word)
		     : [skb] "r"(skb)
		     : "r0", "r1", "r2", "r3", "r4", "r5", "r6");
	return word;
}
