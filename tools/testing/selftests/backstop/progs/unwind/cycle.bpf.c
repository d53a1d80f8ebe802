// SPDX-License-Identifier: GPL-2.0
/*
 * Functions that call each other in a cycle through the address of an asynchronous callback:
 * arm_or_throw() names fires(), which calls through_global(), which calls arm_or_throw(). Whoever
 * walks the program from one end has not seen the throw when he has to know of it.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

struct elem {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct elem);
} timers SEC(".maps");

/* Throws if r1 says so. */
static __noinline __attribute__((used)) __naked int arm_or_throw(void)
{
	asm volatile ("if r1 != 0 goto throw_%=;"	/* check_cfg() walks the branch last */
		      "r1 = 0;"
		      "*(u32 *)(r10 - 4) = r1;"
		      "r2 = r10;"
		      "r2 += -4;"
		      "r1 = %[timers] ll;"
		      "call %[lookup];"
		      "if r0 == 0 goto out_%=;"
		      "r1 = r0;"
		      "r2 = fires ll;"
		      "call %[set_callback];"
		      "out_%=: r0 = 0;"
		      "exit;"
		      "throw_%=: r1 = 42;"
		      "call %[throw];"
		      "r0 = 0;"
		      "exit;"
		      :: [timers] "i"(&timers), [lookup] "i"(bpf_map_lookup_elem),
			 [set_callback] "i"(bpf_timer_set_callback), [throw] "i"(bpf_throw)
		      : __clobber_all);
}

__noinline int through_global(int x)
{
	asm volatile ("r1 = %[x]; call arm_or_throw; %[x] = r0;" : [x] "+r"(x) :: "r0", "r1", "r2", "r3", "r4", "r5");
	return x;
}

static __attribute__((used)) int fires(void *map, int *key, struct elem *value)
{
	through_global(one);
	return 0;
}

SEC("syscall")
__description("what is held round a function that throws is released, though a cycle leads to it")
__unwinds("a")
__naked int throws_in_cycle(void)
{
	asm volatile ("r1 = %[before] ll;"
		      "call %[cpu];"
		      "r1 = %[one] ll;"
		      "r9 = *(u32 *)(r1 + 0);"
		      "if r9 == 0 goto named_%=;"	/* bpf_compute_postorder() walks it first */
		      "r1 = 0x61;"
		      "call %[object];"
		      "if r0 == 0 goto out_%=;"
		      "r6 = r0;"
		      "call %[preempt];"
		      "r1 = r9;"
		      "call through_global;"
		      "call %[enable];"
		      "r1 = r6;"
		      "call %[put];"
		      "r1 = 0;"
		      "call arm_or_throw;"
		      "out_%=: r0 = 0;"
		      "exit;"
		      "named_%=: r2 = fires ll;"
		      "r0 = 0;"
		      "exit;"
		      :: [one] "i"(&one), [before] "i"(&before), [cpu] "i"(bpf_unwind_cpu),
			 [object] "i"(bpf_unwind_object_acquire), [put] "i"(bpf_unwind_object_release),
			 [preempt] "i"(bpf_preempt_disable), [enable] "i"(bpf_preempt_enable)
		      : __clobber_all);
}

/* Never called: clang describes a kfunc in BTF only where it is called from C. */
void kfuncs(void)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a');

	bpf_preempt_disable();
	bpf_preempt_enable();
	if (object)
		bpf_unwind_object_release(object);
	bpf_throw(COOKIE);
}
