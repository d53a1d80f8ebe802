// SPDX-License-Identifier: GPL-2.0
/*
 * Functions with trampolines of their own while they are unwound: the trampolines run to their end,
 * from the inside out. For tests/unwind/traced.rs.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_wq_init(struct bpf_wq *wq, void *p__const_map, unsigned int flags) __ksym;
int bpf_wq_set_callback(struct bpf_wq *wq, int (*callback_fn)(void *, int *, void *),
			unsigned int flags) __ksym;
int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym;
bool bpf_session_is_return(void *ctx) __ksym __weak;

/* Programs below, each on one of the functions above it. */

struct {
	__u64 entered;
	__u64 left;
	__u64 returned;	/* what the function returned the last time */
	__u64 state;	/* of the CPU at the last exit: preempt_count, and IRQs disabled above it */
	__u64 at;	/* when that was */
} seen SEC(".data.seen");

static __always_inline void note_exit(void *ctx)
{
	struct bpf_unwind_cpu cpu = {};

	bpf_unwind_cpu(&cpu);
	seen.state = cpu.preempt_count | (__u64)cpu.irqs_disabled << 32;
	seen.at = bpf_ktime_get_ns();
	bpf_get_func_ret(ctx, &seen.returned);
	__sync_fetch_and_add(&seen.left, 1);
}

SEC("fentry/inner")
int on_entry(void *ctx)
{
	__sync_fetch_and_add(&seen.entered, 1);
	return 0;
}

SEC("fexit/inner")
int on_exit(void *ctx)
{
	note_exit(ctx);
	return 0;
}

SEC("fsession/inner")
int on_both(void *ctx)
{
	if (bpf_session_is_return(ctx))
		note_exit(ctx);
	else
		__sync_fetch_and_add(&seen.entered, 1);
	return 0;
}

__noinline int caught_tracer(__u64 cookie)
{
	return 0;
}

/* Throws while the throw that it sees goes by. */
SEC("fexit/inner") __exception_cb(caught_tracer)
int on_exit_throws(void *ctx)
{
	note_exit(ctx);
	bpf_unwind_object_acquire('t');
	bpf_preempt_disable();
	bpf_throw(COOKIE + 2);
	return 0;
}

/* Functions that hold something each, and the state of the CPU that they are to be left in. */

__noinline int inner(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);
	unsigned long flags;

	if (!object)
		return 0;
	bpf_local_irq_save(&flags);
	if (one)
		bpf_throw(COOKIE);
	bpf_local_irq_restore(&flags);
	bpf_unwind_object_release(object);
	return 1;
}

static __noinline int middle(int label)
{
	struct bpf_iter_unwind it;
	int ret;

	bpf_iter_unwind_new(&it, label, 1);
	bpf_preempt_disable();
	ret = inner(label + 1);
	bpf_preempt_enable();
	bpf_iter_unwind_destroy(&it);
	return ret + 1;
}

__noinline int outer(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);
	int ret;

	if (!object)
		return 0;
	ret = middle(label + 1);
	bpf_unwind_object_release(object);
	return ret + 1;
}

SEC("syscall") __exception_cb(caught)
int deep(void *ctx)
{
	begin();
	bpf_unwind_node_acquire('a');
	bpf_throw(outer('b'));
	return 0;
}

/* Throws in the third round. */
static __noinline int step(__u32 i, void *ctx)
{
	struct bpf_unwind_object *object;

	if (i < 2)
		return 0;
	object = bpf_unwind_object_acquire('s');
	bpf_preempt_disable();
	if (one)
		bpf_throw(COOKIE);
	bpf_preempt_enable();
	if (object)
		bpf_unwind_object_release(object);
	return 0;
}

/* With these flags, the verifier makes a loop of it. */
SEC("syscall") __exception_cb(caught)
int loop_inlined(void *ctx)
{
	begin();
	bpf_unwind_node_acquire('a');
	bpf_loop(5, step, NULL, 0);
	bpf_throw(COOKIE + 1);
	return 0;
}

SEC("syscall") __exception_cb(caught)
int loop_called(void *ctx)
{
	__u64 flags = one - 1;

	begin();
	bpf_unwind_node_acquire('a');
	bpf_loop(5, step, NULL, flags);
	bpf_throw(COOKIE + 1);
	return 0;
}

static __noinline int step_below(__u32 i, void *ctx)
{
	struct bpf_unwind_node *node = bpf_unwind_node_acquire('s');

	inner('i');
	if (node)
		bpf_unwind_node_release(node);
	return 0;
}

/* Throws in a function that the callback calls. */
SEC("syscall") __exception_cb(caught)
int loop_deep(void *ctx)
{
	begin();
	bpf_unwind_node_acquire('a');
	bpf_loop(5, step_below, NULL, 0);
	bpf_throw(COOKIE + 1);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct { struct bpf_wq wq; });
} works SEC(".maps");

static int work_throws(void *map, int *key, void *value)
{
	bpf_unwind_object_acquire('w');
	bpf_preempt_disable();
	bpf_throw(COOKIE);
	return 1;
}

/* Its callback is nobody's who waits for it. */
SEC("syscall")
int work(void *ctx)
{
	__u32 key = 0;
	void *value = bpf_map_lookup_elem(&works, &key);

	if (!value)
		return 1;
	/* It is there already when the program runs again. */
	bpf_wq_init(value, &works, 0);
	if (bpf_wq_set_callback(value, work_throws, 0) || bpf_wq_start(value, 0))
		return 2;
	return COOKIE;
}
