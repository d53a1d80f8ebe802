// SPDX-License-Identifier: GPL-2.0
/* A queueing discipline whose operations throw, or take too long; for tests/unwind/qdisc.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "deadline.h"
#include "trigger.h"

char LICENSE[] SEC("license") = "GPL";

void bpf_kfree_skb(struct sk_buff *skb) __ksym;
void bpf_qdisc_skb_drop(struct sk_buff *skb, struct bpf_sk_buff_ptr *to_free_list) __ksym;

#define NET_XMIT_DROP	1

struct packet {
	struct sk_buff __kptr *skb;
};

/* What an operation that threw has the kernel do with the packet: nothing, it is gone. */
__noinline int dropped(__u64 cookie)
{
	record(settle(cookie));
	return NET_XMIT_DROP;
}

SEC("struct_ops") __exception_cb(dropped)
int BPF_PROG(holds_argument, struct sk_buff *skb, struct Qdisc *sch,
	     struct bpf_sk_buff_ptr *to_free)
{
	begin();
	if (take(TASK))
		bpf_throw(COOKIE);
	bpf_qdisc_skb_drop(skb, to_free);
	return NET_XMIT_DROP;
}

/* Released, on one path by hand and on the other by nobody yet. */
SEC("struct_ops") __exception_cb(dropped)
int BPF_PROG(has_dropped, struct sk_buff *skb, struct Qdisc *sch, struct bpf_sk_buff_ptr *to_free)
{
	begin();
	if (sch->limit)
		bpf_qdisc_skb_drop(skb, to_free);
	else
		bpf_kfree_skb(skb);
	if (take(TASK))
		bpf_throw(COOKIE);
	return NET_XMIT_DROP;
}

/* The packet belongs to the object, and goes with that. */
SEC("struct_ops") __exception_cb(dropped)
int BPF_PROG(has_moved, struct sk_buff *skb, struct Qdisc *sch, struct bpf_sk_buff_ptr *to_free)
{
	struct packet *packet;

	begin();
	packet = new(struct packet);
	if (!packet) {
		bpf_qdisc_skb_drop(skb, to_free);
		return NET_XMIT_DROP;
	}
	skb = bpf_kptr_xchg(&packet->skb, skb);
	if (skb)
		bpf_qdisc_skb_drop(skb, to_free);
	if (take(TASK))
		bpf_throw(COOKIE);
	bpf_obj_drop(packet);
	return NET_XMIT_DROP;
}

static __noinline int throw_below(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (!object)
		return 0;
	if (take(TASK))
		bpf_throw(COOKIE);
	bpf_unwind_object_release(object);
	return 1;
}

/* Held by the main program, as something in a function below it is. */
SEC("struct_ops") __exception_cb(dropped)
int BPF_PROG(throws_below, struct sk_buff *skb, struct Qdisc *sch, struct bpf_sk_buff_ptr *to_free)
{
	begin();
	throw_below('a');
	bpf_qdisc_skb_drop(skb, to_free);
	return NET_XMIT_DROP;
}

__noinline int too_late(__u64 cookie)
{
	record(settle(cookie == EXPIRED ? COOKIE : cookie));
	return NET_XMIT_DROP;
}

SEC("struct_ops") __exception_cb(too_late) __soon
int BPF_PROG(takes_long, struct sk_buff *skb, struct Qdisc *sch, struct bpf_sk_buff_ptr *to_free)
{
	begin();
	if (take(TASK))
		take_long();
	bpf_qdisc_skb_drop(skb, to_free);
	return NET_XMIT_DROP;
}

SEC("struct_ops")
struct sk_buff *BPF_PROG(dequeue, struct Qdisc *sch)
{
	return NULL;
}

SEC("struct_ops")
int BPF_PROG(init, struct Qdisc *sch, struct nlattr *opt, struct netlink_ext_ack *extack)
{
	return 0;
}

SEC("struct_ops")
void BPF_PROG(reset, struct Qdisc *sch)
{
}

SEC("struct_ops")
void BPF_PROG(destroy, struct Qdisc *sch)
{
}

#define QDISC(program)							\
	SEC(".struct_ops")						\
	struct Qdisc_ops program##_ops = {				\
		.enqueue = (void *)program,				\
		.dequeue = (void *)dequeue,				\
		.init = (void *)init,					\
		.reset = (void *)reset,					\
		.destroy = (void *)destroy,				\
		.id = #program,						\
	}

QDISC(holds_argument);
QDISC(has_dropped);
QDISC(has_moved);
QDISC(throws_below);
QDISC(takes_long);
