/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Programs that throw while they hold something, or from a callback. The kernel
 * accepts them if bpf_unwind is there to release what they hold, and refuses
 * them otherwise. exceptions_held.c and exceptions_held_fail.c include them for
 * the one and the other: PROG(name) names a program, __refused(msg) comes with
 * what the verifier says if it refuses it.
 */
#include <vmlinux.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "bpf_misc.h"
#include "bpf_experimental.h"
#include "../test_kmods/bpf_testmod_kfunc.h"

extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern void bpf_preempt_disable(void) __ksym;
extern void bpf_preempt_enable(void) __ksym;
extern void bpf_local_irq_save(unsigned long *) __ksym;
extern void bpf_local_irq_restore(unsigned long *) __ksym;

#define CLOCK_MONOTONIC 1

/* What they throw, but for the callback of a timer: the program returns it. */
#define THROWN 23

#define private(name) SEC(".bss." #name) __hidden __attribute__((aligned(8)))

/* The testmod counts references to ref: whether the object is freed shows there. */
struct foo {
	struct prog_test_ref_kfunc __kptr *ref;
};

struct node {
	struct bpf_rb_node rb;
};

struct hmap_elem {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, int);
	__type(value, struct hmap_elem);
} hmap SEC(".maps");

private(A) struct bpf_spin_lock lock;
private(A) struct bpf_rb_root rbtree __contains(node, rb);

int timer_calls;

static __always_inline struct foo *new_foo(void)
{
	struct prog_test_ref_kfunc *ref;
	unsigned long arg = 0;
	struct foo *f;

	f = bpf_obj_new(typeof(*f));
	if (!f)
		return NULL;
	ref = bpf_kfunc_call_test_acquire(&arg);
	if (!ref) {
		bpf_obj_drop(f);
		return NULL;
	}
	ref = bpf_kptr_xchg(&f->ref, ref);
	if (ref)
		bpf_kfunc_call_test_release(ref);
	return f;
}

__noinline
static int timer_cb(void *map, int *key, struct bpf_timer *timer)
{
	__sync_fetch_and_add(&timer_calls, 1);
	bpf_throw(0);
	return 0;
}

SEC("?tc")
__refused("cannot be called from callback subprog")
int PROG(async_callback_throw)(struct __sk_buff *ctx)
{
	struct hmap_elem init = {}, *elem;
	int key = 0;

	bpf_map_update_elem(&hmap, &key, &init, BPF_ANY);
	elem = bpf_map_lookup_elem(&hmap, &key);
	if (!elem)
		return 1;
	return bpf_timer_init(&elem->timer, &hmap, CLOCK_MONOTONIC) ?:
	       bpf_timer_set_callback(&elem->timer, timer_cb) ?:
	       bpf_timer_start(&elem->timer, 0, 0);
}

__noinline static int subprog_lock(struct __sk_buff *ctx)
{
	volatile int ret = 0;

	bpf_spin_lock(&lock);
	if (ctx->len)
		bpf_throw(THROWN);
	bpf_spin_unlock(&lock);
	return ret;
}

SEC("?tc")
__refused("function calls are not allowed while holding a lock")
int PROG(with_lock)(void *ctx)
{
	bpf_spin_lock(&lock);
	bpf_throw(THROWN);
	return 0;
}

SEC("?tc")
__refused("function calls are not allowed while holding a lock")
int PROG(subprog_with_lock)(void *ctx)
{
	return subprog_lock(ctx);
}

SEC("?tc")
__refused("bpf_throw cannot be used inside bpf_rcu_read_lock-ed region")
int PROG(with_rcu_read_lock)(void *ctx)
{
	bpf_rcu_read_lock();
	bpf_throw(THROWN);
	return 0;
}

__noinline static int throwing_subprog(struct __sk_buff *ctx)
{
	if (ctx->len)
		bpf_throw(THROWN);
	return 0;
}

SEC("?tc")
__refused("bpf_throw cannot be used inside bpf_rcu_read_lock-ed region")
int PROG(subprog_with_rcu_read_lock)(void *ctx)
{
	bpf_rcu_read_lock();
	throwing_subprog(ctx);
	bpf_rcu_read_unlock();
	return 0;
}

static bool rbless(struct bpf_rb_node *n1, const struct bpf_rb_node *n2)
{
	bpf_throw(THROWN);
	return true;
}

/* A node is not compared until there is another one. */
SEC("?tc")
__refused("function calls are not allowed while holding a lock")
int PROG(with_rbtree_add_throw)(void *ctx)
{
	struct node *n;
	int i;

	for (i = 0; i < 2; i++) {
		n = bpf_obj_new(typeof(*n));
		if (!n)
			return 0;
		bpf_spin_lock(&lock);
		bpf_rbtree_add(&rbtree, &n->rb, rbless);
		bpf_spin_unlock(&lock);
	}
	return 0;
}

SEC("?tc")
__refused("Unreleased reference")
int PROG(with_reference)(void *ctx)
{
	struct foo *f;

	f = new_foo();
	if (!f)
		return 0;
	bpf_throw(THROWN);
	return 0;
}

__noinline int global_subprog_may_throw(struct __sk_buff *ctx)
{
	if (ctx->len)
		bpf_throw(THROWN);
	return 0;
}

SEC("?tc")
__refused("Unreleased reference")
int PROG(global_subprog_throw_with_reference)(struct __sk_buff *ctx)
{
	struct foo *f;

	f = new_foo();
	if (!f)
		return 0;
	if (ctx->protocol)
		global_subprog_may_throw(ctx);
	bpf_obj_drop(f);
	return 0;
}

__noinline static int subprog_ref(struct __sk_buff *ctx)
{
	struct foo *f;

	f = new_foo();
	if (!f)
		return 0;
	bpf_throw(THROWN);
	return 0;
}

__noinline static int subprog_cb_ref(u32 i, void *ctx)
{
	bpf_throw(THROWN);
	return 0;
}

SEC("?tc")
__refused("Unreleased reference")
int PROG(with_cb_reference)(void *ctx)
{
	struct foo *f;

	f = new_foo();
	if (!f)
		return 0;
	bpf_loop(5, subprog_cb_ref, NULL, 0);
	bpf_obj_drop(f);
	return 0;
}

SEC("?tc")
__refused("cannot be called from callback")
int PROG(with_cb)(void *ctx)
{
	bpf_loop(5, subprog_cb_ref, NULL, 0);
	return 0;
}

SEC("?tc")
__refused("Unreleased reference")
int PROG(with_subprog_reference)(void *ctx)
{
	return subprog_ref(ctx) + 1;
}

__noinline static int loop_cb1(u32 index, int *ctx)
{
	bpf_throw(THROWN);
	return 0;
}

__noinline static int loop_cb2(u32 index, int *ctx)
{
	bpf_throw(THROWN);
	return 0;
}

SEC("?tc")
__refused("cannot be called from callback")
int PROG(exception_throw_cb)(struct __sk_buff *ctx)
{
	bpf_loop(5, loop_cb1, NULL, 0);
	return 0;
}

SEC("?tc")
__refused("cannot be called from callback")
int PROG(exception_throw_cb_diff)(struct __sk_buff *ctx)
{
	if (ctx->protocol)
		bpf_loop(5, loop_cb1, NULL, 0);
	else
		bpf_loop(5, loop_cb2, NULL, 0);
	return 0;
}

__noinline static int always_throws(void)
{
	bpf_throw(THROWN);
	return 0;
}

__noinline static int rcu_lock_then_throw(void)
{
	bpf_rcu_read_lock();
	bpf_throw(THROWN);
	return 0;
}

SEC("?tc")
__refused("bpf_throw cannot be used inside bpf_rcu_read_lock-ed region")
int PROG(subprog_rcu_lock_throw)(void *ctx)
{
	rcu_lock_then_throw();
	return 0;
}

SEC("?tc")
__refused("bpf_throw cannot be used inside bpf_preempt_disable-ed region")
int PROG(subprog_throw_preempt_lock)(void *ctx)
{
	bpf_preempt_disable();
	always_throws();
	bpf_preempt_enable();
	return 0;
}

SEC("?tc")
__refused("bpf_throw cannot be used inside bpf_local_irq_save-ed region")
int PROG(subprog_throw_irq_lock)(void *ctx)
{
	unsigned long flags;

	bpf_local_irq_save(&flags);
	always_throws();
	bpf_local_irq_restore(&flags);
	return 0;
}

char _license[] SEC("license") = "GPL";
