// SPDX-License-Identifier: GPL-2.0
/* Callbacks within callbacks, through global functions: slots take stack in each. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

#define LEVEL(n, next)								\
	static int holds_##n(__u32 i, void *ctx)				\
	{									\
		struct bpf_unwind_object *object = bpf_unwind_object_acquire('a'); \
										\
		if (!object)							\
			return 1;						\
		next;								\
		bpf_unwind_object_release(object);				\
		return 0;							\
	}									\
	__noinline int level_##n(int x)						\
	{									\
		bpf_loop(1, holds_##n, NULL, 0);				\
		return x;							\
	}

static __noinline int throw(void)
{
	if (one)
		bpf_throw(COOKIE);
	return 0;
}

LEVEL(0, throw())
LEVEL(1, level_0(i))
LEVEL(2, level_1(i))
LEVEL(3, level_2(i))
LEVEL(4, level_3(i))
LEVEL(5, level_4(i))
LEVEL(6, level_5(i))
LEVEL(7, level_6(i))
LEVEL(8, level_7(i))
LEVEL(9, level_8(i))
LEVEL(10, level_9(i))
LEVEL(11, level_10(i))
LEVEL(12, level_11(i))
LEVEL(13, level_12(i))
LEVEL(14, level_13(i))
LEVEL(15, level_14(i))

SEC("syscall")
__description("eight callbacks within each other are unwound, with a slot each and many outside")
__unwinds("aaaaaaaammmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm")
int nested_deep(void *ctx)
{
	int i;

	begin();
	for (i = 0; i < 32; i++) {
		barrier_var(i);
		bpf_unwind_object_acquire('m');
	}
	level_7(1);
	bpf_throw(COOKIE + 1);
	return 0;
}

SEC("syscall")
__description("callbacks within each other for which the stack would not do are refused")
__exception_cb(caught) __event(none) __failure(E2BIG)
__msg("bytes of stack, more than 1024, for what may be held in it and in what it calls")
int refuse_too_deep(void *ctx)
{
	level_15(1);
	bpf_throw(COOKIE);
	return 0;
}

struct elem {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct elem);
} timers SEC(".maps");

static int fires(void *map, int *key, struct elem *elem);

static __noinline int arm(void)
{
	struct elem *elem = bpf_map_lookup_elem(&timers, &(__u32){});

	if (elem)
		bpf_timer_set_callback(&elem->timer, fires);
	return 0;
}

/* It leads to fires(), which has it called back: where callees come first, either comes first. */
static int cycles(__u32 i, void *ctx)
{
	arm();
	level_7(1);
	return 0;
}

static int fires(void *map, int *key, struct elem *elem)
{
	int i;

	for (i = 0; i < 48; i++) {
		barrier_var(i);
		bpf_unwind_object_acquire('m');
	}
	bpf_loop(1, cycles, NULL, 0);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a timer for which the stack would not do, in a cycle of functions that lead to it")
__exception_cb(caught) __event(none) __failure(E2BIG)
__msg("bytes of stack, more than 1024, for what may be held in it and in what it calls")
int refuse_cycle_too_deep(void *ctx)
{
	bpf_loop(1, cycles, NULL, 0);
	bpf_throw(COOKIE);
	return 0;
}
