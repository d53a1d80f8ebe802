// SPDX-License-Identifier: GPL-2.0
/* A program that would freeze the machine, and slow ones; for tests/deadline.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

SEC("raw_tp/sched_switch")
int freeze(void *ctx)
{
	int i, j;

	bpf_for(i, 0, 100000)
		bpf_for(j, 0, 100000)
			sum += one;
	return 0;
}

SEC("tc") __soon
int slow(void *ctx)
{
	take_long();
	return 0;
}

/* As slow as it is told. */
__u32 rounds SEC(".data.rounds");

SEC("tc")
int timed(void *ctx)
{
	int i, j;

	bpf_for(i, 0, rounds)
		bpf_for(j, 0, 1000)
			sum += one;
	return 7;
}
