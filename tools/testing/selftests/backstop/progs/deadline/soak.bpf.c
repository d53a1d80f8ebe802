// SPDX-License-Identifier: GPL-2.0
/* Twenty programs that run away now and then, wherever the machine is busy; for --soak. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_deadline_set(__u32 setting, __u64 value) __kfunc_of(bpf_deadline);

/* How often a run was ended, and how often it was not though it should have been. */
struct soak {
	__u64 ended;
	__u64 survived;
} soak SEC(".data.soak");

struct bpf_res_spin_lock lock private(lock);

/* One of so many events makes a program run away. */
#define RARE 64

SEC("tp_btf/bpf_prog_terminate")
int watch(void *ctx)
{
	__sync_fetch_and_add(&soak.ended, 1);
	return 0;
}

/* Sections of 2 ms, and programs that are not stopped however often they are ended. */
SEC("syscall")
int settings(void *ctx)
{
	int err;

	err = bpf_deadline_set(2, 2000);
	err = err ?: bpf_deadline_set(3, 2000);
	return err ?: bpf_deadline_set(4, 1000000);
}

static int count(__u32 i, void *ctx)
{
	sum += i;
	return 0;
}

/* Holds a reference and a lock. */
static __noinline int stay_locked(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);
	__u64 i = 0;
	int rounds;

	if (!object)
		return 0;
	if (!bpf_res_spin_lock(&lock)) {
		bpf_for(rounds, 0, ROUNDS)
			COUNT_ON(i);
		bpf_res_spin_unlock(&lock);
	}
	sum += i;
	bpf_unwind_object_release(object);
	return 0;
}

/* Holds a reference and has interrupts off, in a callback. */
static __noinline int stay_called_back(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);
	unsigned long flags;
	int i;

	if (!object)
		return 0;
	bpf_local_irq_save(&flags);
	bpf_for(i, 0, ROUNDS)
		bpf_loop(ROUNDS, count, NULL, 0);
	bpf_local_irq_restore(&flags);
	bpf_unwind_object_release(object);
	__sync_fetch_and_add(&soak.survived, 1);
	return 0;
}

#define RUN_AWAY(name, hook)							\
	SEC(hook) __deadline_us(2000)						\
	int name##_locked(void *ctx)						\
	{									\
		return bpf_get_prandom_u32() % RARE ? 0 : stay_locked('l');	\
	}									\
	SEC(hook) __deadline_us(2000)						\
	int name##_called_back(void *ctx)					\
	{									\
		return bpf_get_prandom_u32() % RARE ? 0 : stay_called_back('c');	\
	}

RUN_AWAY(sched_switch, "tp_btf/sched_switch")
RUN_AWAY(sched_wakeup, "tp_btf/sched_wakeup")
RUN_AWAY(sys_enter, "tp_btf/sys_enter")
RUN_AWAY(sys_exit, "raw_tp/sys_exit")
RUN_AWAY(hrtimer, "tp_btf/hrtimer_expire_entry")
RUN_AWAY(softirq, "tp_btf/softirq_entry")
RUN_AWAY(kprobe, "kprobe/__x64_sys_getpgid")
RUN_AWAY(fentry, "fentry/__x64_sys_getpgid")
RUN_AWAY(fexit, "fexit/__x64_sys_getpgid")
RUN_AWAY(lsm, "lsm/task_getpgid")
