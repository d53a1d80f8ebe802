// SPDX-License-Identifier: GPL-2.0
/* Runs that take too long in each kind of loop, and what they hold. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

SEC("tc")
__description("nested loops of open-coded iterators are ended")
__ends_late("a")
int iter_num(void *ctx)
{
	struct bpf_unwind_object *object;
	int i, j;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_for(i, 0, ROUNDS) {
		bpf_for(j, 0, ROUNDS)
			sum += j;
	}
	bpf_unwind_object_release(object);
	return 2;
}

static int add(__u32 i, void *ctx)
{
	sum += i;
	return 0;
}

static int add_many(__u32 i, void *ctx)
{
	bpf_loop(ROUNDS, add, NULL, 0);
	return 0;
}

SEC("tc")
__description("a bpf_loop() that the verifier has inlined is ended")
__ends_late("a")
int loop_inlined(void *ctx)
{
	struct bpf_unwind_object *object;
	int i;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_for(i, 0, ROUNDS)
		bpf_loop(ROUNDS, add, NULL, 0);
	bpf_unwind_object_release(object);
	return 2;
}

SEC("tc")
__description("nested bpf_loop()s are ended")
__ends_late("a")
int loop_nested(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_loop(ROUNDS, add_many, NULL, 0);
	bpf_unwind_object_release(object);
	return 2;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} elements SEC(".maps");

static long add_element(struct bpf_map *map, __u32 *key, __u64 *value, void *ctx)
{
	bpf_loop(ROUNDS, add, NULL, 0);
	return 0;
}

SEC("tc")
__description("a walk through the elements of a map is ended")
__ends_late("a")
int map_elements(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_for_each_map_elem(&elements, add_element, NULL, 0);
	bpf_unwind_object_release(object);
	return 2;
}

SEC("tc")
__description("may_goto in a loop is ended with the loop")
__ends_late("a")
int by_may_goto(void *ctx)
{
	struct bpf_unwind_object *object;
	__u64 i;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_for(i, 0, ROUNDS)
		COUNT_ON(i);
	bpf_unwind_object_release(object);
	return 2;
}

SEC("tc")
__description("a loop that the verifier has followed is ended with the one around it")
__ends_late("a")
int bounded(void *ctx)
{
	struct bpf_unwind_object *object;
	int i, j;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_for(i, 0, ROUNDS)
#pragma clang loop unroll(disable)
		for (j = 0; j < 1000; j++)
			sum += one;
	bpf_unwind_object_release(object);
	return 2;
}

SEC("tc")
__description("an open-coded iterator of a module is ended, and destroyed")
__ends_late("a")
int iter_object(void *ctx)
{
	struct bpf_iter_unwind it;
	int i;

	begin();
	bpf_iter_unwind_new(&it, 'a', 100);
	while (bpf_iter_unwind_next(&it)) {
		bpf_for(i, 0, ROUNDS)
			sum += i;
	}
	bpf_iter_unwind_destroy(&it);
	return 2;
}

static __noinline int loops(int n)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('b');
	int i;

	if (!object)
		return 0;
	bpf_for(i, 0, ROUNDS)
		sum += i * n;
	bpf_unwind_object_release(object);
	return 0;
}

__noinline int loops_global(int n)
{
	int i, j;

	bpf_for(i, 0, ROUNDS)
		bpf_for(j, 0, ROUNDS)
			sum += i * n;
	return 0;
}

SEC("tc")
__description("a static function is ended together with its caller")
__ends_late("ab")
int in_static(void *ctx)
{
	struct bpf_unwind_object *object;
	int i;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	bpf_for(i, 0, 100)
		loops(i + one);
	bpf_unwind_object_release(object);
	return 2;
}

SEC("tc")
__description("a global function is ended together with its caller")
__ends_late("a")
int in_global(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	loops_global(one);
	bpf_unwind_object_release(object);
	return 2;
}

/* Rounds of a run, each of which takes 100 us. */
#define DELAY	100
/* As many as the fuel that a new program begins with lasts for, and the deadline. */
#define SOON	(8192 / 128 + 2 * 30000 / DELAY)

__u32 delays;

__noinline int ended_soon(__u64 cookie)
{
	return settle(cookie == EXPIRED && delays <= SOON ? COOKIE : delays);
}

SEC("tc")
__description("a loop that calls a slow function is ended before it has called that too often")
__module(bpf_unwind) __module(bpf_deadline) __exception_cb(ended_soon) __soon
__event(test_run) __retval(42) __released("") __expires
int slow_call(void *ctx)
{
	int i;

	begin();
	delays = 0;
	bpf_for(i, 0, ROUNDS) {
		delays++;
		bpf_unwind_delay(DELAY);
	}
	return 2;
}

/* A function of its own, so that no jump of the program is too far for it to have a deadline. */
static __noinline int go_forward(void)
{
	TEN(TEN(TEN(bpf_unwind_delay(DELAY); bpf_unwind_delay(DELAY); bpf_unwind_delay(DELAY))));
	return one;
}

SEC("tc")
__description("a program that only goes forward is ended, if that is long")
__ends_late("a")
int straight(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	go_forward();
	bpf_unwind_object_release(object);
	return 2;
}

/* Functions that are verified by themselves, and call others: 200 ms in all. */
__noinline int leaf(int n)
{
	TEN(bpf_unwind_delay(DELAY));
	return n + one;
}

#define TEN_OF(f)	f(n) + f(n) + f(n) + f(n) + f(n) + f(n) + f(n) + f(n) + f(n) + f(n)

__noinline int branch(int n)
{
	return TEN_OF(leaf);
}

__noinline int trunk(int n)
{
	return TEN_OF(branch) + TEN_OF(branch);
}

SEC("tc")
__description("a tree of functions without a loop is ended, if it is large")
__ends_late("a")
int tree(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (!object)
		return 1;
	trunk(one);
	bpf_unwind_object_release(object);
	return 2;
}

const volatile bool never;

static long walk_from_element(struct bpf_map *map, __u32 *key, __u64 *value, void *ctx)
{
	bpf_for_each_map_elem(&elements, add_element, NULL, 0);
	return 0;
}

SEC("tc")
__description("who runs a program finds its registers when callbacks are ended, with a throw in dead code")
__module(bpf_unwind) __module(bpf_deadline) __soon __event(test_run) __retval(-1) __expires
int dead_throw(void *ctx)
{
	if (never)
		bpf_throw(COOKIE);
	bpf_for_each_map_elem(&elements, walk_from_element, NULL, 0);
	return 2;
}
