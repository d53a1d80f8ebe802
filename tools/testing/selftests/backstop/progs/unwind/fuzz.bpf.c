// SPDX-License-Identifier: GPL-2.0
/*
 * What the programs of the fuzzer stand on, see src/fuzz/ground.rs: the maps that they use, the types
 * of their functions and objects, and what looks at the machine between two runs.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_prog_stop(__u32 id, __u32 stop) __kfunc_of(bpf_deadline);

/*
 * What no gap between two checkpoints takes, of which at most 10 ms count: a run
 * that does not wait for it never outlives it.
 */
#define __deadline	__attribute__((btf_decl_tag("deadline_us:11000")))

/* What a program is told, and what it tells. Shared with src/fuzz/ground.rs. */
struct fuzz_state {
	__u32 bits;		/* which way it goes at branches */
	__u32 countdown;	/* the point at which it ends, as it passes them */
	__u32 zero;
	__u32 thrown;		/* it did end at a point */
	__u32 released;		/* counted objects that it released itself */
	__u32 short_of;		/* an allocation failed, or time went by, which need not be so again */
	__u64 cookie;
	__u64 trace;		/* what it came by */
	struct bpf_unwind_cpu before;
	struct bpf_unwind_cpu after;
};

struct fuzz_state state SEC(".data.state");

/* What is left of a run. Shared with src/fuzz/ground.rs. */
struct fuzz_remains {
	struct bpf_unwind_ledger ledger;
	struct bpf_unwind_cpu cpu;
	__u32 locked;		/* a bit for each lock that is held */
	__u32 locks;		/* resilient locks that the CPU believes to hold */
	__u32 task_users;
	__u32 ring;		/* bytes that are in the ring buffer, or never come out */
	__s32 objects;		/* allocated and not freed, since the beginning */
	__s32 percpu_objects;
	__s32 cpumasks;
	__u32 stashed;		/* it was in the map */
};

struct fuzz_remains remains SEC(".data.remains");

private(spin) struct bpf_spin_lock spin;
private(res0) struct bpf_res_spin_lock res0;
private(res1) struct bpf_res_spin_lock res1;
private(res2) struct bpf_res_spin_lock res2;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shelf {
		struct bpf_unwind_object __kptr *object;
	});
} shelf SEC(".maps");

struct thing {
	__u64 a;
	struct bpf_refcount users;
};

struct plain {
	__u64 a;
};

/* One function of each type, beside caught(), for the types: what they do is never run. */
__noinline int global_function(__u64 argument)
{
	return argument + state.zero;
}

static __noinline __attribute__((used)) int static_function(__u64 argument)
{
	return argument + state.zero;
}

SEC("?syscall")
__exception_cb(caught) __deadline
int main_caught(void *ctx)
{
	struct thing *thing = new(struct thing);
	struct plain *plain = new(struct plain);

	if (thing)
		bpf_obj_drop(thing);
	if (plain)
		bpf_obj_drop(plain);
	bpf_throw(COOKIE);
	return global_function(0) + static_function(0);
}

SEC("?syscall")
__deadline
int main_plain(void *ctx)
{
	return 0;
}

/* Programs that count, for types that do not count themselves. */
#define COUNT(function, counter, by)						\
	SEC("fentry/" #function)						\
	int count_##function(void *ctx)						\
	{									\
		(counter) += (by);						\
		return 0;							\
	}

COUNT(bpf_obj_new, remains.objects, 1)
COUNT(bpf_obj_drop, remains.objects, -1)
COUNT(bpf_percpu_obj_new, remains.percpu_objects, 1)
COUNT(bpf_percpu_obj_drop, remains.percpu_objects, -1)
COUNT(bpf_cpumask_create, remains.cpumasks, 1)
COUNT(bpf_cpumask_release, remains.cpumasks, -1)

/* Whether a lock is held, by its first word. */
static __always_inline bool is_held(const void *lock)
{
	__u32 word = 0;

	return bpf_probe_read_kernel(&word, sizeof(word), lock) || word;
}

struct look {
	__u32 id;	/* of the program that was run */
};

/* Looks at what a run has left, and makes room for the next. */
SEC("syscall")
int look(struct look *ctx)
{
	const struct rqspinlock_held *held = bpf_this_cpu_ptr(&rqspinlock_held_locks);
	struct bpf_unwind_object *object;
	struct shelf *value;
	__u32 key = 0;

	remains.stashed = 0;
	value = bpf_map_lookup_elem(&shelf, &key);
	object = value ? bpf_kptr_xchg(&value->object, NULL) : NULL;
	if (object) {
		remains.stashed = bpf_unwind_object_label(object);
		bpf_unwind_object_release(object);
	}
	bpf_unwind_ledger(&remains.ledger);
	bpf_unwind_cpu(&remains.cpu);
	remains.locked = is_held(&spin) | is_held(&res0) << 1 | is_held(&res1) << 2 |
			 is_held(&res2) << 3;
	remains.locks = held->cnt;
	remains.task_users = bpf_get_current_task_btf()->rcu_users.refs.counter;
	remains.ring = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
	bpf_unwind_reset();
	/* Its runs were not ended in succession, so that it is never stopped. */
	bpf_prog_stop(ctx->id, 0);
	return 0;
}
