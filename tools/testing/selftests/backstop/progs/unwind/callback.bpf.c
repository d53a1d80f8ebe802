// SPDX-License-Identifier: GPL-2.0
/*
 * Throws from callbacks: the callback ends, what called it stops and cleans up, and the throw
 * goes on behind it.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "trigger.h"
#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_wq_init(struct bpf_wq *wq, void *p__const_map, unsigned int flags) __ksym;
int bpf_wq_set_callback(struct bpf_wq *wq, int (*callback_fn)(void *, int *, void *),
			unsigned int flags) __ksym;
int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym;
int bpf_task_work_schedule_resume(struct task_struct *task, struct bpf_task_work *tw,
				  void *map__const_map,
				  bpf_task_work_callback_t callback) __ksym;

enum wrong {
	ROUNDS = -401,
	WENT_ON = -402,
	MM_LOCKED = -403,
};

/* So many rounds are made, the last of which throws. */
#define LAST 3

int rounds;
int went_on;
long mm_lock_before;

static __always_inline long mm_lock(void)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;

	return mm ? mm->mmap_lock.count.counter : 0;
}

static __always_inline void begin_rounds(void)
{
	begin();
	rounds = 0;
	went_on = 0;
	mm_lock_before = mm_lock();
}

/* The function saves what the helper has in registers, which are to be as they were. */
static __always_inline void use_registers(void)
{
	asm volatile("r6 = 6; r7 = 7; r8 = 8; r9 = 9;" ::: "r6", "r7", "r8", "r9");
}

static __always_inline void throw_at_last(void)
{
	if (++rounds == LAST)
		bpf_throw(COOKIE);
}

__noinline int caught_rounds(__u64 cookie)
{
	if (went_on)
		return WENT_ON;
	if (mm_lock() != mm_lock_before)
		return MM_LOCKED;
	return rounds == LAST ? settle(cookie) : ROUNDS;
}

#define __stops(labels)								\
	__exception_cb(caught_rounds) __event(test_run) __retval(42) __released(labels)

static int loop_throws(__u32 i, void *ctx)
{
	throw_at_last();
	return 0;
}

static int loop_throws_holding(__u32 i, void *ctx)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a' + i);

	if (!object)
		return 1;
	throw_at_last();
	bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("a throw from the callback of an inlined loop ends the loop and the program")
__stops("")
int loop(void *ctx)
{
	begin_rounds();
	bpf_loop(10, loop_throws, NULL, 0);
	went_on = 1;
	return 0;
}

SEC("syscall")
__description("a throw from the callback of a loop that is called ends the loop and the program")
__stops("")
int loop_called(void *ctx)
{
	begin_rounds();
	bpf_loop(10, loop_throws, NULL, one - 1);
	went_on = 1;
	return 0;
}

SEC("syscall")
__description("what the callback and its caller hold is released, from an inlined loop")
__stops("abcm")
int loop_holding(void *ctx)
{
	struct bpf_unwind_object *object;

	begin_rounds();
	object = bpf_unwind_object_acquire('m');
	if (!object)
		return 0;
	bpf_loop(10, loop_throws_holding, NULL, 0);
	went_on = 1;
	bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("what the callback and its caller hold is released, callback first")
__stops("abcm") __in_order
int loop_called_holding(void *ctx)
{
	struct bpf_unwind_object *object;

	begin_rounds();
	object = bpf_unwind_object_acquire('m');
	if (!object)
		return 0;
	bpf_loop(10, loop_throws_holding, NULL, one - 1);
	went_on = 1;
	bpf_unwind_object_release(object);
	return 0;
}

SEC("xdp")
__description("a throw from the callback of a loop, in XDP")
__stops("abcm")
int loop_xdp(struct xdp_md *ctx)
{
	begin_rounds();
	bpf_unwind_object_acquire('m');
	bpf_loop(10, loop_throws_holding, NULL, one - 1);
	went_on = 1;
	bpf_throw(COOKIE + 1);
	return 0;
}

SEC("syscall")
__description("a callback that could throw and does not leaves the program to throw itself")
__exception_cb(caught) __event(test_run) __retval(42) __released("am")
int loop_no_throw(void *ctx)
{
	begin_rounds();
	bpf_unwind_object_acquire('m');
	bpf_loop(1, loop_throws_holding, NULL, 0);
	bpf_throw(COOKIE);
	return 0;
}

static int loop_throws_in_regions(__u32 i, void *ctx)
{
	unsigned long flags;

	bpf_rcu_read_lock();
	bpf_preempt_disable();
	bpf_local_irq_save(&flags);
	bpf_unwind_object_acquire('c');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("regions that a callback is in are left, and those of its caller after it")
__exception_cb(caught) __event(test_run) __retval(42) __released("cm")
int loop_regions(void *ctx)
{
	begin_rounds();
	bpf_unwind_object_acquire('m');
	bpf_rcu_read_lock();
	bpf_preempt_disable();
	bpf_loop(10, loop_throws_in_regions, NULL, one - 1);
	bpf_throw(COOKIE + 1);
	return 0;
}

static __noinline int throw_deeper(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (!object)
		return 0;
	throw_at_last();
	bpf_unwind_object_release(object);
	return 1;
}

static int loop_throws_deeper(__u32 i, void *ctx)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('1' + i);

	if (!object)
		return 1;
	throw_deeper('a' + i);
	bpf_unwind_object_release(object);
	return 0;
}

static __noinline int loop_deeper(int flags)
{
	struct bpf_unwind_node *node = bpf_unwind_node_acquire('n');

	if (!node)
		return 0;
	bpf_loop(10, loop_throws_deeper, NULL, flags);
	went_on = 1;
	bpf_unwind_node_release(node);
	return 1;
}

SEC("syscall")
__description("functions below the callback, and above the loop, are unwound")
__stops("a1b2c3nm")
int loop_deep(void *ctx)
{
	begin_rounds();
	bpf_unwind_object_acquire('m');
	loop_deeper(one - 1);
	bpf_throw(COOKIE + 1);
	return 0;
}

static int loop_inner(__u32 i, void *ctx)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a' + i);

	if (!object)
		return 1;
	throw_at_last();
	bpf_unwind_object_release(object);
	return 0;
}

static int loop_middle(__u32 i, void *ctx)
{
	struct bpf_unwind_node *node = bpf_unwind_node_acquire('x');

	if (!node)
		return 1;
	bpf_loop(10, loop_inner, NULL, one - 1);
	went_on = 1;
	bpf_unwind_node_release(node);
	return 0;
}

static int loop_outer(__u32 i, void *ctx)
{
	struct bpf_unwind_node *node = bpf_unwind_node_acquire('y');

	if (!node)
		return 1;
	bpf_loop(10, loop_middle, NULL, one - 1);
	went_on = 1;
	bpf_unwind_node_release(node);
	return 0;
}

SEC("syscall")
__description("a throw goes through three loops within each other, from the innermost outwards")
__stops("abcxym") __in_order
int loop_nested(void *ctx)
{
	begin_rounds();
	bpf_unwind_object_acquire('m');
	bpf_loop(10, loop_outer, NULL, one - 1);
	bpf_throw(COOKIE + 1);
	return 0;
}

static int loop_middle_inlined(__u32 i, void *ctx)
{
	struct bpf_unwind_node *node = bpf_unwind_node_acquire('x');

	if (!node)
		return 1;
	bpf_loop(10, loop_inner, NULL, 0);
	went_on = 1;
	bpf_unwind_node_release(node);
	return 0;
}

SEC("syscall")
__description("a throw goes through inlined loops within each other")
__stops("abcxm")
int loop_nested_inlined(void *ctx)
{
	begin_rounds();
	bpf_unwind_object_acquire('m');
	bpf_loop(10, loop_middle_inlined, NULL, 0);
	bpf_throw(COOKIE + 1);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} percpu_array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} percpu_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} lru_hash SEC(".maps");

static long each_throws(void *map, void *key, void *value, void *ctx)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a' + rounds);

	if (!object)
		return 1;
	throw_at_last();
	bpf_unwind_object_release(object);
	return 0;
}

#define FOR_EACH(map, what)							\
	SEC("syscall")								\
	__description("a throw from the walk of " what " ends the walk")	\
	__stops("abcm")								\
	int for_each_##map(void *ctx)						\
	{									\
		__u64 value = 0;						\
		__u32 key;							\
		int i;								\
										\
		begin_rounds();							\
		for (i = 0; i < 5; i++) {					\
			key = i;						\
			bpf_map_update_elem(&(map), &key, &value, 0);	\
		}								\
		bpf_unwind_object_acquire('m');					\
		bpf_for_each_map_elem(&(map), each_throws, NULL, 0);	\
		went_on = 1;							\
		bpf_throw(COOKIE + 1);						\
		return 0;							\
	}

FOR_EACH(array, "an array")
FOR_EACH(percpu_array, "a per-CPU array")
FOR_EACH(hash, "a hash table")
FOR_EACH(percpu_hash, "a per-CPU hash table")
FOR_EACH(lru_hash, "a hash table that forgets")

static long each_loops(void *map, void *key, void *value, void *ctx)
{
	bpf_unwind_node_acquire('x');
	bpf_loop(10, loop_inner, NULL, one - 1);
	went_on = 1;
	bpf_throw(COOKIE + 2);
	return 0;
}

SEC("syscall")
__description("a throw from a loop in the walk of a map ends both")
__stops("abcxm") __in_order
int loop_in_for_each(void *ctx)
{
	__u64 value = 0;
	__u32 key = 0;

	begin_rounds();
	bpf_map_update_elem(&hash, &key, &value, 0);
	bpf_unwind_object_acquire('m');
	bpf_for_each_map_elem(&hash, each_loops, NULL, 0);
	bpf_throw(COOKIE + 1);
	return 0;
}

static long vma_throws(struct task_struct *task, struct vm_area_struct *vma, void *ctx)
{
	use_registers();
	rounds = LAST;
	bpf_unwind_object_acquire('a');
	bpf_throw(COOKIE);
	return 0;
}

SEC("tp_btf/sys_enter")
__description("a throw from bpf_find_vma() leaves the memory map unlocked")
__exception_cb(caught_event_rounds) __event(syscall) __retval(42) __released("am")
int find_vma(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!take(TASK))
		return 0;
	begin_rounds();
	bpf_unwind_object_acquire('m');
	bpf_find_vma(task, task->mm->start_code, vma_throws, NULL, 0);
	went_on = 1;
	bpf_throw(COOKIE + 1);
	return 0;
}

__noinline int caught_event_rounds(__u64 cookie)
{
	if (went_on)
		record(WENT_ON);
	else if (mm_lock() != mm_lock_before)
		record(MM_LOCKED);
	else
		record(rounds == LAST ? settle(cookie) : ROUNDS);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} user_ring SEC(".maps");

static long sample_throws(struct bpf_dynptr *sample, void *ctx)
{
	use_registers();
	bpf_unwind_object_acquire('a');
	rounds = LAST;
	bpf_throw(COOKIE);
	return 0;
}

/* For tests/unwind.rs, which fills the ring. */
SEC("syscall") __exception_cb(caught_rounds)
int drain_throws(void *ctx)
{
	begin_rounds();
	bpf_unwind_object_acquire('m');
	bpf_user_ringbuf_drain(&user_ring, sample_throws, NULL, 0);
	went_on = 1;
	bpf_throw(COOKIE + 1);
	return 0;
}

static long sample_counts(struct bpf_dynptr *sample, void *ctx)
{
	return 0;
}

SEC("syscall")
int drain(void *ctx)
{
	return bpf_user_ringbuf_drain(&user_ring, sample_counts, NULL, 0);
}

/* Asynchronous callbacks end by themselves: the program that set them up has returned. */
struct async {
	struct bpf_timer timer;
	struct bpf_wq wq;
	struct bpf_task_work work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct async);
} async SEC(".maps");

static __noinline int throw_async(int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (!object)
		return 0;
	/* From here on the callback ends in any case. */
	record(COOKIE);
	if (one)
		bpf_throw(COOKIE);
	bpf_unwind_object_release(object);
	return 1;
}

static int timer_throws(void *map, __u32 *key, struct bpf_timer *timer)
{
	bpf_unwind_node_acquire('t');
	throw_async('a');
	bpf_throw(COOKIE);
	return 0;
}

static int wq_throws(void *map, int *key, void *wq)
{
	bpf_unwind_node_acquire('w');
	throw_async('a');
	bpf_throw(COOKIE);
	return 0;
}

static int work_throws(struct bpf_map *map, void *key, void *value)
{
	bpf_unwind_node_acquire('k');
	throw_async('a');
	bpf_throw(COOKIE);
	return 0;
}

static __always_inline struct async *elem(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&async, &key);
}

SEC("tp_btf/sys_enter")
__description("a throw ends the callback of a timer, and releases what that holds")
__event(syscall) __retval(42) __released("at")
int timer(void *ctx)
{
	struct async *async_elem;

	if (!take(TASK))
		return 0;
	async_elem = elem();
	if (!async_elem)
		return 0;
	bpf_timer_init(&async_elem->timer, &async, 0);
	bpf_timer_set_callback(&async_elem->timer, timer_throws);
	bpf_timer_start(&async_elem->timer, 0, 0);
	return 0;
}

SEC("tp_btf/sys_enter")
__description("a throw ends the callback of a work queue, and releases what that holds")
__event(syscall) __retval(42) __released("aw")
int wq(void *ctx)
{
	struct async *async_elem;

	if (!take(TASK))
		return 0;
	async_elem = elem();
	if (!async_elem)
		return 0;
	bpf_wq_init(&async_elem->wq, &async, 0);
	bpf_wq_set_callback(&async_elem->wq, wq_throws, 0);
	bpf_wq_start(&async_elem->wq, 0);
	return 0;
}

SEC("tp_btf/sys_enter")
__description("a throw ends the work of a task, and releases what that holds")
__event(syscall) __retval(42) __released("ak")
int task_work(void *ctx)
{
	struct async *async_elem;

	if (!take(TASK))
		return 0;
	async_elem = elem();
	if (!async_elem)
		return 0;
	bpf_task_work_schedule_resume(bpf_get_current_task_btf(), &async_elem->work, &async,
				      work_throws);
	return 0;
}
