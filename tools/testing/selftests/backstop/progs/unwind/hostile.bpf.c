// SPDX-License-Identifier: GPL-2.0
/* Programs that would make an unwinder release what is not there, if it believed them. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} hash SEC(".maps");

/* The second half of the iterator is a number of the program's own. */
SEC("syscall")
__description("an iterator of which a part is overwritten is refused")
__refused("bpf_throw cannot release bpf_iter_unwind acquired at insn {{[0-9]+}}: the program has overwritten it")
__naked int refuse_iter_overwritten(void)
{
	asm volatile ("r1 = r10;"
		      "r1 += -16;"
		      "r2 = 0x69;"
		      "r3 = 3;"
		      "call %[iter];"
		      "r1 = %[one] ll;"
		      "r1 = *(u32 *)(r1 + 0);"
		      "if r1 == 0 goto destroy_%=;"
		      "r1 = 128;"
		      "*(u64 *)(r10 - 8) = r1;"
		      "r1 = 42;"
		      "call %[throw];"
		      "destroy_%=: r1 = r10;"
		      "r1 += -16;"
		      "call %[destroy];"
		      "r0 = 0;"
		      "exit;"
		      :: [one] "i"(&one), [iter] "i"(bpf_iter_unwind_new),
			 [destroy] "i"(bpf_iter_unwind_destroy), [throw] "i"(bpf_throw)
		      : __clobber_all);
}

static int leaves_outer_rcu(__u32 i, void *ctx)
{
	bpf_rcu_read_unlock();
	if (one)
		bpf_throw(COOKIE);
	bpf_rcu_read_lock();
	return 0;
}

SEC("syscall")
__description("a callback that leaves the read section of its caller is refused")
__refused("callback leaves other RCU or preempt-disabled regions than it entered")
int refuse_leaves_rcu(void *ctx)
{
	bpf_rcu_read_lock();
	bpf_loop(1, leaves_outer_rcu, NULL, 0);
	bpf_rcu_read_unlock();
	return 0;
}

static int swaps_outer_rcu(__u32 i, void *ctx)
{
	bpf_rcu_read_unlock();
	bpf_rcu_read_lock();
	return 0;
}

SEC("syscall")
__description("a callback may leave the read section of its caller where nothing can throw")
__event(test_run) __retval(7)
int swaps_rcu(void *ctx)
{
	__u64 zero = 0;

	asm volatile ("" : "+r"(zero));
	bpf_rcu_read_lock();
	bpf_loop(1, swaps_outer_rcu, NULL, 0);
	bpf_rcu_read_unlock();
	if (zero)
		bpf_throw(1);
	return 7;
}

static int leaves_outer_preempt(__u32 i, void *ctx)
{
	bpf_preempt_enable();
	if (one)
		bpf_throw(COOKIE);
	bpf_preempt_disable();
	return 0;
}

SEC("syscall")
__description("a callback that enables preemption for its caller is refused")
__refused("callback leaves other RCU or preempt-disabled regions than it entered")
int refuse_enables_preempt(void *ctx)
{
	bpf_preempt_disable();
	bpf_loop(1, leaves_outer_preempt, NULL, 0);
	bpf_preempt_enable();
	return 0;
}

/* The callback's own count is the same on both paths to its end, its caller's is not. */
static int enters_if_not_entered(__u32 i, __u64 *entered)
{
	if (*entered == 0)
		bpf_rcu_read_lock();
	return 0;
}

SEC("syscall")
__description("a callback that enters a read section only when its caller has none is refused")
__refused("callback returns from other RCU or preempt-disabled regions than it entered")
int refuse_enters_pruned(void *ctx)
{
	__u64 entered = bpf_get_prandom_u32() & 1;

	if (entered)
		bpf_rcu_read_lock();
	bpf_loop(1, enters_if_not_entered, &entered, 0);
	bpf_throw(COOKIE);
	return 0;
}

static int inner_throws(__u32 i, void *ctx)
{
	if (one)
		bpf_throw(COOKIE);
	return 0;
}

/* It names no function that throws: what it calls back came through memory. */
static long outer_calls_back(void *map, void *key, void *value, void **callback)
{
	bpf_loop(1, *callback, NULL, 0);
	return 0;
}

SEC("syscall")
__description("a callback that came through memory throws")
__unwinds("a")
int callback_through_memory(void *ctx)
{
	struct bpf_unwind_object *object;
	__u64 value = 0;
	__u32 key = 0;
	void *callback;

	begin();
	bpf_map_update_elem(&hash, &key, &value, 0);
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	callback = inner_throws;
	bpf_for_each_map_elem(&hash, outer_calls_back, &callback, 0);
	bpf_unwind_object_release(object);
	return 0;
}

static __noinline int never_called(void)
{
	return bpf_get_prandom_u32();
}

const volatile bool off;

/* The verifier removes a function before the exception callback, whose number changes. */
SEC("syscall")
__description("the exception callback is found although a dead function before it was removed")
__unwinds("a")
int dead_function(void *ctx)
{
	begin();
	bpf_unwind_object_acquire('a');
	if (off)
		never_called();
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int throw_below(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (!object)
		return 0;
	if (one)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(object);
	return 1;
}

SEC("syscall")
__description("functions behind a dead one that was removed are unwound")
__unwinds("ab")
int dead_function_first(void *ctx)
{
	begin();
	if (off)
		never_called();
	bpf_unwind_object_acquire('a');
	throw_below('b');
	bpf_throw(COOKIE + 1);
	return 0;
}

/*
 * The first instruction of a callback with slots is the address of a function that comes earlier.
 * What is inserted before it must not make it the address of the next one, wrong_callback().
 */
int called_right, called_wrong;

static __noinline __attribute__((used)) int right_callback(__u32 i, void *ctx)
{
	called_right++;
	return 0;
}

static __noinline __attribute__((used)) int wrong_callback(__u32 i, void *ctx)
{
	called_wrong++;
	return 0;
}

static __noinline __attribute__((used)) __naked int first_is_address(void)
{
	asm volatile ("r2 = right_callback ll;"
		      "r1 = 1;"
		      "r3 = 0;"
		      "r4 = 0;"
		      "call %[loop];"
		      "r1 = 0x61;"
		      "call %[acquire];"
		      "r1 = 0x62;"
		      "call %[acquire];"
		      "r1 = 42;"
		      "call %[throw];"
		      "r0 = 0;"
		      "exit;"
		      :: [loop] "i"(bpf_loop), [acquire] "i"(bpf_unwind_object_acquire),
			 [throw] "i"(bpf_throw)
		      : __clobber_all);
}

__noinline int caught_right(__u64 cookie)
{
	int right = called_right, wrong = called_wrong;

	called_right = 0;
	called_wrong = 0;
	return right == 1 && !wrong ? settle(cookie) : -500;
}

SEC("syscall")
__description("a callback that begins with the address of another calls that one back")
__exception_cb(caught_right) __event(test_run) __retval(42) __released("ab")
int address_first(void *ctx)
{
	int (*callback)(__u32, void *) = (void *)first_is_address;

	begin();
	if (!one)
		bpf_loop(1, wrong_callback, NULL, 0);
	bpf_loop(1, callback, NULL, 0);
	bpf_throw(COOKIE + 1);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} array SEC(".maps");

/* One lookup in a map of sockets, which takes a reference, or in an array, which does not. */
SEC("tc")
__description("a lookup that acquires on one path only is refused")
__refused("acquired at insn {{[0-9]+}}: the instruction acquires different types on different paths")
__naked int refuse_lookup_of_two_maps(void)
{
	asm volatile ("r1 = 0;"
		      "*(u32 *)(r10 - 4) = r1;"
		      "r2 = r10;"
		      "r2 += -4;"
		      "r1 = %[one] ll;"
		      "r3 = *(u32 *)(r1 + 0);"
		      "r1 = %[sockets] ll;"
		      "if r3 == 0 goto look_up_%=;"
		      "r1 = %[array] ll;"
		      "look_up_%=: call %[lookup];"
		      "r1 = 42;"
		      "call %[throw];"
		      "r0 = 0;"
		      "exit;"
		      :: [one] "i"(&one), [sockets] "i"(&sockets), [array] "i"(&array),
			 [lookup] "i"(bpf_map_lookup_elem), [throw] "i"(bpf_throw)
		      : __clobber_all);
}

static __noinline int both_ways(__u32 i, void *ctx)
{
	if (one)
		bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a function that throws and is both called and called back is refused")
__refused("is both called and called back")
int refuse_both_ways(void *ctx)
{
	bpf_loop(1, both_ways, NULL, 0);
	return both_ways(1, NULL);
}

/* Never called: clang describes a kfunc in BTF only where it is called from C. */
void kfuncs(void)
{
	struct bpf_iter_unwind it;

	bpf_iter_unwind_new(&it, 'i', 3);
	bpf_iter_unwind_destroy(&it);
}
