// SPDX-License-Identifier: GPL-2.0
/* Two CPUs that stop the machine at the same moment; paired by tests/concurrency.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "destructive.h"

char LICENSE[] SEC("license") = "GPL";

/* Shared with user space. */
struct race {
	__u32 tids[2];	/* the threads; each is taken once */
	__u32 arrived;	/* how many of them are here */
	__u32 stopping;	/* the left one is in the midst of stopping the machine */
};

struct race race SEC(".data.race");

/* Long enough for a thread on another CPU to come, and an end in any case. */
#define PATIENCE (8 * 1024 * 1024)

static __always_inline bool take(int side)
{
	__u32 tid = bpf_get_current_pid_tgid();

	return tid && __sync_bool_compare_and_swap(&race.tids[side], tid, 0);
}

static __always_inline bool meet(void)
{
	int i;

	__sync_fetch_and_add(&race.arrived, 1);
	bpf_for(i, 0, PATIENCE) {
		if (__sync_fetch_and_add(&race.arrived, 0) == 2)
			return true;
	}
	return false;
}

static __always_inline bool meet_stopping(void)
{
	int i;

	if (!meet())
		return false;
	bpf_for(i, 0, PATIENCE) {
		if (__sync_fetch_and_add(&race.stopping, 0))
			return true;
	}
	return false;
}

#define LEFT(name, call)							\
	SEC("raw_tp/sys_enter")							\
	int left_##name(void *ctx)						\
	{									\
		if (take(0) && meet())						\
			call;							\
		return 0;							\
	}

/* At the same moment, or after the left one has begun. */
#define RIGHT(name, call)							\
	SEC("raw_tp/sys_enter")							\
	int right_##name(void *ctx)						\
	{									\
		if (take(1) && meet())						\
			call;							\
		return 0;							\
	}									\
	SEC("raw_tp/sys_enter")							\
	int late_##name(void *ctx)						\
	{									\
		if (take(1) && meet_stopping())					\
			call;							\
		return 0;							\
	}

#define BOTH(name, call) LEFT(name, call) RIGHT(name, call)

BOTH(panic, bpf_panic("one of two"))
BOTH(halt, bpf_halt(BPF_STOP_NOW))
BOTH(reboot, bpf_reboot(BPF_STOP_NOW))
BOTH(power_off, bpf_power_off(BPF_STOP_NOW))

/* Where the left one is when it is in the midst of it. */
#define STOPPING(name, function)						\
	SEC("fentry/" function)							\
	int stopping_##name(void *ctx)						\
	{									\
		race.stopping = 1;					\
		return 0;							\
	}

STOPPING(panic, "vpanic")
STOPPING(reboot, "emergency_restart")
