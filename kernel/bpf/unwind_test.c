// SPDX-License-Identifier: GPL-2.0
/*
 * Kfuncs for tests of what an exception lets go of: objects that are counted and
 * name themselves when they are released, in every form that a release can
 * have, and what can be told of the state of a CPU.
 *
 * Objects lie in a static pool, so that any context can take one, NMI included,
 * and a second release is seen instead of corrupting memory.
 */

#include <linux/atomic.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/irqflags.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>

#define POOL_SIZE	256
#define LOG_SIZE	128

/* One object of the pool. It is free while nobody refers to it. */
struct bpf_unwind_object {
	/* A struct of scalars could be passed from a program's own memory. */
	const char *type;
	atomic_t users;
	u32 label;
};

/* The same to the pool, another type to the verifier, with another way of release. */
struct bpf_unwind_node { struct bpf_unwind_object object; };	/* by its kfunc, no destructor */
struct bpf_unwind_sleeper { struct bpf_unwind_object object; };	/* by a kfunc that sleeps */
struct bpf_unwind_twin { struct bpf_unwind_object object; };	/* by either of two kfuncs */
struct bpf_unwind_orphan { struct bpf_unwind_object object; };	/* by none */

/* A ticket is a number in a pointer: 1 or 2. */
struct bpf_unwind_ticket { const char *type; };

struct bpf_iter_unwind {
	__u64 __opaque[2];
} __aligned(8);

struct bpf_iter_unwind_kern {
	struct bpf_unwind_object *object;
	u32 left;
	u32 value;
} __aligned(8);

/* What a test compares of a CPU and of the task on it. */
struct bpf_unwind_cpu {
	u32 preempt_count;
	u32 irqs_disabled;
	u32 rcu_nesting;
	u32 migration_disabled;
};

/* What a test compares of all objects. */
struct bpf_unwind_ledger {
	u32 live;	/* references that are held */
	u32 faults;	/* releases of what was not held, or by the wrong function */
	u32 acquired;	/* references ever taken */
	u32 released;	/* and let go of */
	char log[LOG_SIZE]; /* labels in the order of release; zeroes behind */
};

static struct bpf_unwind_object pool[POOL_SIZE];
static atomic_t acquired, released, faults;
static atomic_t tickets[2];
static char log[LOG_SIZE];

static const char object_type[] = "object";
static const char node_type[] = "node";
static const char sleeper_type[] = "sleeper";
static const char twin_type[] = "twin";
static const char orphan_type[] = "orphan";
static const char iter_type[] = "iter";

/* Returns the first free object of the pool, or NULL. */
static struct bpf_unwind_object *take(const char *type, u32 label)
{
	int i;

	for (i = 0; label && i < POOL_SIZE; i++) {
		if (atomic_cmpxchg(&pool[i].users, 0, 1))
			continue;
		pool[i].type = type;
		pool[i].label = label;
		atomic_inc(&acquired);
		return &pool[i];
	}
	return NULL;
}

static void note(u32 label)
{
	u32 pos = atomic_fetch_inc(&released);

	if (pos < LOG_SIZE)
		WRITE_ONCE(log[pos], label);
}

/* Lets go of one reference, if there is one. */
static void put(struct bpf_unwind_object *object, const char *type)
{
	u32 label;

	if (object < pool || object >= pool + POOL_SIZE || object->type != type) {
		atomic_inc(&faults);
		return;
	}
	/* From the last reference on it may be another's. */
	label = object->label;
	if (atomic_dec_if_positive(&object->users) < 0)
		atomic_inc(&faults);
	else
		note(label);
}

/* A function that programs are attached to. */
static noinline __used void bpf_unwind_probe(void)
{
	barrier();
}

__bpf_kfunc_start_defs();

/* Returns a new object that is called @label, or NULL if that is 0. */
__bpf_kfunc struct bpf_unwind_object *bpf_unwind_object_acquire(u32 label)
{
	return take(object_type, label);
}

/* Takes one more reference. */
__bpf_kfunc struct bpf_unwind_object *bpf_unwind_object_get(struct bpf_unwind_object *object)
{
	atomic_inc(&object->users);
	atomic_inc(&acquired);
	return object;
}

__bpf_kfunc void bpf_unwind_object_release(struct bpf_unwind_object *object)
{
	put(object, object_type);
}

__bpf_kfunc void bpf_unwind_object_release_dtor(void *object)
{
	bpf_unwind_object_release(object);
}

CFI_NOSEAL(bpf_unwind_object_release_dtor);

__bpf_kfunc u32 bpf_unwind_object_label(struct bpf_unwind_object *object)
{
	return object->label;
}

__bpf_kfunc struct bpf_unwind_node *bpf_unwind_node_acquire(u32 label)
{
	return (struct bpf_unwind_node *)take(node_type, label);
}

__bpf_kfunc void bpf_unwind_node_release(struct bpf_unwind_node *node)
{
	put(&node->object, node_type);
}

__bpf_kfunc struct bpf_unwind_sleeper *bpf_unwind_sleeper_acquire(u32 label)
{
	return (struct bpf_unwind_sleeper *)take(sleeper_type, label);
}

__bpf_kfunc void bpf_unwind_sleeper_release(struct bpf_unwind_sleeper *sleeper)
{
	might_sleep();
	/* What might_sleep() only says on a debug kernel. */
	if (preempt_count() || irqs_disabled() || rcu_preempt_depth())
		atomic_inc(&faults);
	put(&sleeper->object, sleeper_type);
}

__bpf_kfunc struct bpf_unwind_twin *bpf_unwind_twin_acquire(u32 label)
{
	return (struct bpf_unwind_twin *)take(twin_type, label);
}

__bpf_kfunc void bpf_unwind_twin_release(struct bpf_unwind_twin *twin)
{
	put(&twin->object, twin_type);
}

__bpf_kfunc void bpf_unwind_twin_drop(struct bpf_unwind_twin *twin)
{
	put(&twin->object, twin_type);
}

__bpf_kfunc struct bpf_unwind_orphan *bpf_unwind_orphan_acquire(u32 label)
{
	return (struct bpf_unwind_orphan *)take(orphan_type, label);
}

/* Returns 1 or 2, never NULL. */
__bpf_kfunc struct bpf_unwind_ticket *bpf_unwind_ticket_acquire(u32 second)
{
	atomic_inc(&tickets[second & 1]);
	atomic_inc(&acquired);
	return (struct bpf_unwind_ticket *)((second & 1) + 1UL);
}

__bpf_kfunc void bpf_unwind_ticket_release(struct bpf_unwind_ticket *ticket)
{
	unsigned long number = (unsigned long)ticket;

	if (number - 1 > 1 || atomic_dec_if_positive(&tickets[number - 1]) < 0)
		atomic_inc(&faults);
	else
		note('0' + number);
}

/* Counts from 1 to @count. Fails if @label is 0. */
__bpf_kfunc int bpf_iter_unwind_new(struct bpf_iter_unwind *it, u32 label, u32 count)
{
	struct bpf_iter_unwind_kern *kit = (void *)it;

	BUILD_BUG_ON(sizeof(*kit) != sizeof(*it));
	BUILD_BUG_ON(__alignof__(*kit) != __alignof__(*it));
	kit->object = take(iter_type, label);
	kit->left = kit->object ? count : 0;
	kit->value = 0;
	return kit->object ? 0 : -EINVAL;
}

__bpf_kfunc int *bpf_iter_unwind_next(struct bpf_iter_unwind *it)
{
	struct bpf_iter_unwind_kern *kit = (void *)it;

	if (!kit->left)
		return NULL;
	kit->left--;
	kit->value++;
	return (int *)&kit->value;
}

__bpf_kfunc void bpf_iter_unwind_destroy(struct bpf_iter_unwind *it)
{
	struct bpf_iter_unwind_kern *kit = (void *)it;

	if (kit->object)
		put(kit->object, iter_type);
}

/* Adds more than fit into the registers of BPF. */
__bpf_kfunc u64 bpf_unwind_sum(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h)
{
	return a + b + c + d + e + f + g + h;
}

/*
 * Takes that many microseconds, 1,000 at most, by the clock that deadlines go by:
 * what udelay() counts is calibrated for each CPU, and off in a busy virtual machine.
 */
__bpf_kfunc void bpf_unwind_delay(u32 us)
{
	u64 end = ktime_get_mono_fast_ns() + (u64)min(us, 1000U) * NSEC_PER_USEC;

	while (ktime_get_mono_fast_ns() < end)
		cpu_relax();
}

/* Says what the state of this CPU is. */
__bpf_kfunc void bpf_unwind_cpu(struct bpf_unwind_cpu *cpu)
{
	cpu->preempt_count = preempt_count();
	cpu->irqs_disabled = irqs_disabled();
	cpu->rcu_nesting = rcu_preempt_depth();
	cpu->migration_disabled = current->migration_disabled;
}

/*
 * Calls bpf_unwind_probe() with known values in the registers that a function
 * saves, and returns a bit for each that has another one afterwards: rbx, r12 to
 * r15.
 */
__bpf_kfunc u32 bpf_unwind_registers(void)
{
	u32 changed = 0;

#ifdef CONFIG_X86_64
	asm volatile("movl $0x0b, %%ebx\n\t"
		     "movl $0x12, %%r12d\n\t"
		     "movl $0x13, %%r13d\n\t"
		     "movl $0x14, %%r14d\n\t"
		     "movl $0x15, %%r15d\n\t"
		     "call bpf_unwind_probe\n\t"
		     "xorl %%eax, %%eax\n\t"
		     "cmpq $0x0b, %%rbx\n\t"
		     "je 1f\n\t"
		     "orl $1, %%eax\n"
		     "1:\tcmpq $0x12, %%r12\n\t"
		     "je 2f\n\t"
		     "orl $2, %%eax\n"
		     "2:\tcmpq $0x13, %%r13\n\t"
		     "je 3f\n\t"
		     "orl $4, %%eax\n"
		     "3:\tcmpq $0x14, %%r14\n\t"
		     "je 4f\n\t"
		     "orl $8, %%eax\n"
		     "4:\tcmpq $0x15, %%r15\n\t"
		     "je 5f\n\t"
		     "orl $16, %%eax\n"
		     "5:"
		     : "=a" (changed), ASM_CALL_CONSTRAINT
		     :
		     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
		       "r13", "r14", "r15", "cc", "memory");
#else
	bpf_unwind_probe();
#endif
	return changed;
}

/* Says what became of all objects. */
__bpf_kfunc void bpf_unwind_ledger(struct bpf_unwind_ledger *ledger)
{
	u32 i;

	ledger->acquired = atomic_read(&acquired);
	ledger->released = atomic_read(&released);
	ledger->faults = atomic_read(&faults);
	ledger->live = ledger->acquired - ledger->released;
	for (i = 0; i < LOG_SIZE; i++)
		ledger->log[i] = READ_ONCE(log[i]);
}

/* Forgets what became of objects, and all that are held. */
__bpf_kfunc void bpf_unwind_reset(void)
{
	u32 i;

	for (i = 0; i < POOL_SIZE; i++)
		atomic_set(&pool[i].users, 0);
	atomic_set(&tickets[0], 0);
	atomic_set(&tickets[1], 0);
	atomic_set(&acquired, 0);
	atomic_set(&released, 0);
	atomic_set(&faults, 0);
	memset(log, 0, sizeof(log));
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(unwind_test_ids)
BTF_ID_FLAGS(func, bpf_unwind_object_acquire, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_unwind_object_get, KF_ACQUIRE)
BTF_ID_FLAGS(func, bpf_unwind_object_release, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_unwind_object_label)
BTF_ID_FLAGS(func, bpf_unwind_node_acquire, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_unwind_node_release, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_unwind_sleeper_acquire, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_unwind_sleeper_release, KF_RELEASE | KF_SLEEPABLE)
BTF_ID_FLAGS(func, bpf_unwind_twin_acquire, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_unwind_twin_release, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_unwind_twin_drop, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_unwind_orphan_acquire, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_unwind_ticket_acquire, KF_ACQUIRE)
BTF_ID_FLAGS(func, bpf_unwind_ticket_release, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_iter_unwind_new, KF_ITER_NEW)
BTF_ID_FLAGS(func, bpf_iter_unwind_next, KF_ITER_NEXT | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_iter_unwind_destroy, KF_ITER_DESTROY)
BTF_ID_FLAGS(func, bpf_unwind_sum)
BTF_ID_FLAGS(func, bpf_unwind_delay)
BTF_ID_FLAGS(func, bpf_unwind_cpu)
BTF_ID_FLAGS(func, bpf_unwind_registers)
BTF_ID_FLAGS(func, bpf_unwind_ledger)
BTF_ID_FLAGS(func, bpf_unwind_reset)
BTF_KFUNCS_END(unwind_test_ids)

static const struct btf_kfunc_id_set unwind_test_set = {
	.owner = THIS_MODULE,
	.set = &unwind_test_ids,
};

BTF_ID_LIST(unwind_test_dtor_ids)
BTF_ID(struct, bpf_unwind_object)
BTF_ID(func, bpf_unwind_object_release_dtor)

static int __init unwind_test_init(void)
{
	const struct btf_id_dtor_kfunc dtors[] = {
		{
			.btf_id = unwind_test_dtor_ids[0],
			.kfunc_btf_id = unwind_test_dtor_ids[1],
		},
	};
	int err;

	err = register_btf_id_dtor_kfuncs(dtors, ARRAY_SIZE(dtors), THIS_MODULE);
	return err ?: register_btf_kfunc_id_set(BPF_PROG_TYPE_UNSPEC, &unwind_test_set);
}

static void __exit unwind_test_exit(void)
{
}

module_init(unwind_test_init);
module_exit(unwind_test_exit);

MODULE_DESCRIPTION("Kfuncs to test what BPF exceptions let go of");
MODULE_LICENSE("GPL");
