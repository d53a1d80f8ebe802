// SPDX-License-Identifier: GPL-2.0
/* A throw from an operation of the kernel that a program implements; for tests/unwind.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "trigger.h"
#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

__noinline int caught_event(__u64 cookie)
{
	record(settle(cookie));
	return 0;
}

static __noinline int throw_below(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (!object)
		return 0;
	bpf_preempt_disable();
	if (one)
		bpf_throw(COOKIE);
	bpf_preempt_enable();
	bpf_unwind_object_release(object);
	return 1;
}

SEC("struct_ops") __exception_cb(caught_event)
void BPF_PROG(cc_init, struct sock *sk)
{
	begin();
	bpf_unwind_object_acquire('a');
	throw_below('b');
	bpf_throw(COOKIE + 1);
}

SEC("struct_ops")
__u32 BPF_PROG(cc_ssthresh, struct sock *sk)
{
	return 2;
}

SEC("struct_ops")
__u32 BPF_PROG(cc_undo_cwnd, struct sock *sk)
{
	return 2;
}

SEC("struct_ops")
void BPF_PROG(cc_cong_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}

SEC(".struct_ops.link")
struct tcp_congestion_ops unwind_cc = {
	.init = (void *)cc_init,
	.ssthresh = (void *)cc_ssthresh,
	.undo_cwnd = (void *)cc_undo_cwnd,
	.cong_avoid = (void *)cc_cong_avoid,
	.name = "bpf_unwind",
};
