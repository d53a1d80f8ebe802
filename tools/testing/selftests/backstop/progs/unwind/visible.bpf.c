// SPDX-License-Identifier: GPL-2.0
/* What user space sees of throws. For tests/unwind/visible.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

/* What the tracepoint says of each part of the throws of one program. */
struct event {
	__u64 cookie;
	__u64 ip;
	__u32 prog;
	__u32 frames;
	__u32 released;
	__u32 resumed;
};

#define EVENTS	4

struct {
	__u64 count;
	struct event events[EVENTS];
} heard SEC(".data.heard");

SEC("tp_btf/bpf_prog_throw")
int BPF_PROG(on_throw, const struct bpf_prog *prog, __u64 cookie, unsigned long ip, __u32 frames,
	     __u32 released, bool resumed)
{
	__u64 i = heard.count++;

	if (i < EVENTS) {
		struct event *event = &heard.events[i];

		event->cookie = cookie;
		event->ip = ip;
		event->prog = prog->aux->id;
		event->frames = frames;
		event->released = released;
		event->resumed = resumed;
	}
	return 0;
}

/* Returns the cookie. */
__noinline int as_thrown(__u64 cookie)
{
	return cookie;
}

static __noinline int thrower(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (one)
		bpf_throw(COOKIE);
	if (object)
		bpf_unwind_object_release(object);
	return 0;
}

/* Holds an object in each of two frames, and a region. */
SEC("syscall") __exception_cb(as_thrown)
int throws(void *ctx)
{
	int ret;

	bpf_unwind_node_acquire('a');
	bpf_rcu_read_lock();
	ret = thrower('b');
	bpf_rcu_read_unlock();
	bpf_throw(COOKIE + 1 + ret);
	return 0;
}

static __noinline int step(__u32 i, void *ctx)
{
	return i == 2 ? thrower('b') : 0;
}

/* Throws in a callback, and holds something outside of it. */
SEC("syscall") __exception_cb(as_thrown)
int throws_in_callback(void *ctx)
{
	bpf_unwind_node_acquire('a');
	bpf_loop(5, step, NULL, 0);
	bpf_throw(COOKIE + 1);
	return 0;
}

/* Without an exception callback of its own. */
SEC("tc")
int throws_plainly(struct __sk_buff *skb)
{
	bpf_throw(COOKIE);
	return 0;
}

SEC("tc") __exception_cb(as_thrown)
int throws_never(struct __sk_buff *skb)
{
	if (!one)
		bpf_throw(COOKIE);
	return COOKIE;
}

/* The kernel's clock, which counts the ticks between reports. */
struct {
	__u64 now;
	__u64 a_second;
} ticks SEC(".data.ticks");

extern int CONFIG_HZ __kconfig;

SEC("syscall")
int tick(void *ctx)
{
	ticks.now = bpf_jiffies64();
	ticks.a_second = CONFIG_HZ;
	return 0;
}
