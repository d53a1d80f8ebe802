// SPDX-License-Identifier: GPL-2.0
/* A run that is busy with those of other programs, below it on the stack, for tests/deadline.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

/* Runs of 2 ms each. */
__u64 below_runs SEC(".data.below");

static __always_inline void take_two_ms(void)
{
	__u64 until = bpf_ktime_get_ns() + 2 * 1000 * 1000;
	int i;

	below_runs++;
	bpf_for(i, 0, ROUNDS) {
		if (bpf_ktime_get_ns() > until)
			break;
	}
}

SEC("fentry/bpf_unwind_object_label")
int below_returns(void *ctx)
{
	take_two_ms();
	return 0;
}

SEC("fentry/bpf_unwind_object_label")
int below_throws(void *ctx)
{
	take_two_ms();
	bpf_throw(0);
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
	take_two_ms();
	bpf_tail_call(ctx, &tails, 0);
	return 0;
}

SEC("fentry/bpf_unwind_object_label")
int below_fails_to_tail_call(void *ctx)
{
	bpf_tail_call(ctx, &tails, 1);
	take_two_ms();
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
