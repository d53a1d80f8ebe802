// SPDX-License-Identifier: GPL-2.0
/*
 * Runs that are ended below, above and instead of others; callbacks that are runs of their own.
 * Some are for tests/deadline.rs.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "deadline.h"
#include "trigger.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_wq_init(struct bpf_wq *wq, void *p__const_map, unsigned int flags) __ksym;
int bpf_wq_set_callback(struct bpf_wq *wq, int (*callback_fn)(void *, int *, void *),
			unsigned int flags) __ksym;
int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym;

static __noinline int stay(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (!object)
		return 0;
	take_long();
	bpf_unwind_object_release(object);
	return 1;
}

/* Callbacks of nobody who waits for them. */
struct async {
	struct bpf_timer timer;
	struct bpf_wq wq;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct async);
} async SEC(".maps");

static __always_inline struct async *elem(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&async, &key);
}

static int timer_stays(void *map, __u32 *key, struct bpf_timer *timer)
{
	record(COOKIE);
	stay('a');
	return 0;
}

static int wq_stays(void *map, int *key, void *wq)
{
	record(COOKIE);
	stay('a');
	return 0;
}

SEC("tp_btf/sys_enter")
__description("the callback of a timer is ended")
__module(bpf_unwind) __module(bpf_deadline) __soon
__event(syscall) __retval(42) __released("a") __expires
int timer(void *ctx)
{
	struct async *async_elem;

	if (!take(TASK))
		return 0;
	async_elem = elem();
	if (!async_elem)
		return 0;
	bpf_timer_init(&async_elem->timer, &async, 0);
	bpf_timer_set_callback(&async_elem->timer, timer_stays);
	bpf_timer_start(&async_elem->timer, 0, 0);
	return 0;
}

SEC("tp_btf/sys_enter")
__description("the callback of a work queue is ended")
__module(bpf_unwind) __module(bpf_deadline) __soon
__event(syscall) __retval(42) __released("a") __expires
int wq(void *ctx)
{
	struct async *async_elem;

	if (!take(TASK))
		return 0;
	async_elem = elem();
	if (!async_elem)
		return 0;
	bpf_wq_init(&async_elem->wq, &async, 0);
	bpf_wq_set_callback(&async_elem->wq, wq_stays, 0);
	bpf_wq_start(&async_elem->wq, 0);
	return 0;
}

/* What replaces a function is ended by itself, and the function's caller goes on. */
__noinline int replaceable(struct __sk_buff *skb)
{
	return skb->len ? 1 : 2;
}

SEC("tc")
int replace_target(struct __sk_buff *skb)
{
	int ret = replaceable(skb);

	barrier_var(ret);
	return ret + 40;
}

SEC("freplace/replaceable") __soon
int replacement(struct __sk_buff *skb)
{
	stay('a');
	return 7;
}

SEC("freplace/replace_target") __soon
int replacement_of_main(struct __sk_buff *skb)
{
	stay('a');
	return 7;
}

/* As many arguments as there can be, each of which arrives. */
__noinline int replaceable_sum(int a, int b, int c, int d, int e)
{
	return a + b + c + d + e;
}

SEC("tc")
int sum_target(struct __sk_buff *skb)
{
	int ret = replaceable_sum(one, 2 * one, 3 * one, 4 * one, 5 * one);

	barrier_var(ret);
	return ret;
}

SEC("freplace/replaceable_sum")
int replacement_of_sum(int a, int b, int c, int d, int e)
{
	int i;

	bpf_for(i, 0, one)
		sum += i;
	return a + 10 * b + 100 * c + 1000 * d + 10000 * e;
}

/* On the entry of a function that the one above calls. */
SEC("fentry/bpf_unwind_object_label") __soon
int below(void *ctx)
{
	stay('b');
	return 0;
}

SEC("tc")
int above(void *ctx)
{
	struct bpf_unwind_object *object;
	int ret;

	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	ret = bpf_unwind_object_label(object) == 'a' ? COOKIE : 2;
	bpf_unwind_object_release(object);
	return ret;
}

SEC("syscall") __soon
int concurrent(void *ctx)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('c');

	if (!object)
		return 1;
	stay('d');
	bpf_unwind_object_release(object);
	return 2;
}
