// SPDX-License-Identifier: GPL-2.0
/* Tail calls and deadlines: the frame belongs to the program that was called last. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

SEC("tc") __exception_cb(ended) __soon
int tail_called(struct __sk_buff *skb)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	take_long();
	bpf_unwind_object_release(object);
	return 3;
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
__description("a program that was tail-called is ended")
__ends_late("a") __with(tail_called)
int tail_call(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 0);
	return 1;
}
