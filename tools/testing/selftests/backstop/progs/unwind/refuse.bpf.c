// SPDX-License-Identifier: GPL-2.0
/* What a throw cannot release is refused when the program is loaded, by name. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

SEC("syscall")
__description("a type that nothing releases is refused")
__refused("bpf_throw cannot release bpf_unwind_orphan acquired at insn {{[0-9]+}}: there is not exactly one")
int refuse_no_release(void *ctx)
{
	bpf_unwind_orphan_acquire('o');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a type that either of two functions releases is refused")
__refused("bpf_throw cannot release bpf_unwind_twin acquired at insn {{[0-9]+}}: there is not exactly one")
int refuse_two_releases(void *ctx)
{
	bpf_unwind_twin_acquire('t');
	bpf_throw(COOKIE);
	return 0;
}

#define __refused_to_sleep							\
	__refused("bpf_throw cannot release bpf_unwind_sleeper acquired at insn {{[0-9]+}}: its release may sleep")

SEC("tc")
__description("what sleeps when it is released is refused in a program that may not sleep")
__refused_to_sleep
int refuse_sleeper(void *ctx)
{
	bpf_unwind_sleeper_acquire('s');
	bpf_throw(COOKIE);
	return 0;
}

static int throw_with_sleeper(__u32 i, void *ctx)
{
	bpf_unwind_sleeper_acquire('s');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("what sleeps when it is released is refused in a callback in a region outside of it")
__refused_to_sleep
int refuse_sleeper_in_region(void *ctx)
{
	bpf_preempt_disable();
	bpf_loop(1, throw_with_sleeper, NULL, 0);
	bpf_preempt_enable();
	return 0;
}

SEC("syscall")
__description("what sleeps when it is released is released in a callback in no region")
__unwinds("s")
int sleeper_in_callback(void *ctx)
{
	begin();
	bpf_loop(1, throw_with_sleeper, NULL, 0);
	return 0;
}

__noinline int global_throw_with_sleeper(void)
{
	bpf_unwind_sleeper_acquire('s');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("what sleeps when it is released is refused in a global function called in a region")
__refused_to_sleep
int refuse_sleeper_in_global(void *ctx)
{
	bpf_rcu_read_lock();
	global_throw_with_sleeper();
	bpf_rcu_read_unlock();
	return 0;
}

SEC("syscall")
__description("what sleeps when it is released is released in a global function called in no region")
__unwinds("s")
int sleeper_in_global(void *ctx)
{
	begin();
	global_throw_with_sleeper();
	return 0;
}

SEC("syscall")
__description("a type with two releases that is not held at the throw is no obstacle")
__unwinds("ta")
int two_releases_not_held(void *ctx)
{
	struct bpf_unwind_twin *twin;

	begin();
	twin = bpf_unwind_twin_acquire('t');
	if (twin)
		bpf_unwind_twin_release(twin);
	bpf_unwind_object_acquire('a');
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int leave_iterator(void)
{
	struct bpf_iter_unwind it;

	bpf_iter_unwind_new(&it, 'i', 1);
	return one;
}

SEC("syscall")
__description("an iterator in the frame of a function that has returned is refused")
__refused("bpf_throw cannot release bpf_iter_unwind acquired at insn {{[0-9]+}}: the program has overwritten it or left its function")
int refuse_left_iterator(void *ctx)
{
	leave_iterator();
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int leave_irqs(void)
{
	unsigned long flags;

	bpf_local_irq_save(&flags);
	return one;
}

SEC("syscall")
__description("interrupt flags in the frame of a function that has returned are refused")
__refused("bpf_throw cannot release saved IRQ flags acquired at insn {{[0-9]+}}: the program has overwritten it or left its function")
int refuse_left_irqs(void *ctx)
{
	leave_irqs();
	bpf_throw(COOKIE);
	return 0;
}

static int returns_holding(__u32 i, void *ctx)
{
	if (one)
		bpf_throw(COOKIE);
	bpf_unwind_object_acquire('a');
	return 1;
}

SEC("syscall")
__description("a callback that returns and still holds something is refused")
__refused("bpf_throw cannot release bpf_unwind_object acquired at insn {{[0-9]+}}: its callback returns and still holds it")
int refuse_callback_holds(void *ctx)
{
	bpf_loop(2, returns_holding, NULL, 0);
	bpf_throw(COOKIE);
	return 0;
}

static int enters_rcu(__u32 i, void *ctx)
{
	bpf_rcu_read_lock();
	return 1;
}

SEC("syscall")
__description("a callback that returns in a read section is refused")
__refused("callback returns from other RCU or preempt-disabled regions than it entered")
int refuse_callback_region(void *ctx)
{
	bpf_loop(2, enters_rcu, NULL, 0);
	bpf_throw(COOKIE);
	return 0;
}

struct carried {
	struct bpf_unwind_object *object;
};

static int releases_outer(__u32 i, struct carried *carried)
{
	struct bpf_unwind_object *object = carried->object;

	carried->object = NULL;
	if (object)
		bpf_unwind_object_release(object);
	return 1;
}

SEC("syscall")
__description("a callback that releases what its caller acquired is refused")
__refused("bpf_unwind_object acquired at insn {{[0-9]+}} may be held at a throw and is released at insn {{[0-9]+}} across a callback")
int refuse_callback_releases(void *ctx)
{
	struct carried carried = {};

	carried.object = bpf_unwind_object_acquire('a');
	if (!carried.object)
		return 0;
	if (!one)
		bpf_throw(COOKIE);
	bpf_loop(1, releases_outer, &carried, 0);
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int throw_if(int cookie)
{
	if (one)
		bpf_throw(cookie);
	return cookie;
}

__noinline int caught_throws(__u64 cookie)
{
	return throw_if(cookie);
}

SEC("syscall")
__description("an exception callback that throws is refused")
__exception_cb(caught_throws) __event(none) __failure(EINVAL)
__msg("cannot be called from callback subprog")
int refuse_callback_throws(void *ctx)
{
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("more than 64 resources at once are refused")
__exception_cb(caught) __event(none) __failure(E2BIG)
__msg("more than 64 resources may be held at a throw")
int refuse_too_many(void *ctx)
{
	int i;

	for (i = 0; i < 65; i++) {
		barrier_var(i);
		bpf_unwind_object_acquire('a');
	}
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a jump over so much that its target is out of reach with what a throw needs is refused")
__exception_cb(caught) __event(none) __failure(E2BIG)
__msg("the jump of insn {{[0-9]+}} would not reach its target with what a throw needs in between")
__naked int refuse_long_jump(void)
{
	asm volatile ("r6 = %[one] ll;"
		      "r6 = *(u32 *)(r6 + 0);"
		      "if r6 == 0 goto out_%=;"		/* over 32,740 instructions, and may 32,767 */
		      ".rept 32658; r0 = 0; .endr;"
		      ".rept 40; r1 = 0x61; call %[acquire]; .endr;"
		      "r1 = 42;"
		      "call %[throw];"
		      "out_%=: r0 = 0;"
		      "exit;"
		      :: [one] "i"(&one), [acquire] "i"(bpf_unwind_object_acquire),
			 [throw] "i"(bpf_throw)
		      : __clobber_all);
}

static __noinline int called_both_ways(__u32 i, void *ctx)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a');

	if (!object)
		return 1;
	if (one)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("a function that holds something and is both called and called back is refused")
__refused("may throw, or acquires what may be held at a throw, and is both called and called back")
int refuse_called_both_ways(void *ctx)
{
	called_both_ways(1, NULL);
	bpf_loop(2, called_both_ways, NULL, 0);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} jumps SEC(".maps");

static __noinline int throw_holding(struct __sk_buff *skb)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a');

	if (!object)
		return 0;
	if (one)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(object);
	return 1;
}

static __noinline int tail_calls(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 0);
	return throw_holding(skb);
}

SEC("tc")
__description("a function that holds something, called where tail calls are made, is refused")
__refused("may throw, or acquires what may be held at a throw, and is called in a function with tail calls")
int refuse_tail_calls(struct __sk_buff *skb)
{
	return tail_calls(skb);
}

static __noinline int tail_calls_only(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 0);
	return 1;
}

/* Slots are on the stack, of which little may be used below a tail call. */
SEC("tc")
__description("more slots than the stack of a program with tail calls has room for are refused")
__refused("in need of too much stack for a function with tail calls")
int refuse_tail_call_stack(struct __sk_buff *skb)
{
	int i;

	if (!one) {
		for (i = 0; i < 64; i++) {
			barrier_var(i);
			bpf_unwind_object_acquire('a');
		}
		bpf_throw(COOKIE);
	}
	return tail_calls_only(skb);
}
