// SPDX-License-Identifier: GPL-2.0
/* Programs that acquire something at one instruction more than the verifier has numbers for. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

/* 65,535 instructions, one after the other, that acquire a reference each, which is released again. */
static __noinline void acquire_and_release(struct bpf_unwind_object *object)
{
	asm volatile (".rept 65534; r1 = %[object]; call %[get]; r1 = r0; call %[release]; .endr;"
		      :: [object] "r"(object), [get] "i"(bpf_unwind_object_get),
			 [release] "i"(bpf_unwind_object_release)
		      : "r0", "r1", "r2", "r3", "r4", "r5");
	bpf_unwind_object_release(bpf_unwind_object_get(object));
}

/* And one more. Here, so that no jump has to reach over all the others. */
static __always_inline void acquire_at_too_many(void)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a');

	if (!object)
		return;
	acquire_and_release(object);
	bpf_unwind_object_release(object);
}

SEC("syscall")
__description("a throw, and more than 65,535 instructions that acquire something, are refused")
__exception_cb(caught) __event(none) __failure(E2BIG)
__msg("more than 65535 instructions acquire what a throw may have to release") __untraced __long
int refuse_too_many_sites(void *ctx)
{
	acquire_at_too_many();
	bpf_throw(COOKIE);
	return 0;
}

SEC("tc")
__description("a program with more than 65,535 instructions that acquire something has no deadline")
__module(bpf_unwind) __module(bpf_deadline) __deadline_us(1000) __event(test_run) __retval(2)
__long
int too_many_sites(void *ctx)
{
	int i;

	acquire_at_too_many();
	bpf_for(i, 0, 200000)		/* longer than the deadline */
		sum += one;
	return 2;
}
