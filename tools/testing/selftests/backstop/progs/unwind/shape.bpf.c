// SPDX-License-Identifier: GPL-2.0
/* Where a program can have its references when it throws: every one is released, once. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

SEC("syscall")
__description("a reference in no register but a caller-saved one is released")
__unwinds("a")
int register_caller_saved(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (object)
		bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("references in r6 to r9 are released")
__unwinds("abcd")
__naked int registers_callee_saved(void)
{
	asm volatile ("r1 = %[before] ll;"
		      "call %[cpu];"
		      "r1 = 0x61;"
		      "call %[acquire];"
		      "if r0 == 0 goto out_%=;"
		      "r6 = r0;"
		      "r1 = 0x62;"
		      "call %[acquire];"
		      "if r0 == 0 goto put6_%=;"
		      "r7 = r0;"
		      "r1 = 0x63;"
		      "call %[acquire];"
		      "if r0 == 0 goto put7_%=;"
		      "r8 = r0;"
		      "r1 = 0x64;"
		      "call %[acquire];"
		      "if r0 == 0 goto put8_%=;"
		      "r9 = r0;"
		      "r1 = 42;"
		      "call %[throw];"
		      "r1 = r9;"
		      "call %[release];"
		      "put8_%=: r1 = r8;"
		      "call %[release];"
		      "put7_%=: r1 = r7;"
		      "call %[release];"
		      "put6_%=: r1 = r6;"
		      "call %[release];"
		      "out_%=: r0 = 0;"
		      "exit;"
		      :: [before] "i"(&before), [cpu] "i"(bpf_unwind_cpu),
			 [acquire] "i"(bpf_unwind_object_acquire),
			 [release] "i"(bpf_unwind_object_release), [throw] "i"(bpf_throw)
		      : __clobber_all);
}

SEC("syscall")
__description("references on the stack only are released")
__unwinds("abcdef")
int spilled(void *ctx)
{
	struct bpf_unwind_object *a, *b, *c, *d, *e, *f;

	begin();
	a = bpf_unwind_object_acquire('a');
	b = bpf_unwind_object_acquire('b');
	c = bpf_unwind_object_acquire('c');
	d = bpf_unwind_object_acquire('d');
	e = bpf_unwind_object_acquire('e');
	f = bpf_unwind_object_acquire('f');
	if (one)
		bpf_throw(COOKIE);
	if (a)
		bpf_unwind_object_release(a);
	if (b)
		bpf_unwind_object_release(b);
	if (c)
		bpf_unwind_object_release(c);
	if (d)
		bpf_unwind_object_release(d);
	if (e)
		bpf_unwind_object_release(e);
	if (f)
		bpf_unwind_object_release(f);
	return 0;
}

SEC("syscall")
__description("a reference that the program no longer has anywhere is released")
__unwinds("a")
int nowhere(void *ctx)
{
	begin();
	bpf_unwind_object_acquire('a');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("an untested pointer that is NULL is not released")
__unwinds("")
int null_untested(void *ctx)
{
	begin();
	bpf_unwind_object_acquire(0);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("of two references, one of which is NULL, the other is released")
__unwinds("b")
int null_first(void *ctx)
{
	begin();
	bpf_unwind_object_acquire(one - 1);
	bpf_unwind_object_acquire('b');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a reference that the path at hand did not acquire is not released")
__unwinds("")
int null_on_path(void *ctx)
{
	struct bpf_unwind_object *object = NULL;

	begin();
	if (!one)
		object = bpf_unwind_object_acquire('a');
	barrier_var(object);
	if (one)
		bpf_throw(COOKIE);
	if (object)
		bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("a reference that the path at hand acquired is released, where another has NULL")
__unwinds("a")
int not_null_on_path(void *ctx)
{
	struct bpf_unwind_object *object = NULL;

	begin();
	if (one)
		object = bpf_unwind_object_acquire('a');
	barrier_var(object);
	if (one)
		bpf_throw(COOKIE);
	if (object)
		bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("what was released before the throw is not released again")
__unwinds("ab")
int released_before(void *ctx)
{
	struct bpf_unwind_object *a, *b;

	begin();
	a = bpf_unwind_object_acquire('a');
	b = bpf_unwind_object_acquire('b');
	if (a)
		bpf_unwind_object_release(a);
	if (b)
		bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("what was released on the path at hand only is not released again")
__unwinds("a")
int released_on_path(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	if (one)
		bpf_unwind_object_release(object);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("what was released on another path only is released")
__unwinds("a")
int released_on_other_path(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	if (!one)
		bpf_unwind_object_release(object);
	bpf_throw(COOKIE);
	return 0;
}

static __noinline struct bpf_unwind_object *acquired_in_callee(int label)
{
	return bpf_unwind_object_acquire(label);
}

SEC("syscall")
__description("a reference that a callee returned is released")
__unwinds("a")
int callee_returns(void *ctx)
{
	begin();
	if (acquired_in_callee('a'))
		bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("two references that the same instruction of a callee acquired are released")
__unwinds("ab")
int callee_returns_twice(void *ctx)
{
	struct bpf_unwind_object *a, *b;

	begin();
	a = acquired_in_callee('a');
	b = acquired_in_callee('b');
	if (one)
		bpf_throw(COOKIE);
	if (a)
		bpf_unwind_object_release(a);
	if (b)
		bpf_unwind_object_release(b);
	return 0;
}

SEC("syscall")
__description("of two references of one instruction, the one that is still held is released")
__unwinds("ab")
int callee_returns_twice_first_released(void *ctx)
{
	struct bpf_unwind_object *a, *b;

	begin();
	a = acquired_in_callee('a');
	b = acquired_in_callee('b');
	if (a)
		bpf_unwind_object_release(a);
	if (b)
		bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a slot that became free takes the next reference of the same instruction")
__unwinds("abc")
int callee_returns_thrice_first_released(void *ctx)
{
	struct bpf_unwind_object *a, *b, *c;

	begin();
	a = acquired_in_callee('a');
	b = acquired_in_callee('b');
	if (a)
		bpf_unwind_object_release(a);
	c = acquired_in_callee('c');
	if (one)
		bpf_throw(COOKIE);
	if (b)
		bpf_unwind_object_release(b);
	if (c)
		bpf_unwind_object_release(c);
	return 0;
}

static __noinline int release_if(struct bpf_unwind_object *object, int really)
{
	if (really) {
		bpf_unwind_object_release(object);
		return 1;
	}
	return 0;
}

SEC("syscall")
__description("what a callee released on the path at hand is not released again")
__unwinds("a")
int callee_releases(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	release_if(object, one);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("what a callee released on another path only is released")
__unwinds("a")
int callee_releases_on_other_path(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	release_if(object, !one);
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int throw_holding(struct bpf_unwind_object *object, int really)
{
	if (really)
		bpf_throw(COOKIE);
	return bpf_unwind_object_label(object);
}

SEC("syscall")
__description("a reference that the caller of the throwing function holds is released")
__unwinds("a")
int held_by_caller(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	throw_holding(object, one);
	bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("references that one instruction acquired in turn, into an array, are released")
__unwinds("abcd")
int array(void *ctx)
{
	struct bpf_unwind_object *objects[4] = {};
	int i;

	begin();
	for (i = 0; i < 4; i++) {
		barrier_var(i);
		objects[i] = bpf_unwind_object_acquire('a' + i);
	}
	if (one)
		bpf_throw(COOKIE);
	for (i = 0; i < 4; i++) {
		barrier_var(i);
		if (objects[i])
			bpf_unwind_object_release(objects[i]);
	}
	return 0;
}

SEC("syscall")
__description("a throw amid a loop releases what its earlier rounds acquired")
__unwinds("ab")
int array_partly(void *ctx)
{
	struct bpf_unwind_object *objects[4] = {};
	int i;

	begin();
	for (i = 0; i < 4; i++) {
		barrier_var(i);
		if (i == 1 + one)
			bpf_throw(COOKIE);
		objects[i] = bpf_unwind_object_acquire('a' + i);
	}
	for (i = 0; i < 4; i++) {
		barrier_var(i);
		if (objects[i])
			bpf_unwind_object_release(objects[i]);
	}
	return 0;
}

SEC("syscall")
__description("a reference acquired and released in each round of a loop is released once a round")
__unwinds("aab")
int loop_balanced(void *ctx)
{
	struct bpf_unwind_object *object;
	int i;

	begin();
	bpf_for(i, 0, 5) {
		object = bpf_unwind_object_acquire(i == 1 + one ? 'b' : 'a');
		if (!object)
			break;
		if (i == 1 + one)
			bpf_throw(COOKIE);
		bpf_unwind_object_release(object);
	}
	return 0;
}

SEC("syscall")
__description("copies of one reference are one release")
__unwinds("a")
int copies(void *ctx)
{
	struct bpf_unwind_object *object, *volatile copy[3];

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	copy[0] = object;
	copy[1] = object;
	copy[2] = object;
	if (one)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(copy[2]);
	return 0;
}

SEC("syscall")
__description("two references to one object are two releases")
__unwinds("aa")
int same_object_twice(void *ctx)
{
	struct bpf_unwind_object *object, *again;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	again = bpf_unwind_object_get(object);
	if (one)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(again);
	bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("of two references to one object by one instruction, one of which is released, one is")
__unwinds("aaa")
int same_object_thrice(void *ctx)
{
	struct bpf_unwind_object *object, *again[2];
	int i;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	for (i = 0; i < 2; i++) {
		barrier_var(i);
		again[i] = bpf_unwind_object_get(object);
	}
	bpf_unwind_object_release(again[0]);
	if (one)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(again[1]);
	bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("a type without destructor is released by the one kfunc that does")
__unwinds("n")
int by_kfunc(void *ctx)
{
	begin();
	bpf_unwind_node_acquire('n');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("references of two types are each released by their own function")
__unwinds("abno")
int two_types(void *ctx)
{
	begin();
	bpf_unwind_object_acquire('a');
	bpf_unwind_node_acquire('n');
	bpf_unwind_object_acquire('b');
	bpf_unwind_node_acquire('o');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a reference that is the number 1 or 2 is released")
__unwinds("12")
int tickets(void *ctx)
{
	begin();
	bpf_unwind_ticket_acquire(0);
	bpf_unwind_ticket_acquire(1);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("sixty-four references at once are released")
__unwinds("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
int sixty_four(void *ctx)
{
	int i;

	begin();
	for (i = 0; i < 64; i++) {
		barrier_var(i);
		bpf_unwind_object_acquire('a');
	}
	bpf_throw(COOKIE);
	return 0;
}

/* Each frame holds one object and has another number of registers and bytes in use. */
#define FRAME(kind, linkage, n, call)						\
	linkage __noinline int kind##_##n(int cookie)				\
	{									\
		struct bpf_unwind_object *object;				\
		volatile char bytes[8 * (n)];					\
		int ret;							\
										\
		bytes[0] = cookie;						\
		object = bpf_unwind_object_acquire('0' + (n));		\
		if (!object)							\
			return 0;						\
		ret = call;							\
		ret += bytes[0] + bpf_unwind_object_label(object);		\
		bpf_unwind_object_release(object);				\
		return ret;							\
	}

#define FRAMES(kind, linkage)							\
	linkage __noinline int kind##_0(int cookie)				\
	{									\
		if (one)							\
			bpf_throw(cookie);					\
		return cookie;							\
	}									\
	FRAME(kind, linkage, 1, kind##_0(cookie))				\
	FRAME(kind, linkage, 2, kind##_1(cookie))				\
	FRAME(kind, linkage, 3, kind##_2(cookie))				\
	FRAME(kind, linkage, 4, kind##_3(cookie))				\
	FRAME(kind, linkage, 5, kind##_4(cookie))				\
	FRAME(kind, linkage, 6, kind##_5(cookie))

FRAMES(deep_static, static)
FRAMES(deep_global,)

/* Main program, n functions that hold something and one that throws. */
#define DEEP(kind, n, labels)							\
	SEC("syscall")								\
	__description("a throw from beneath " #n " " #kind " functions releases what each holds") \
	__unwinds(labels)							\
	int frames_##kind##_##n(void *ctx)					\
	{									\
		struct bpf_unwind_object *object;				\
		int ret;							\
										\
		begin();							\
		object = bpf_unwind_object_acquire('m');			\
		if (!object)							\
			return 0;						\
		ret = deep_##kind##_##n(one ? COOKIE : 0);			\
		bpf_unwind_object_release(object);				\
		return ret;							\
	}

DEEP(static, 0, "m")
DEEP(static, 1, "m1")
DEEP(static, 2, "m12")
DEEP(static, 3, "m123")
DEEP(static, 4, "m1234")
DEEP(static, 5, "m12345")
DEEP(static, 6, "m123456")
DEEP(global, 0, "m")
DEEP(global, 1, "m1")
DEEP(global, 2, "m12")
DEEP(global, 3, "m123")
DEEP(global, 4, "m1234")
DEEP(global, 5, "m12345")
DEEP(global, 6, "m123456")

static __noinline int mixed_static(int cookie)
{
	struct bpf_unwind_node *node;
	int ret;

	node = bpf_unwind_node_acquire('s');
	if (!node)
		return 0;
	ret = deep_global_2(cookie);
	bpf_unwind_node_release(node);
	return ret;
}

__noinline int mixed_global(int cookie)
{
	struct bpf_unwind_node *node;
	int ret;

	node = bpf_unwind_node_acquire('g');
	if (!node)
		return 0;
	ret = mixed_static(cookie);
	bpf_unwind_node_release(node);
	return ret;
}

SEC("syscall")
__description("a throw through static and global functions in turn releases what each holds")
__unwinds("12gs")
int frames_mixed(void *ctx)
{
	begin();
	return mixed_global(one ? COOKIE : 0);
}

SEC("syscall")
__description("a function that holds something and did not throw leaves nothing to release")
__unwinds("1a")
int frames_returned(void *ctx)
{
	begin();
	one = 0;
	deep_static_1(COOKIE);
	one = 1;
	bpf_unwind_object_acquire('a');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a program that could throw and does not returns as it would")
__event(test_run) __retval(7) __released("a") __exception_cb(caught)
int no_throw(void *ctx)
{
	struct bpf_unwind_object *object;

	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	if (!one)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(object);
	return 7;
}

SEC("syscall")
__description("without an exception callback the program returns the cookie")
__event(test_run) __retval(42) __released("a")
int default_callback(void *ctx)
{
	bpf_unwind_object_acquire('a');
	bpf_throw(COOKIE);
	return 0;
}

__noinline int acquires(__u64 cookie)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('x');

	if (object)
		bpf_unwind_object_release(object);
	return settle(cookie);
}

SEC("syscall")
__description("an exception callback may acquire and release, after all else is released")
__exception_cb(acquires) __event(test_run) __retval(42) __released("ax") __in_order
int callback_acquires(void *ctx)
{
	begin();
	bpf_unwind_object_acquire('a');
	bpf_throw(COOKIE);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct keeper {
		struct bpf_unwind_object __kptr *object;
	});
} keeper SEC(".maps");

/* The map keeps it until the second run, which gets it out and throws. */
SEC("syscall")
__description("what was moved into a map is not released by the throw, what came out is")
__unwinds("a")
int moved_into_map(void *ctx)
{
	struct bpf_unwind_object *object;
	struct keeper *value;
	__u32 key = 0;

	begin();
	value = bpf_map_lookup_elem(&keeper, &key);
	if (!value)
		return 0;
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	object = bpf_kptr_xchg(&value->object, object);
	if (one)
		bpf_throw(COOKIE);
	if (object)
		bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("the same where the exchange happens on one path only")
__unwinds("ab")
int moved_into_map_on_path(void *ctx)
{
	struct bpf_unwind_object *a, *b;
	struct keeper *value;
	__u32 key = 0;

	begin();
	value = bpf_map_lookup_elem(&keeper, &key);
	if (!value)
		return 0;
	a = bpf_unwind_object_acquire('a');
	if (!a)
		return 0;
	b = bpf_unwind_object_acquire('b');
	if (!b) {
		bpf_unwind_object_release(a);
		return 0;
	}
	if (one)
		a = bpf_kptr_xchg(&value->object, a);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a map that is emptied before the throw leaves what came out to be released")
__unwinds("a")
int moved_out_of_map(void *ctx)
{
	struct bpf_unwind_object *object;
	struct keeper *value;
	__u32 key = 0;

	begin();
	value = bpf_map_lookup_elem(&keeper, &key);
	if (!value)
		return 0;
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	object = bpf_kptr_xchg(&value->object, object);
	if (object)
		bpf_unwind_object_release(object);
	bpf_kptr_xchg(&value->object, NULL);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("code that the verifier removes round the throw changes nothing")
__unwinds("ab")
int dead_code(void *ctx)
{
	struct bpf_unwind_object *object;
	__u64 zero = 0;

	begin();
	object = bpf_unwind_object_acquire('a');
	asm volatile ("" : "+r"(zero));
	if (zero == 1) {
		bpf_unwind_node_acquire('x');
		bpf_throw(1);
	}
	bpf_unwind_object_acquire('b');
	if (zero) {
		if (object)
			bpf_unwind_object_release(object);
		return 1;
	}
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("instructions that the verifier rewrites round the throw change nothing")
__unwinds("ab")
int patched_code(void *ctx)
{
	__u64 divisor = one - 1, sum;

	begin();
	sum = bpf_get_smp_processor_id() / divisor;
	bpf_unwind_object_acquire('a');
	sum += bpf_ktime_get_ns() % (divisor + 1) + bpf_jiffies64();
	bpf_unwind_object_acquire('b');
	sum += bpf_get_smp_processor_id();
	bpf_throw(COOKIE + sum - sum);
	return 0;
}

/* Not of type syscall, whose context may be NULL. */
SEC("tc")
__description("a jump back to the first instruction forgets nothing that is held")
__unwinds("ab")
__naked int jump_to_start(void)
{
	asm volatile ("start_%=: if r1 == 0 goto second_%=;"
		      "r1 = %[before] ll;"
		      "call %[cpu];"
		      "r1 = 0x61;"
		      "call %[acquire];"
		      "r1 = 0;"
		      "goto start_%=;"
		      "second_%=: r1 = 0x62;"
		      "call %[acquire];"
		      "r1 = 42;"
		      "call %[throw];"
		      "r0 = 0;"
		      "exit;"
		      :: [before] "i"(&before), [cpu] "i"(bpf_unwind_cpu),
			 [acquire] "i"(bpf_unwind_object_acquire), [throw] "i"(bpf_throw)
		      : __clobber_all);
}

static __noinline int hold_and_throw_if(int label, int really)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (!object)
		return 0;
	if (really)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(object);
	return 1;
}

static int calls_the_same(__u32 i, void *ctx)
{
	bpf_unwind_object_acquire('c');
	hold_and_throw_if('i', one);
	bpf_throw(COOKIE + 2);
	return 0;
}

SEC("syscall")
__description("a function that main program and callback call finds the slots of the one that called")
__unwinds("cijm")
int shared_callee(void *ctx)
{
	begin();
	bpf_unwind_object_acquire('m');
	hold_and_throw_if('j', !one);
	bpf_loop(1, calls_the_same, NULL, one - 1);
	bpf_throw(COOKIE + 1);
	return 0;
}

#define MANY		33
#define MANY_LABELS	"ggggggggggggggggggggggggggggggggg"

/* Verified on its own, and twice: for a caller that may sleep, and for one that may not. */
__noinline int hold_many(int throw)
{
	int i;

	for (i = 0; i < MANY; i++) {
		barrier_var(i);
		bpf_unwind_object_acquire('g');
	}
	bpf_throw(COOKIE + throw);
	return 0;
}

SEC("syscall")
__description("what a function holds that is verified for two contexts counts once towards the most")
__unwinds(MANY_LABELS)
int verified_twice(void *ctx)
{
	begin();
	if (!one)
		hold_many(1);
	bpf_rcu_read_lock();
	hold_many(0);
	bpf_rcu_read_unlock();
	return 0;
}

static __noinline int make_iterator(struct bpf_iter_unwind *it, int label)
{
	return bpf_iter_unwind_new(it, label, 3);
}

SEC("syscall")
__description("iterators that one instruction of a callee made on the stack of its caller are destroyed")
__unwinds("ij")
int callee_makes_iterators(void *ctx)
{
	struct bpf_iter_unwind a, b;

	begin();
	make_iterator(&a, 'i');
	make_iterator(&b, 'j');
	if (one)
		bpf_throw(COOKIE);
	bpf_iter_unwind_destroy(&b);
	bpf_iter_unwind_destroy(&a);
	return 0;
}

SEC("syscall")
__description("of two such iterators, the one that is not yet destroyed is")
__unwinds("ij")
int callee_makes_iterators_first_destroyed(void *ctx)
{
	struct bpf_iter_unwind a, b;

	begin();
	make_iterator(&a, 'i');
	make_iterator(&b, 'j');
	bpf_iter_unwind_destroy(&a);
	if (one)
		bpf_throw(COOKIE);
	bpf_iter_unwind_destroy(&b);
	return 0;
}

SEC("syscall")
__description("a throw ends a loop that the verifier bounds by time")
__unwinds("aab")
__naked int by_may_goto(void)
{
	asm volatile ("r1 = %[before] ll;"
		      "call %[cpu];"
		      "r6 = 0;"
		      "loop_%=: .8byte %[may_goto];"	/* goto out */
		      "r1 = 0x61;"
		      "if r6 != 2 goto acquire_%=;"
		      "r1 = 0x62;"
		      "acquire_%=: call %[acquire];"
		      "if r0 == 0 goto out_%=;"
		      "if r6 != 2 goto release_%=;"
		      "r1 = 42;"
		      "call %[throw];"
		      "release_%=: r1 = r0;"
		      "call %[release];"
		      "r6 += 1;"
		      "goto loop_%=;"
		      "out_%=: r0 = 0;"
		      "exit;"
		      /* code, registers 0, offset to the end, imm 0 */
		      :: [before] "i"(&before), [cpu] "i"(bpf_unwind_cpu), [may_goto] "i"(0xe5 | 12 << 16),
			 [acquire] "i"(bpf_unwind_object_acquire),
			 [release] "i"(bpf_unwind_object_release), [throw] "i"(bpf_throw)
		      : __clobber_all);
}

/* Never called: clang describes a kfunc in BTF only where C refers to it. */
void *kfuncs(void)
{
	return bpf_unwind_sum;
}

/* More arguments than BPF has registers: clang 19 does not call it, *(u64 *)(r11 - n) are its words. */
SEC("syscall")
__description("arguments on the stack of a call before the throw do not displace what is released")
__unwinds("ab")
__naked int stack_arguments(void)
{
	asm volatile ("r1 = %[before] ll;"
		      "call %[cpu];"
		      "r1 = 0x61;"
		      "call %[acquire];"
		      "r1 = 1;"
		      "r2 = 2;"
		      "r3 = 3;"
		      "r4 = 4;"
		      "r5 = 5;"
		      ".8byte 0x00000006fff80b7a;"	/* *(u64 *)(r11 - 8) = 6 */
		      ".8byte 0x00000007fff00b7a;"	/* *(u64 *)(r11 - 16) = 7 */
		      ".8byte 0x00000008ffe80b7a;"	/* *(u64 *)(r11 - 24) = 8 */
		      "call %[sum];"
		      "r6 = r0;"
		      "r1 = 0x62;"
		      "call %[acquire];"
		      "r1 = r6;"
		      "r1 += 6;"			/* 36 is the sum */
		      "call %[throw];"
		      "r0 = 0;"
		      "exit;"
		      :: [before] "i"(&before), [cpu] "i"(bpf_unwind_cpu), [sum] "i"(bpf_unwind_sum),
			 [acquire] "i"(bpf_unwind_object_acquire), [throw] "i"(bpf_throw)
		      : __clobber_all);
}

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
} arena SEC(".maps");

#define __arena	__attribute__((address_space(1)))

void __arena *bpf_arena_alloc_pages(void *map, void __arena *addr, __u32 page_cnt, int node_id,
				    __u64 flags) __ksym __weak;
void bpf_arena_free_pages(void *map, void __arena *ptr, __u32 page_cnt) __ksym __weak;

static __noinline int throw_between_pages(int __arena *page)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('b');

	if (!object)
		return 0;
	if (page[1] == one)
		bpf_throw(page[0]);
	bpf_unwind_object_release(object);
	return page[2];
}

SEC("syscall")
__description("a program with an arena throws")
__unwinds("ab")
int with_arena(void *ctx)
{
	struct bpf_unwind_object *object;
	int __arena *page;

	begin();
	page = bpf_arena_alloc_pages(&arena, NULL, 1, -1, 0);
	if (!page)
		return 0;
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 0;
	page[0] = COOKIE;
	page[1] = 1;
	throw_between_pages(page);
	bpf_unwind_object_release(object);
	return page[0];
}
