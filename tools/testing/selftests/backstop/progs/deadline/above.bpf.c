// SPDX-License-Identifier: GPL-2.0
/* A run that is busy with those of other programs, below it on the stack, for tests/deadline.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

/* Runs below. */
__u64 below_runs SEC(".data.below");

SEC("fentry/bpf_unwind_object_label")
int below_returns(void *ctx)
{
	below_runs++;
	take_two_ms();
	return 0;
}

SEC("fentry/bpf_unwind_object_label")
int below_throws(void *ctx)
{
	below_runs++;
	take_two_ms();
	bpf_throw(0);
	return 0;
}

/* 2 ms, too, and not so many checkpoints that one of them looks. */
SEC("fentry/bpf_unwind_object_label")
int below_is_slow(void *ctx)
{
	int i;

	below_runs++;
	bpf_for(i, 0, 40)
		bpf_unwind_delay(50);
	return 0;
}

static __noinline int count(void)
{
	int i;

	bpf_for(i, 0, 1000)
		sum += one;
	return 0;
}

__noinline int count_on(__u64 cookie)
{
	count();
	return 0;
}

SEC("fentry/bpf_unwind_object_label") __exception_cb(count_on)
int below_throws_and_counts(void *ctx)
{
	below_runs++;
	take_two_ms();
	bpf_throw(0);
	return 0;
}

/* Leaves as soon as what is below it has returned. */
SEC("fentry/bpf_unwind_object_label")
int middle(void *ctx)
{
	int i;

	bpf_for(i, 0, one)
		sum += one;
	bpf_unwind_delay(0);
	return 0;
}

SEC("fentry/bpf_unwind_delay")
int below_middle(void *ctx)
{
	below_runs++;
	take_two_ms();
	return 0;
}

SEC("fentry/bpf_unwind_object_label")
int tail(void *ctx)
{
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int (void *));
} tails SEC(".maps") = {
	.values = { (void *)&tail },
};

SEC("fentry/bpf_unwind_object_label")
int below_tail_calls(void *ctx)
{
	below_runs++;
	take_two_ms();
	bpf_tail_call(ctx, &tails, 0);
	return 0;
}

SEC("fentry/bpf_unwind_object_label")
int below_fails_to_tail_call(void *ctx)
{
	bpf_tail_call(ctx, &tails, 1);
	below_runs++;
	take_two_ms();
	return 0;
}

extern const int bpf_checkpoint_fuel __ksym;
int bpf_prog_stop(__u32 id, __u32 stop) __kfunc_of(bpf_deadline);

struct {
	__u64 id;	/* of a program that can be stopped */
	__u64 ready;
	__u64 done;
} kick SEC(".data.kick");

/* Every CPU has to ask at its next checkpoint. */
SEC("syscall")
int kicks(void *ctx)
{
	return bpf_prog_stop(kick.id, 1);
}

#define DELAY_UNLESS_KICKED							\
	do {									\
		if (*(int *)bpf_this_cpu_ptr(&bpf_checkpoint_fuel) < -(1 << 20)) {	\
			kick.done = 1;						\
			return;							\
		}								\
		bpf_unwind_delay(1000);						\
	} while (0)

/*
 * The run has been looked at, and is not again until it ends, after half a second at
 * most: with more calls, these would have checkpoints.
 */
static __always_inline void be_kicked(void)
{
	int i;

	if (below_runs++)
		return;
	bpf_for(i, 0, 10000)
		sum += one;
	kick.ready = 1;
	TEN(TEN(DELAY_UNLESS_KICKED; DELAY_UNLESS_KICKED; DELAY_UNLESS_KICKED; DELAY_UNLESS_KICKED));
}

SEC("fentry/bpf_unwind_object_label")
int below_is_kicked(void *ctx)
{
	be_kicked();
	return 0;
}

SEC("fentry/bpf_unwind_object_label")
int below_is_kicked_and_throws(void *ctx)
{
	be_kicked();
	bpf_throw(0);
	return 0;
}

SEC("tc") __soon
int above(void *ctx)
{
	struct bpf_unwind_object *object;
	int i;

	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_for(i, 0, ROUNDS)
		bpf_unwind_object_label(object);
	bpf_unwind_object_release(object);
	return 2;
}
