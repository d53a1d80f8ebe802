// SPDX-License-Identifier: GPL-2.0
/*
 * Without module bpf_unwind the verifier speaks as it does without these patches: a throw with
 * anything held, or from a callback, is refused in its words; one with nothing held works.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

#define __unloaded(pattern)							\
	__without_module(bpf_unwind) __event(none) __failure(EINVAL) __msg(pattern)

private(A) struct bpf_spin_lock lock;

SEC("syscall")
__description("without the module, a throw with a reference is refused")
__unloaded("Unreleased reference id={{[0-9]+}} alloc_insn={{[0-9]+}}")
int unloaded_reference(void *ctx)
{
	bpf_unwind_object_acquire('a');
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int throw_if(int really)
{
	if (really)
		bpf_throw(COOKIE);
	return 0;
}

__noinline int throw_if_global(int really)
{
	if (really)
		bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("without the module, a throw from a function whose caller has a reference is refused")
__unloaded("Unreleased reference")
int unloaded_reference_caller(void *ctx)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a');

	if (!object)
		return 0;
	throw_if(one);
	bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("without the module, the call of a global function that throws, with a reference, is refused")
__unloaded("Unreleased reference")
int unloaded_reference_global(void *ctx)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a');

	if (!object)
		return 0;
	throw_if_global(one);
	bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("without the module, a throw with a spin lock is refused")
__unloaded("function calls are not allowed while holding a lock")
int unloaded_lock(void *ctx)
{
	bpf_spin_lock(&lock);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("without the module, a throw in a read section is refused")
__unloaded("bpf_throw cannot be used inside bpf_rcu_read_lock-ed region")
int unloaded_rcu(void *ctx)
{
	bpf_rcu_read_lock();
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("without the module, a throw without preemption is refused")
__unloaded("bpf_throw cannot be used inside bpf_preempt_disable-ed region")
int unloaded_preempt(void *ctx)
{
	bpf_preempt_disable();
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("without the module, a throw without interrupts is refused")
__unloaded("bpf_throw cannot be used inside bpf_local_irq_save-ed region")
int unloaded_irq(void *ctx)
{
	unsigned long flags;

	bpf_local_irq_save(&flags);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("without the module, a throw with an iterator is refused")
__unloaded("Unreleased reference")
int unloaded_iter(void *ctx)
{
	int *value;

	bpf_for_each(unwind, value, 'i', 5)
		bpf_throw(COOKIE);
	return 0;
}

static int loop_throws(__u32 i, void *ctx)
{
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("without the module, a throw from a callback is refused")
__unloaded("cannot be called from callback subprog")
int unloaded_callback(void *ctx)
{
	bpf_loop(2, loop_throws, NULL, 0);
	return 0;
}

SEC("syscall")
__description("without the module, a throw with nothing held works")
__without_module(bpf_unwind) __exception_cb(caught) __event(test_run) __retval(42) __released("a")
int unloaded_nothing_held(void *ctx)
{
	struct bpf_unwind_object *object;

	begin();
	object = bpf_unwind_object_acquire('a');
	if (object)
		bpf_unwind_object_release(object);
	return throw_if(one);
}

/* The throw comes before the verifier has made a state of the loop to compare with. */
SEC("syscall")
__description("without the module, a throw from the first round of a loop works")
__without_module(bpf_unwind) __exception_cb(caught) __event(test_run) __retval(42) __released("")
int unloaded_loop(void *ctx)
{
	begin();
	while (one)
		bpf_throw(COOKIE);
	return 0;
}

static __noinline int throw_now(void)
{
	bpf_throw(COOKIE);
	return one;
}

SEC("syscall")
__description("without the module, a throw from a function called in a loop works")
__without_module(bpf_unwind) __exception_cb(caught) __event(test_run) __retval(42) __released("")
int unloaded_loop_callee(void *ctx)
{
	begin();
	while (one)
		throw_now();
	return 0;
}
