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

/*
 * Rounds of waiting, each as long as bpf_for() can: long enough for a thread on another CPU to come,
 * though the host be busy, and an end in any case.
 */
#define PATIENCE 16
#define ROUND (8 * 1024 * 1024)

static __always_inline bool take(int side)
{
	__u32 tid = bpf_get_current_pid_tgid();

	return tid && __sync_bool_compare_and_swap(&race.tids[side], tid, 0);
}

static __always_inline bool wait_for(__u32 *word, __u32 value)
{
	int i, j;

	bpf_for(i, 0, PATIENCE) {
		bpf_for(j, 0, ROUND) {
			if (__sync_fetch_and_add(word, 0) == value)
				return true;
		}
	}
	return false;
}

static __always_inline bool meet(void)
{
	__sync_fetch_and_add(&race.arrived, 1);
	return wait_for(&race.arrived, 2);
}

static __always_inline bool meet_stopping(void)
{
	return meet() && wait_for(&race.stopping, 1);
}

/* No other system call of the threads counts: they may make one while they get ready. */
#define LEFT(name, call)							\
	SEC("fentry/__x64_sys_getpgid")						\
	int left_##name(void *ctx)						\
	{									\
		if (take(0) && meet())						\
			call;							\
		return 0;							\
	}

/* At the same moment, or after the left one has begun. */
#define RIGHT(name, call)							\
	SEC("fentry/__x64_sys_getpgid")						\
	int right_##name(void *ctx)						\
	{									\
		if (take(1) && meet())						\
			call;							\
		return 0;							\
	}									\
	SEC("fentry/__x64_sys_getpgid")						\
	int late_##name(void *ctx)						\
	{									\
		if (take(1) && meet_stopping())					\
			call;							\
		return 0;							\
	}

#define BOTH(name, call) LEFT(name, call) RIGHT(name, call)

LEFT(panic, bpf_panic("the left one"))
RIGHT(panic, bpf_panic("the right one"))
LEFT(crash_dump, bpf_crash_dump("the left one"))
BOTH(halt, bpf_halt(BPF_STOP_NOW))
BOTH(reboot, bpf_reboot(BPF_STOP_NOW))
BOTH(power_off, bpf_power_off(BPF_STOP_NOW))

/* Functions that the left one calls when nobody can take the machine from it any more. */
#define STOPPING(name, function)						\
	SEC("fentry/" function)							\
	int stopping_##name(void *ctx)						\
	{									\
		race.stopping = 1;					\
		return 0;							\
	}

STOPPING(panic, "__crash_kexec")
STOPPING(reboot, "emergency_restart")
