// SPDX-License-Identifier: GPL-2.0
/* Locks, and regions without interrupts, without preemption and of RCU, that a throw leaves. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

struct guarded {
	struct bpf_spin_lock lock;
	__u32 value;
};

struct res_guarded {
	struct bpf_res_spin_lock lock;
	__u32 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct guarded);
} guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct res_guarded);
} res_guarded SEC(".maps");

private(A) struct bpf_spin_lock global_lock;
private(B) struct bpf_res_spin_lock global_res_lock;

/* Whether a lock is held, by its first word. */
static __always_inline bool is_held(const void *lock)
{
	__u32 word = 0;

	return lock && (bpf_probe_read_kernel(&word, sizeof(word), lock) || word);
}

/* How many resilient locks this CPU believes to hold. */
static __always_inline int held_locks(void)
{
	const struct rqspinlock_held *held = bpf_this_cpu_ptr(&rqspinlock_held_locks);

	return held->cnt;
}

int held_before;

static __always_inline void begin_locked(void)
{
	begin();
	held_before = held_locks();
}

__noinline int caught_unlocked(__u64 cookie)
{
	bool held = is_held(&global_lock) || is_held(&global_res_lock);
	int i;

	for (i = 0; i < 4; i++) {
		__u32 key = i;

		held |= is_held(bpf_map_lookup_elem(&guarded, &key));
		held |= is_held(bpf_map_lookup_elem(&res_guarded, &key));
	}
	if (held || held_locks() != held_before)
		return LOCKED;
	return settle(cookie);
}

#define __unlocks(labels)							\
	__exception_cb(caught_unlocked) __event(test_run) __retval(42) __released(labels)

static __always_inline struct guarded *guarded_by(__u32 key)
{
	return bpf_map_lookup_elem(&guarded, &key);
}

static __always_inline struct res_guarded *res_guarded_by(__u32 key)
{
	return bpf_map_lookup_elem(&res_guarded, &key);
}

SEC("syscall")
__description("a spin lock of a map is released")
__unlocks("")
int lock_map(void *ctx)
{
	struct guarded *guarded;

	begin_locked();
	guarded = guarded_by(0);
	if (!guarded)
		return 0;
	bpf_spin_lock(&guarded->lock);
	guarded->value++;
	if (one)
		bpf_throw(COOKIE);
	bpf_spin_unlock(&guarded->lock);
	return 0;
}

SEC("tc")
__description("a spin lock is released in a program of the network")
__unlocks("")
int lock_tc(struct __sk_buff *skb)
{
	struct guarded *guarded;

	begin_locked();
	guarded = guarded_by(0);
	if (!guarded)
		return 0;
	bpf_spin_lock(&guarded->lock);
	if (one)
		bpf_throw(COOKIE);
	bpf_spin_unlock(&guarded->lock);
	return 0;
}

SEC("syscall")
__description("a spin lock of a global variable is released")
__unlocks("")
int lock_global(void *ctx)
{
	begin_locked();
	bpf_spin_lock(&global_lock);
	if (one)
		bpf_throw(COOKIE);
	bpf_spin_unlock(&global_lock);
	return 0;
}

SEC("syscall")
__description("a spin lock that was unlocked is not released again")
__unlocks("")
int lock_unlocked(void *ctx)
{
	begin_locked();
	bpf_spin_lock(&global_lock);
	bpf_spin_unlock(&global_lock);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a spin lock that one path unlocked is released on the other")
__unlocks("")
int lock_on_path(void *ctx)
{
	begin_locked();
	bpf_spin_lock(&global_lock);
	if (!one)
		bpf_spin_unlock(&global_lock);
	bpf_throw(COOKIE);
	return 0;
}

#define EITHER_LOCK(name, which)						\
	SEC("syscall")								\
	__description("of two spin locks that merged paths hold, the right one is released") \
	__unlocks("")								\
	int name(void *ctx)							\
	{									\
		struct guarded *guarded;					\
										\
		begin_locked();							\
		guarded = guarded_by(which ? 1 : 0);				\
		if (!guarded)							\
			return 0;						\
		if (which)							\
			bpf_spin_lock(&guarded->lock);				\
		else								\
			bpf_spin_lock(&global_lock);				\
		bpf_throw(COOKIE);						\
		return 0;							\
	}

EITHER_LOCK(lock_first, one)
EITHER_LOCK(lock_second, !one)

static __noinline int throw_locked(int cookie)
{
	if (one)
		bpf_throw(cookie);
	return cookie;
}

SEC("syscall")
__description("a spin lock that the caller of the throwing function holds is released")
__unlocks("")
int lock_caller(void *ctx)
{
	int ret;

	begin_locked();
	bpf_spin_lock(&global_lock);
	ret = throw_locked(COOKIE);
	bpf_spin_unlock(&global_lock);
	return ret;
}

static __noinline int lock_in_callee(void)
{
	bpf_spin_lock(&global_lock);
	return one;
}

SEC("syscall")
__description("a spin lock that a callee took is released")
__unlocks("")
int lock_callee(void *ctx)
{
	begin_locked();
	lock_in_callee();
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a spin lock is released, and what was held when it was taken")
__unlocks("a")
int lock_reference(void *ctx)
{
	struct bpf_unwind_object *object;

	begin_locked();
	object = bpf_unwind_object_acquire('a');
	bpf_spin_lock(&global_lock);
	if (one)
		bpf_throw(COOKIE);
	bpf_spin_unlock(&global_lock);
	if (object)
		bpf_unwind_object_release(object);
	return 0;
}

SEC("syscall")
__description("a resilient lock of a map is released")
__unlocks("")
int res_lock(void *ctx)
{
	struct res_guarded *guarded;

	begin_locked();
	guarded = res_guarded_by(0);
	if (!guarded)
		return 0;
	if (bpf_res_spin_lock(&guarded->lock))
		return 1;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock(&guarded->lock);
	return 0;
}

SEC("syscall")
__description("a resilient lock of a global variable is released")
__unlocks("")
int res_lock_global(void *ctx)
{
	begin_locked();
	if (bpf_res_spin_lock(&global_res_lock))
		return 1;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock(&global_res_lock);
	return 0;
}

SEC("syscall")
__description("resilient locks within each other are released")
__unlocks("")
int res_lock_nested(void *ctx)
{
	struct res_guarded *a, *b, *c;

	begin_locked();
	a = res_guarded_by(0);
	b = res_guarded_by(1);
	c = res_guarded_by(2);
	if (!a || !b || !c)
		return 0;
	if (bpf_res_spin_lock(&a->lock))
		return 1;
	if (bpf_res_spin_lock(&b->lock))
		goto unlock_a;
	if (bpf_res_spin_lock(&c->lock))
		goto unlock_b;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock(&c->lock);
unlock_b:
	bpf_res_spin_unlock(&b->lock);
unlock_a:
	bpf_res_spin_unlock(&a->lock);
	return 2;
}

SEC("syscall")
__description("of resilient locks within each other, the one that is not yet unlocked is released")
__unlocks("")
int res_lock_inner_unlocked(void *ctx)
{
	struct res_guarded *a, *b;

	begin_locked();
	a = res_guarded_by(0);
	b = res_guarded_by(1);
	if (!a || !b)
		return 0;
	if (bpf_res_spin_lock(&a->lock))
		return 1;
	if (bpf_res_spin_lock(&b->lock))
		goto unlock_a;
	bpf_res_spin_unlock(&b->lock);
	if (one)
		bpf_throw(COOKIE);
unlock_a:
	bpf_res_spin_unlock(&a->lock);
	return 2;
}

/* The verifier does not know that it is the same lock; to take it again fails. */
SEC("syscall")
__description("a resilient lock that was not taken, a deadlock, is not released")
__unlocks("")
int res_lock_deadlock(void *ctx)
{
	struct res_guarded *a, *b;

	begin_locked();
	a = res_guarded_by(0);
	b = res_guarded_by(one - 1);
	if (!a || !b)
		return 0;
	if (bpf_res_spin_lock(&a->lock))
		return 1;
	if (bpf_res_spin_lock(&b->lock))
		bpf_throw(COOKIE);
	bpf_res_spin_unlock(&b->lock);
	bpf_res_spin_unlock(&a->lock);
	return 2;
}

SEC("syscall")
__description("a resilient lock that saved interrupts is released, and they are restored")
__unlocks("")
int res_lock_irqsave(void *ctx)
{
	unsigned long flags;

	begin_locked();
	if (bpf_res_spin_lock_irqsave(&global_res_lock, &flags))
		return 1;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock_irqrestore(&global_res_lock, &flags);
	return 0;
}

SEC("syscall")
__description("resilient locks that saved interrupts, within each other, are released")
__unlocks("")
int res_lock_irqsave_nested(void *ctx)
{
	unsigned long outer, inner;
	struct res_guarded *a, *b;

	begin_locked();
	a = res_guarded_by(0);
	b = res_guarded_by(1);
	if (!a || !b)
		return 0;
	if (bpf_res_spin_lock_irqsave(&a->lock, &outer))
		return 1;
	if (bpf_res_spin_lock_irqsave(&b->lock, &inner))
		goto unlock;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock_irqrestore(&b->lock, &inner);
unlock:
	bpf_res_spin_unlock_irqrestore(&a->lock, &outer);
	return 2;
}

SEC("syscall")
__description("a resilient lock that saved interrupts, within one that did not, is released")
__unlocks("")
int res_lock_irqsave_inner(void *ctx)
{
	struct res_guarded *a, *b;
	unsigned long flags;

	begin_locked();
	a = res_guarded_by(0);
	b = res_guarded_by(1);
	if (!a || !b)
		return 0;
	if (bpf_res_spin_lock(&a->lock))
		return 1;
	if (bpf_res_spin_lock_irqsave(&b->lock, &flags))
		goto unlock;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock_irqrestore(&b->lock, &flags);
unlock:
	bpf_res_spin_unlock(&a->lock);
	return 2;
}

SEC("syscall")
__description("a resilient lock within one that saved interrupts is released")
__unlocks("")
int res_lock_irqsave_outer(void *ctx)
{
	struct res_guarded *a, *b;
	unsigned long flags;

	begin_locked();
	a = res_guarded_by(0);
	b = res_guarded_by(1);
	if (!a || !b)
		return 0;
	if (bpf_res_spin_lock_irqsave(&a->lock, &flags))
		return 1;
	if (bpf_res_spin_lock(&b->lock))
		goto unlock;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock(&b->lock);
unlock:
	bpf_res_spin_unlock_irqrestore(&a->lock, &flags);
	return 2;
}

SEC("syscall")
__description("interrupts saved twice, the second time by a lock, are restored to what they were first")
__unlocks("")
int irq_then_res_lock(void *ctx)
{
	unsigned long outer, inner;

	begin_locked();
	bpf_local_irq_save(&outer);
	if (bpf_res_spin_lock_irqsave(&global_res_lock, &inner))
		goto restore;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock_irqrestore(&global_res_lock, &inner);
restore:
	bpf_local_irq_restore(&outer);
	return 2;
}

SEC("syscall")
__description("after a lock within saved interrupts is unlocked, they are still restored")
__unlocks("")
int irq_then_res_unlock(void *ctx)
{
	unsigned long outer, inner;

	begin_locked();
	bpf_local_irq_save(&outer);
	if (bpf_res_spin_lock_irqsave(&global_res_lock, &inner))
		goto restore;
	bpf_res_spin_unlock_irqrestore(&global_res_lock, &inner);
	if (one)
		bpf_throw(COOKIE);
restore:
	bpf_local_irq_restore(&outer);
	return 2;
}

SEC("syscall")
__description("interrupts saved, after a lock that saved them before is unlocked, are restored")
__unlocks("")
int res_unlock_then_irq(void *ctx)
{
	unsigned long flags;

	begin_locked();
	if (bpf_res_spin_lock_irqsave(&global_res_lock, &flags))
		return 1;
	bpf_res_spin_unlock_irqrestore(&global_res_lock, &flags);
	bpf_local_irq_save(&flags);
	if (one)
		bpf_throw(COOKIE);
	bpf_local_irq_restore(&flags);
	return 2;
}

SEC("syscall")
__description("saved interrupts are restored")
__unwinds("")
int irq(void *ctx)
{
	unsigned long flags;

	begin();
	bpf_local_irq_save(&flags);
	if (one)
		bpf_throw(COOKIE);
	bpf_local_irq_restore(&flags);
	return 0;
}

SEC("syscall")
__description("interrupts saved within each other are restored to what they were first")
__unwinds("")
int irq_nested(void *ctx)
{
	unsigned long a, b, c;

	begin();
	bpf_local_irq_save(&a);
	bpf_local_irq_save(&b);
	bpf_local_irq_save(&c);
	if (one)
		bpf_throw(COOKIE);
	bpf_local_irq_restore(&c);
	bpf_local_irq_restore(&b);
	bpf_local_irq_restore(&a);
	return 0;
}

SEC("syscall")
__description("interrupts that were restored in part are restored for good")
__unwinds("")
int irq_inner_restored(void *ctx)
{
	unsigned long a, b;

	begin();
	bpf_local_irq_save(&a);
	bpf_local_irq_save(&b);
	bpf_local_irq_restore(&b);
	if (one)
		bpf_throw(COOKIE);
	bpf_local_irq_restore(&a);
	return 0;
}

SEC("syscall")
__description("interrupts that were restored already are left alone")
__unwinds("")
int irq_restored(void *ctx)
{
	unsigned long a, b;

	begin();
	bpf_local_irq_save(&a);
	bpf_local_irq_save(&b);
	bpf_local_irq_restore(&b);
	bpf_local_irq_restore(&a);
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int save_irqs(unsigned long *flags)
{
	bpf_local_irq_save(flags);
	return one;
}

SEC("syscall")
__description("interrupts that a callee saved are restored")
__unwinds("")
int irq_callee(void *ctx)
{
	unsigned long flags;

	begin();
	save_irqs(&flags);
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int throw_without_irqs(int cookie)
{
	unsigned long flags;

	bpf_local_irq_save(&flags);
	if (one)
		bpf_throw(cookie);
	bpf_local_irq_restore(&flags);
	return cookie;
}

SEC("syscall")
__description("interrupts saved in a function and in its caller are restored to what they were first")
__unwinds("")
int irq_caller(void *ctx)
{
	unsigned long flags;
	int ret;

	begin();
	bpf_local_irq_save(&flags);
	ret = throw_without_irqs(COOKIE);
	bpf_local_irq_restore(&flags);
	return ret;
}

SEC("syscall")
__description("preemption is enabled as often as it was disabled")
__unwinds("")
int preempt(void *ctx)
{
	begin();
	bpf_preempt_disable();
	bpf_preempt_disable();
	bpf_preempt_disable();
	bpf_preempt_enable();
	if (one)
		bpf_throw(COOKIE);
	bpf_preempt_enable();
	bpf_preempt_enable();
	return 0;
}

SEC("syscall")
__description("preemption that is enabled again is left alone")
__unwinds("")
int preempt_enabled(void *ctx)
{
	begin();
	bpf_preempt_disable();
	bpf_preempt_enable();
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int disable_preemption(void)
{
	bpf_preempt_disable();
	return one;
}

SEC("syscall")
__description("preemption that callees disabled is enabled")
__unwinds("")
int preempt_callee(void *ctx)
{
	begin();
	disable_preemption();
	disable_preemption();
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("read sections are left as often as they were entered")
__unwinds("")
int rcu(void *ctx)
{
	begin();
	bpf_rcu_read_lock();
	bpf_rcu_read_lock();
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	if (one)
		bpf_throw(COOKIE);
	bpf_rcu_read_unlock();
	bpf_rcu_read_unlock();
	return 0;
}

static __noinline int enter_rcu(void)
{
	bpf_rcu_read_lock();
	return one;
}

static __noinline int leave_rcu(int really)
{
	if (really)
		bpf_rcu_read_unlock();
	return one;
}

SEC("syscall")
__description("a read section that a callee entered is left")
__unwinds("")
int rcu_callee(void *ctx)
{
	begin();
	enter_rcu();
	enter_rcu();
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a read section that a callee left already, on the path at hand, is not left again")
__unwinds("")
int rcu_callee_leaves(void *ctx)
{
	begin();
	enter_rcu();
	enter_rcu();
	leave_rcu(one);
	bpf_throw(COOKIE);
	return 0;
}

static __noinline int throw_in_rcu(int cookie)
{
	bpf_rcu_read_lock();
	bpf_preempt_disable();
	if (one)
		bpf_throw(cookie);
	bpf_preempt_enable();
	bpf_rcu_read_unlock();
	return cookie;
}

SEC("syscall")
__description("sections and regions of a function and of its caller are left")
__unwinds("")
int rcu_preempt_caller(void *ctx)
{
	int ret;

	begin();
	bpf_preempt_disable();
	bpf_rcu_read_lock();
	ret = throw_in_rcu(COOKIE);
	bpf_rcu_read_unlock();
	bpf_preempt_enable();
	return ret;
}

SEC("syscall")
__description("what sleeps when it is released comes last, after every region is left")
__unlocks("s")
int sleeper_in_regions(void *ctx)
{
	struct bpf_unwind_sleeper *sleeper;
	unsigned long flags;

	begin_locked();
	sleeper = bpf_unwind_sleeper_acquire('s');
	bpf_rcu_read_lock();
	bpf_preempt_disable();
	bpf_local_irq_save(&flags);
	if (bpf_res_spin_lock(&global_res_lock))
		goto restore;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock(&global_res_lock);
restore:
	bpf_local_irq_restore(&flags);
	bpf_preempt_enable();
	bpf_rcu_read_unlock();
	if (sleeper)
		bpf_unwind_sleeper_release(sleeper);
	return 2;
}

SEC("syscall")
__description("everything at once is released")
__unlocks("ians")
int everything(void *ctx)
{
	struct bpf_unwind_sleeper *sleeper;
	struct bpf_unwind_object *object;
	struct bpf_unwind_node *node;
	struct bpf_iter_unwind it;
	unsigned long a, b;

	begin_locked();
	sleeper = bpf_unwind_sleeper_acquire('s');
	node = bpf_unwind_node_acquire('n');
	bpf_rcu_read_lock();
	object = bpf_unwind_object_acquire('a');
	bpf_iter_unwind_new(&it, 'i', 1);
	bpf_preempt_disable();
	bpf_local_irq_save(&a);
	if (bpf_res_spin_lock_irqsave(&global_res_lock, &b))
		goto restore;
	if (one)
		bpf_throw(COOKIE);
	bpf_res_spin_unlock_irqrestore(&global_res_lock, &b);
restore:
	bpf_local_irq_restore(&a);
	bpf_preempt_enable();
	bpf_iter_unwind_destroy(&it);
	if (object)
		bpf_unwind_object_release(object);
	bpf_rcu_read_unlock();
	if (node)
		bpf_unwind_node_release(node);
	if (sleeper)
		bpf_unwind_sleeper_release(sleeper);
	return 2;
}
