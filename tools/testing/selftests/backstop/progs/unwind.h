/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of exceptions share: bpf_throw(), the counted objects of module
 * bpf_unwind_test, and an exception callback that compares the CPU with what it
 * was when the program began. Include after vmlinux.h.
 *
 * A program calls begin() first and throws COOKIE. It returns that if all is as
 * before, or one of enum difference. What became of the objects is compared by
 * ledger.rs.
 */
#ifndef _BACKSTOP_UNWIND_H
#define _BACKSTOP_UNWIND_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "expect.h"
#include "ledger.h"

#define __unwind	__kfunc_of(bpf_unwind)

/* The resilient locks that a CPU holds. */
extern const struct rqspinlock_held rqspinlock_held_locks __ksym;

#define COOKIE		42

/* What an exception callback returns if not the cookie. */
enum difference {
	PREEMPT_COUNT = -101,
	IRQS_DISABLED = -102,
	RCU_NESTING = -103,
	MIGRATION_DISABLED = -104,
	LOCKED = -105,
	WRONG_COOKIE = -1000, /* less the cookie that came instead */
};

struct bpf_unwind_object { const char *type; };
struct bpf_unwind_node { struct bpf_unwind_object object; };
struct bpf_unwind_sleeper { struct bpf_unwind_object object; };
struct bpf_unwind_twin { struct bpf_unwind_object object; };
struct bpf_unwind_orphan { struct bpf_unwind_object object; };
struct bpf_unwind_ticket { const char *type; };

struct bpf_iter_unwind {
	__u64 __opaque[2];
} __attribute__((aligned(8)));

struct bpf_unwind_cpu {
	__u32 preempt_count;
	__u32 irqs_disabled;
	__u32 rcu_nesting;
	__u32 migration_disabled;
};

void bpf_throw(__u64 cookie) __unwind;

struct bpf_unwind_object *bpf_unwind_object_acquire(__u32 label) __unwind_test;
struct bpf_unwind_object *bpf_unwind_object_get(struct bpf_unwind_object *object) __unwind_test;
void bpf_unwind_object_release(struct bpf_unwind_object *object) __unwind_test;
__u32 bpf_unwind_object_label(struct bpf_unwind_object *object) __unwind_test;
struct bpf_unwind_node *bpf_unwind_node_acquire(__u32 label) __unwind_test;
void bpf_unwind_node_release(struct bpf_unwind_node *node) __unwind_test;
struct bpf_unwind_sleeper *bpf_unwind_sleeper_acquire(__u32 label) __unwind_test;
void bpf_unwind_sleeper_release(struct bpf_unwind_sleeper *sleeper) __unwind_test;
struct bpf_unwind_twin *bpf_unwind_twin_acquire(__u32 label) __unwind_test;
void bpf_unwind_twin_release(struct bpf_unwind_twin *twin) __unwind_test;
struct bpf_unwind_orphan *bpf_unwind_orphan_acquire(__u32 label) __unwind_test;
struct bpf_unwind_ticket *bpf_unwind_ticket_acquire(__u32 second) __unwind_test;
void bpf_unwind_ticket_release(struct bpf_unwind_ticket *ticket) __unwind_test;
int bpf_iter_unwind_new(struct bpf_iter_unwind *it, __u32 label, __u32 count) __unwind_test;
int *bpf_iter_unwind_next(struct bpf_iter_unwind *it) __unwind_test;
void bpf_iter_unwind_destroy(struct bpf_iter_unwind *it) __unwind_test;
void bpf_unwind_delay(__u32 us) __unwind_test;
void bpf_unwind_cpu(struct bpf_unwind_cpu *cpu) __unwind_test;
__u64 bpf_unwind_sum(__u64 a, __u64 b, __u64 c, __u64 d, __u64 e, __u64 f, __u64 g,
		     __u64 h) __unwind_test;

void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;
void bpf_preempt_disable(void) __ksym;
void bpf_preempt_enable(void) __ksym;
void bpf_local_irq_save(unsigned long *flags__irq_flag) __ksym;
void bpf_local_irq_restore(unsigned long *flags__irq_flag) __ksym;
int bpf_res_spin_lock(struct bpf_res_spin_lock *lock) __ksym;
void bpf_res_spin_unlock(struct bpf_res_spin_lock *lock) __ksym;
int bpf_res_spin_lock_irqsave(struct bpf_res_spin_lock *lock, unsigned long *flags__irq_flag) __ksym;
void bpf_res_spin_unlock_irqrestore(struct bpf_res_spin_lock *lock,
				    unsigned long *flags__irq_flag) __ksym;
void *bpf_obj_new(__u64 local_type_id__k) __ksym;
void bpf_obj_drop(void *p__alloc) __ksym;

#define __exception_cb(name)	__attribute__((btf_decl_tag("exception_callback:" #name)))
#define __contains(type, node)	__attribute__((btf_decl_tag("contains:" #type ":" #node)))
#define new(type)		((type *)bpf_obj_new(bpf_core_type_id_local(type)))
/* Data of which user space does not have a map that it could map. */
#define private(name)		SEC(".data." #name) __hidden __attribute__((aligned(8)))
#define __clobber_all		"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "memory"
#define __naked			__attribute__((naked))

/* Neither compiler nor verifier can know it. */
int one = 1;

/* What the CPU was when the program began. */
struct bpf_unwind_cpu before;

static __always_inline void begin(void)
{
	bpf_unwind_cpu(&before);
}

/* What became of the CPU: the cookie, or what differs. */
static __always_inline int settle(__u64 cookie)
{
	struct bpf_unwind_cpu now = {};

	bpf_unwind_cpu(&now);
	if (now.preempt_count != before.preempt_count)
		return PREEMPT_COUNT;
	if (now.irqs_disabled != before.irqs_disabled)
		return IRQS_DISABLED;
	if (now.rcu_nesting != before.rcu_nesting)
		return RCU_NESTING;
	if (now.migration_disabled != before.migration_disabled)
		return MIGRATION_DISABLED;
	return cookie == COOKIE ? COOKIE : WRONG_COOKIE - (int)cookie;
}

/* The exception callback of programs that are run by BPF_PROG_TEST_RUN. */
__noinline int caught(__u64 cookie)
{
	return settle(cookie);
}

/* A program that is run, throws, and lets go of these objects, by label. */
#define __unwinds(labels)							\
	__exception_cb(caught) __event(test_run) __retval(42) __released(labels)

/* The same, and in this order. */
#define __unwinds_in_order(labels)						\
	__unwinds(labels) __in_order

/* A program that is refused though module bpf_unwind is there. */
#define __refused(pattern)							\
	__exception_cb(caught) __event(none) __failure(EINVAL) __msg(pattern)

#endif /* _BACKSTOP_UNWIND_H */
