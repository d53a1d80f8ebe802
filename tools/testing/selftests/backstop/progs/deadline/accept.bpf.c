// SPDX-License-Identifier: GPL-2.0
/* Programs that cannot have a deadline are what they would be without. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

#define __watched __module(bpf_unwind) __module(bpf_deadline)

#define ONE								\
	do {								\
		object = bpf_unwind_object_acquire('a');		\
		if (object)						\
			bpf_unwind_object_release(object);		\
	} while (0)

SEC("tc")
__description("a program that needs many more slots than there are has no deadline")
__watched __event(test_run) __retval(2)
int many_sites(void *ctx)
{
	struct bpf_unwind_object *object;
	int i;

	bpf_for(i, 0, one)
		sum += i;
	TEN(ONE; ONE; ONE; ONE; ONE; ONE; ONE);
	return 2;
}

/* What is around the calls keeps the compiler from making one of two. */
#define GET(text)								\
	({									\
		struct bpf_unwind_object *object;				\
										\
		asm volatile("r0 = " text ::: "r0");				\
		object = bpf_unwind_object_get(base);				\
		asm volatile("r0 = " text ::: "r0");				\
		object;								\
	})

/* A reference from one place or another: where both may be held, each path counts. */
#define EITHER(i) held[i] = *(volatile __u32 *)&one ? GET("1") : GET("2")

SEC("tc")
__description("a program that would take too long to verify with a deadline has none")
__watched __event(test_run) __retval(2) __released("aaaaaaaaaaaaaaaaaaa") __long
int many_paths(void *ctx)
{
	struct bpf_unwind_object *held[18], *base;
	int i;

	begin();
	base = bpf_unwind_object_acquire('a');
	if (!base)
		return 1;
	EITHER(0); EITHER(1); EITHER(2); EITHER(3); EITHER(4); EITHER(5);
	EITHER(6); EITHER(7); EITHER(8); EITHER(9); EITHER(10); EITHER(11);
	EITHER(12); EITHER(13); EITHER(14); EITHER(15); EITHER(16); EITHER(17);
	bpf_for(i, 0, one)
		sum += i;
	for (i = 0; i < 18; i++)
		bpf_unwind_object_release(held[i]);
	bpf_unwind_object_release(base);
	return 2;
}

/* Returns 0, which the verifier knows and the compiler does not; its entry weighs more than the loop. */
static __noinline int zero(__u32 i, void *ctx)
{
	int r;

	asm volatile("r0 = 0; .rept 600; r0 += 0; .endr; %0 = 0" : "=r"(r) :: "r0");
	return r;
}

SEC("tc")
__description("a callback that is called directly, too, is not ended there")
__watched __deadline_us(1000) __event(test_run) __retval(2)
int called_directly(void *ctx)
{
	int i;

	bpf_loop(one, zero, NULL, 0);
	bpf_for(i, 0, 200000)
		sum += zero(i, NULL);
	return sum ? 3 : 2;
}

struct async {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct async);
} async SEC(".maps");

static int both(void *map, __u32 *key, void *value)
{
	return 0;
}

SEC("tc")
__description("a function may be called back at once and later where another one throws")
__watched __event(test_run) __retval(2)
int both_ways(void *ctx)
{
	__u32 key = 0;
	struct async *elem = bpf_map_lookup_elem(&async, &key);

	if (!elem)
		return 1;
	bpf_for_each_map_elem(&async, both, NULL, 0);
	bpf_timer_init(&elem->timer, &async, 0);
	bpf_timer_set_callback(&elem->timer, (void *)both);
	if (!one)
		bpf_throw(1);
	return 2;
}

/* Longer than the deadline of its program. */
static __noinline int take_some_time(void)
{
	int i;

	bpf_for(i, 0, 400000)
		sum += one;
	return 7;
}

__noinline int handle_slowly(__u64 cookie)
{
	return take_some_time();
}

SEC("tc")
__description("what an exception callback calls is not ended: the run has ended already")
__watched __deadline_us(1000) __exception_cb(handle_slowly) __event(test_run) __retval(7)
int below_exception_callback(void *ctx)
{
	if (one)
		bpf_throw(COOKIE);
	return 1;
}
