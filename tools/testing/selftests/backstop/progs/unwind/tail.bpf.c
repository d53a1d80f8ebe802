// SPDX-License-Identifier: GPL-2.0
/* Tail calls and throws: the frame belongs to the program that was called last. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

static __noinline int throw_below(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);
	struct bpf_iter_unwind it;

	if (!object)
		return 0;
	bpf_iter_unwind_new(&it, 'i', 3);
	bpf_preempt_disable();
	if (one)
		bpf_throw(COOKIE);
	bpf_preempt_enable();
	bpf_iter_unwind_destroy(&it);
	bpf_unwind_object_release(object);
	return 1;
}

/* A tail call gives the frame to another program, whose throw ends that one and with it both. */
SEC("tc") __exception_cb(caught)
int tail_called(struct __sk_buff *skb)
{
	begin();
	bpf_unwind_object_acquire('t');
	throw_below('a');
	bpf_throw(COOKIE + 1);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int (void *));
} jumps SEC(".maps") = {
	.values = { [0] = (void *)&tail_called },
};

SEC("tc")
__description("a program that was tail-called throws")
__unwinds("tai") __with(tail_called)
int tail_call(struct __sk_buff *skb)
{
	if (!one)
		bpf_throw(1);
	bpf_tail_call(skb, &jumps, 0);
	return 1;
}

SEC("tc")
__description("a program throws that was tail-called by one that has released what it held")
__unwinds("xtai") __with(tail_called)
int tail_call_released(struct __sk_buff *skb)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('x');

	if (!object)
		return 0;
	if (!one)
		bpf_throw(1);
	bpf_unwind_object_release(object);
	bpf_tail_call(skb, &jumps, 0);
	return 1;
}

static __noinline int tail_call_in_function(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 0);
	return one;
}

SEC("tc")
__description("a program that a function tail-called throws, and the caller of the function goes on")
__exception_cb(caught) __event(test_run) __retval(42) __released("tai") __with(tail_called)
int tail_call_function(struct __sk_buff *skb)
{
	int ret = tail_call_in_function(skb);

	/* What the other program returned. */
	return ret;
}
