// SPDX-License-Identifier: GPL-2.0
/*
 * Programs and functions of others on the same stack as one that throws: below it, above it, and
 * trampolines in between. For tests/unwind.rs.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

__u32 bpf_unwind_registers(void) __unwind_test;

/* What the kernel has behind a struct bpf_unwind_object. */
struct bpf_unwind_object___kernel {
	const char *type;
	atomic_t users;
	__u32 label;
} __attribute__((preserve_access_index));

/* How often which one ran. */
struct runs {
	__u64 entered;
	__u64 left;
	__u64 below;
	__u64 changed;	/* registers that did not survive */
};

struct runs runs SEC(".data.runs");

/* Calls a function of the kernel on which programs run, and throws with something held itself. */
SEC("syscall") __exception_cb(caught)
int above(void *ctx)
{
	begin();
	bpf_unwind_object_acquire('m');
	runs.changed |= bpf_unwind_registers();
	bpf_throw(COOKIE);
	return 0;
}

__noinline int caught_below(__u64 cookie)
{
	__sync_fetch_and_add(&runs.below, 1);
	return 0;
}

static __noinline int throw_deep(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);
	struct bpf_iter_unwind it;
	unsigned long flags;

	if (!object)
		return 0;
	bpf_iter_unwind_new(&it, 'i', 3);
	bpf_local_irq_save(&flags);
	if (one)
		bpf_throw(COOKIE);
	bpf_local_irq_restore(&flags);
	bpf_iter_unwind_destroy(&it);
	bpf_unwind_object_release(object);
	return 1;
}

static __noinline int throw_deeper(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);
	int ret;

	if (!object)
		return 0;
	ret = throw_deep(label + 1);
	ret += bpf_unwind_object_label(object);
	bpf_unwind_object_release(object);
	return ret;
}

#define BELOW(name, hook)							\
	SEC(hook) __exception_cb(caught_below)					\
	int below_##name(void *ctx)						\
	{									\
		throw_deeper('a');						\
		return 0;							\
	}

BELOW(fentry, "fentry/bpf_unwind_probe")
BELOW(fexit, "fexit/bpf_unwind_probe")

/* Throws itself whenever an object named 'o' is released, which a throw may be doing. */
SEC("fentry/bpf_unwind_object_release_dtor") __exception_cb(caught_below)
int BPF_PROG(during_release, struct bpf_unwind_object___kernel *object)
{
	if (BPF_CORE_READ(object, label) == 'o')
		throw_deeper('a');
	return 0;
}

SEC("syscall") __exception_cb(caught)
int released_under(void *ctx)
{
	begin();
	bpf_unwind_node_acquire('n');
	bpf_unwind_object_acquire('o');
	bpf_unwind_node_acquire('p');
	bpf_throw(COOKIE);
	return 0;
}

/* A function of a program, for trampolines between the throw and the boundary. */
__noinline int traced(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);
	int ret;

	if (!object)
		return 0;
	ret = throw_deep(label + 1);
	ret += bpf_unwind_object_label(object);
	bpf_unwind_object_release(object);
	return ret;
}

/* The iterator is on the stack of the very function that is traced. */
__noinline int traced_iter(int label)
{
	struct bpf_iter_unwind it;
	unsigned long flags;

	bpf_iter_unwind_new(&it, label, 3);
	bpf_local_irq_save(&flags);
	if (one)
		bpf_throw(COOKIE);
	bpf_local_irq_restore(&flags);
	bpf_iter_unwind_destroy(&it);
	return one;
}

SEC("syscall") __exception_cb(caught)
int trace_target(void *ctx)
{
	int ret;

	begin();
	bpf_preempt_disable();
	ret = traced('a');
	bpf_preempt_enable();
	return ret;
}

SEC("syscall") __exception_cb(caught)
int trace_target_iter(void *ctx)
{
	begin();
	bpf_unwind_object_acquire('a');
	traced_iter('i');
	bpf_throw(COOKIE + 1);
	return 0;
}

SEC("fentry/traced")
int on_entry(void *ctx)
{
	__sync_fetch_and_add(&runs.entered, 1);
	return 0;
}

SEC("fexit/traced")
int on_exit(void *ctx)
{
	/* Writes over what was the stack of the function. */
	volatile __u64 used[60];
	int i;

	for (i = 0; i < 60; i++)
		used[i] = 0x4141414141414141;
	__sync_fetch_and_add(&runs.left, used[59] & 1);
	return 0;
}

/* What replaces a function throws by itself: that ends the replacement, and no more. */
__noinline int replaceable(struct __sk_buff *skb)
{
	return skb->len ? 1 : 2;
}

SEC("tc") __exception_cb(caught)
int replace_target(struct __sk_buff *skb)
{
	int ret;

	begin();
	bpf_unwind_object_acquire('m');
	ret = replaceable(skb);
	barrier_var(ret);
	bpf_unwind_object_acquire('n');
	bpf_throw(ret == 7 ? COOKIE : ret);
	return 0;
}

__noinline int caught_replacement(__u64 cookie)
{
	return cookie == COOKIE ? 7 : 8;
}

SEC("freplace/replaceable") __exception_cb(caught_replacement)
int replacement(struct __sk_buff *skb)
{
	throw_deeper('a');
	return 1;
}

/* Nothing is shared between CPUs but the pool. */
__noinline int caught_concurrent(__u64 cookie)
{
	return cookie;
}

SEC("syscall") __exception_cb(caught_concurrent)
int concurrent(void *ctx)
{
	bpf_unwind_object_acquire('m');
	bpf_rcu_read_lock();
	bpf_preempt_disable();
	throw_deeper('a');
	bpf_throw(COOKIE + 1);
	return 0;
}
