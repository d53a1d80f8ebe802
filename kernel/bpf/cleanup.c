// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a BPF program holds when it throws, or is ended: the verifier's part.
 *
 * While the verifier walks the program, the functions called here from it note
 * which instructions acquire and release what, and what is held where the
 * program may throw. Afterwards bpf_unwind_instrument() gives everything that
 * may be held there a slot, and inserts instructions that fill the slot where
 * the resource is acquired and clear it where it is released. A throw then
 * releases what it finds; nothing depends on what the verifier knows of the path
 * that led to it, on registers, or on the program's stack, with one exception:
 * iterators and saved interrupt flags are released by their address. Their stack
 * slots are never cleaned in stored states, so that pruning compares them.
 *
 * Slots lie in the frame of the boundary at which unwinding stops: the main
 * program, or a callback. Subprograms get that address from their caller in r0,
 * which no BPF calling convention uses at a call.
 *
 * A program with a deadline may also be ended at checkpoints, see checkpoint.c:
 * then everything that is acquired anywhere has a slot. No program is refused for
 * that: where what it holds could not be released, it has no deadline.
 */
#include <linux/bpf.h>
#include <linux/bpf_deadline.h>
#include <linux/bpf_unwind.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/filter.h>
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/sort.h>

#include "diagnostics.h"

#define verbose(env, fmt, args...) bpf_verifier_log_write(env, fmt, ##args)

/*
 * Instructions that fill or clear one slot, and what comes with any number of them. An
 * object may be put into a list or tree by each node that it has.
 */
#define INSNS_PER_SLOT	6
#define INSNS_FIXED	32
#define INSNS_MAX	((3 + BTF_FIELDS_MAX) * INSNS_PER_SLOT * BPF_UNWIND_MAX_SLOTS + INSNS_FIXED)

/* Stack that all functions which are active at once may need together for what they hold. */
#define MAX_EXTRA_STACK	1024

/* An instruction that acquires, or an argument that the program owns from the first one on. */
struct unwind_site {
	struct bpf_unwind_slot slot;
	s32 insn_idx;		/* -1: an argument */
	u8 arg;			/* register with the resource's address, or 0: r0 returns it */
	u8 first;		/* slots that it fills: the first one that is free of them */
	u8 nr;
	u8 own;			/* of these, the first that it brings along */
	u16 joined;		/* index of itself, or of one that some instruction releases as well */
	s32 offset;		/* the object starts that many bytes before what is acquired */
	u8 concurrent;		/* held at once in the function that is being verified */
	u8 counted;		/* of that function in total */
	u8 total;		/* in all functions that are verified on their own */
	bool known;		/* slot says how to release */
	bool bound_to_rcu;	/* an iterator that has to be destroyed in the section of its RCU pointers */
	bool ambiguous;		/* acquires different things on different paths */
	bool sleeps;		/* its release may sleep */
	bool unsafe;		/* it could be released elsewhere, but not where the program may run */
	bool at_throw;		/* held at one */
	bool leads_held;	/* one that is joined to it is */
	bool held;		/* at a throw or a checkpoint: has slots */
	s32 outside;		/* released by this instruction of another boundary, or -1 */
};

/* What an instruction releases: what a site acquired, and what the next one says. */
struct unwind_release {
	u32 next;		/* index + 1 */
	u16 site;
	u16 offset;		/* the object starts that many bytes before what the instruction gets */
};

enum unwind_op {
	OP_RCU_ENTER		= BIT(0),
	OP_RCU_LEAVE		= BIT(1),
	OP_PREEMPT_ENTER	= BIT(2),
	OP_PREEMPT_LEAVE	= BIT(3),
	OP_CALLBACK		= BIT(4), /* calls a callback that may throw */
	OP_OTHER		= BIT(5), /* acquires nothing on some path, and returns something else */
	OP_RELEASE_OTHER	= BIT(6), /* releases on some path what has no slot */
};

struct unwind_insn {
	u16 site;		/* index + 1 */
	u8 ops;			/* enum unwind_op */
	u32 releases;		/* index + 1 of the first of them */
	u32 checkpoint;		/* fuel that a checkpoint in front of it takes, or 0 */
};

/* Where a function keeps what, as distances below r10. */
struct unwind_frame {
	u16 area;		/* of a boundary: slot 0 */
	u16 base;		/* of a subprogram: address of slot 0 */
	u16 scratch;		/* two words */
	u16 pending;
	u16 run;		/* where a run ends: struct bpf_run */
	u16 depth;		/* of the whole frame */
	u32 extra;		/* stack that the verifier has not counted, from here on */
	bool boundary;
	bool ends;		/* has checkpoints, or calls what has */
	u32 weight;		/* of all that it executes at most, but for loops */
	bool calls_end;		/* calls what has */
	bool called_back;	/* synchronously, and may throw */
	bool stops;		/* of a callback: non-zero makes its helper stop */
	u64 slots;		/* touched here, or in what is called from here */
};

struct bpf_unwind_env {
	const struct bpf_unwind_ops *ops;
	struct bpf_unwind_table *table;
	struct unwind_insn *insns;
	struct unwind_site *sites;
	u16 arguments[MAX_BPF_FUNC_ARGS]; /* index + 1 of the site of each that the program owns */
	struct unwind_release *releases;
	struct unwind_frame *frames;
	u32 nr_insns;
	u32 nr_sites;
	u32 nr_releases;
	u32 nr_slots;
	int unit;		/* that was verified last, a function */
	u32 max_locks;		/* resilient locks nested in each other */
	u8 lock, res_lock, irq, preempt, rcu; /* index of the slot */
	u32 at_throw;		/* BIT(kind) of what is held there and shares slots */
	u32 held;		/* the same at a throw or a checkpoint */
	struct bpf_deadline *deadline;
	u32 allowance;		/* instructions that were processed for a deadline that was dropped */
	const char *unbalanced;	/* how a callback leaves other regions than it entered, or NULL */
	u32 unbalanced_at;	/* insn */
	bool throws;
	bool thrown;		/* a throw was verified: throws, and not only in dead code */
	bool takes_irq_lock;	/* bpf_res_spin_lock_irqsave() */
	bool out_of_memory;	/* where no error could be returned */
	bool verified;		/* what is dead is known */
};

/* Prevents that a module goes while its ops are taken. */
static DEFINE_MUTEX(ops_lock);
static const struct bpf_unwind_ops *unwind_ops;

int bpf_unwind_register(const struct bpf_unwind_ops *ops)
{
	guard(mutex)(&ops_lock);
	if (unwind_ops)
		return -EBUSY;
	unwind_ops = ops;
	return 0;
}
EXPORT_SYMBOL_GPL(bpf_unwind_register);

void bpf_unwind_unregister(const struct bpf_unwind_ops *ops)
{
	guard(mutex)(&ops_lock);
	if (unwind_ops == ops)
		unwind_ops = NULL;
}
EXPORT_SYMBOL_GPL(bpf_unwind_unregister);

static const struct bpf_unwind_ops *ops_get(void)
{
	guard(mutex)(&ops_lock);
	return unwind_ops && try_module_get(unwind_ops->owner) ? unwind_ops : NULL;
}

bool __weak bpf_jit_supports_unwind(void)
{
	return false;
}

void __weak bpf_throw_stub(u64 cookie, struct bpf_prog_aux *aux)
{
}

/* A program that neither throws nor has a deadline any more needs no slots. */
static bool needed(const struct bpf_unwind_env *unwind)
{
	return unwind && (unwind->throws || unwind->deadline);
}

static bool active(const struct bpf_verifier_env *env)
{
	return needed(env->unwind) && !env->cur_state->speculative;
}

bool bpf_unwind_compares(const struct bpf_verifier_env *env)
{
	return needed(env->unwind);
}

static void no_deadline(struct bpf_unwind_env *unwind)
{
	bpf_deadline_free(unwind->deadline);
	unwind->deadline = NULL;
}

static void drop(struct bpf_verifier_env *env, const char *name, const char *reason)
{
	verbose(env, "no deadline: %s: %s\n", name, reason);
	no_deadline(env->unwind);
}

/*
 * Whether what cannot be released is no reason to refuse the program: a deadline
 * that it would have is dropped instead. While a program is verified, only throws
 * are; what a deadline needs beyond them is found out when slots are allocated.
 */
static bool drop_deadline(struct bpf_verifier_env *env, const char *name, const char *reason)
{
	struct bpf_unwind_env *unwind = env->unwind;

	if (!unwind->deadline || (unwind->throws && !unwind->table))
		return false;
	drop(env, name, reason);
	return true;
}

/* The deadline is dropped: what has been planned with it is planned again, see plan(). */
static int again(const struct bpf_verifier_env *env)
{
	return env->unwind->table ? -EAGAIN : 0;
}

/* The function that the instruction calls, or has called back, or a negative number. */
static int callee_of(struct bpf_verifier_env *env, u32 insn_idx)
{
	const struct bpf_insn *insn = &env->prog->insnsi[insn_idx];

	if (!bpf_pseudo_call(insn) && !bpf_pseudo_func(insn))
		return -ENOENT;
	return bpf_find_subprog(env, insn_idx + insn->imm + 1);
}

/*
 * Has each function throw that calls, or calls back, what may. check_cfg() does so when
 * it leaves the function, and has not seen then what a cycle leads back to that goes by
 * the address of an asynchronous callback.
 */
static void propagate_throws(struct bpf_verifier_env *env)
{
	struct bpf_subprog_info *info = env->subprog_info;
	int k, subprog, callee;
	bool changed;
	u32 i;

	do {
		changed = false;
		for (k = 0; k < env->subprog_cnt; k++) {
			subprog = env->subprog_topo_order[k];
			for (i = info[subprog].start;
			     i < info[subprog + 1].start && !info[subprog].might_throw; i++) {
				callee = callee_of(env, i);
				if (callee < 0 || !info[callee].might_throw)
					continue;
				info[subprog].might_throw = true;
				changed = true;
			}
			cond_resched();
		}
	} while (changed);
}

/* Whether the instruction is removed since it is never executed, or never jumps back. */
static bool is_dead(const struct bpf_verifier_env *env, u32 insn_idx)
{
	const struct bpf_insn_aux_data *data = env->insn_aux_data;
	struct bpf_insn *insn = &env->prog->insnsi[insn_idx];

	if (!env->unwind->verified)
		return false;
	return !data[insn_idx].seen ||
	       (bpf_jumps_back(insn) && !data[insn_idx + 1 + bpf_jmp_offset(insn)].seen);
}

/* Whether some function may take long even without a loop, in what it calls. */
static bool is_long(struct bpf_verifier_env *env)
{
	const struct bpf_subprog_info *info = env->subprog_info;
	const struct bpf_insn *insn = env->prog->insnsi;
	struct unwind_frame *frames = env->unwind->frames;
	int k, subprog, callee;
	u64 weight;
	u32 i;

	/* Callees before callers, see sort_subprogs_topo(). */
	for (k = 0; k < env->subprog_cnt; k++) {
		subprog = env->subprog_topo_order[k];
		weight = 0;
		for (i = info[subprog].start; i < info[subprog + 1].start; i++) {
			if (is_dead(env, i))
				continue;
			weight += bpf_checkpoint_weight(env, i, i);
			callee = bpf_pseudo_call(&insn[i]) ?
				 bpf_find_subprog(env, i + insn[i].imm + 1) : -1;
			if (callee >= 0)
				weight += frames[callee].weight;
		}
		if (weight > BPF_CHECKPOINT_FREE)
			return true;
		frames[subprog].weight = weight;
		cond_resched();
	}
	return false;
}

/* Notes where checkpoints have to be; returns whether there are any. */
static bool find_checkpoints(struct bpf_verifier_env *env)
{
	struct bpf_unwind_env *unwind = env->unwind;
	struct bpf_insn *insn = env->prog->insnsi;
	bool found = false, calls = is_long(env);
	u32 i, subprog = 0;

	for (i = 0; i < env->prog->len; i++) {
		struct unwind_insn *noted = &unwind->insns[i];

		if (i == env->subprog_info[subprog + 1].start)
			subprog++;
		/* What calls back looks behind each call. */
		found |= unwind->verified ? noted->ops & OP_CALLBACK :
					    bpf_is_sync_callback_calling_insn(&insn[i]);
		/* An exception callback runs when the run has ended. */
		if (is_dead(env, i) || env->subprog_info[subprog].is_exception_cb)
			noted->checkpoint = 0;
		else
			noted->checkpoint = bpf_checkpoint_at(env, i, calls);
		found |= !!noted->checkpoint;
		if (bpf_is_ldimm64(&insn[i]))
			i++;
		cond_resched();
	}
	return found;
}

/* Whether the kernel has something to do when the program has returned. */
bool bpf_has_epilogue(struct bpf_verifier_env *env)
{
	return env->ops->gen_epilogue &&
	       env->ops->gen_epilogue(env->epilogue_buf, env->prog, 0) > 0;
}

/* Keeps the deadline of the program if that can run long, and can be ended. */
static void prepare_deadline(struct bpf_verifier_env *env)
{
	struct bpf_unwind_env *unwind = env->unwind;

	if (!find_checkpoints(env)) {
		no_deadline(unwind);
		return;
	}
	unwind->deadline->callback = env->exception_callback_subprog;
	if (bpf_has_epilogue(env))
		drop(env, "program", "what follows it would not run");
}

/*
 * Called when it is known which functions may throw, what calls what, and what the
 * program is attached to, before any instruction is verified.
 */
int bpf_unwind_prepare(struct bpf_verifier_env *env)
{
	const struct bpf_unwind_ops *ops;
	struct bpf_deadline *deadline;
	struct bpf_unwind_env *unwind;
	struct bpf_kfunc_desc *desc;
	bool throws = false;
	int i;

	if (!env->prog->jit_requested || !bpf_jit_supports_unwind() ||
	    bpf_prog_is_offloaded(env->prog->aux))
		return 0;
	propagate_throws(env);
	for (i = 0; i < env->subprog_cnt; i++)
		throws |= env->subprog_info[i].might_throw;
	desc = throws ? bpf_find_kfunc_desc(env->prog, bpf_throw_kfunc_id(), 0) : NULL;

	ops = ops_get();
	if (!ops)
		return 0;
	unwind = kzalloc_obj(*unwind, GFP_KERNEL_ACCOUNT);
	if (!unwind) {
		module_put(ops->owner);
		return -ENOMEM;
	}
	env->unwind = unwind;
	unwind->ops = ops;
	unwind->throws = desc;
	deadline = bpf_deadline_alloc(env);
	if (IS_ERR(deadline))
		return PTR_ERR(deadline);
	unwind->deadline = deadline;
	if (!needed(unwind)) {
		bpf_unwind_free(env);
		return 0;
	}
	unwind->nr_insns = env->prog->len;
	unwind->insns = kvzalloc_objs(*unwind->insns, env->prog->len, GFP_KERNEL_ACCOUNT);
	unwind->frames = kvzalloc_objs(*unwind->frames, env->subprog_cnt + 1, GFP_KERNEL_ACCOUNT);
	if (!unwind->insns || !unwind->frames)
		return -ENOMEM;
	if (unwind->deadline)
		prepare_deadline(env);
	if (!needed(unwind))
		bpf_unwind_free(env);
	else if (unwind->throws)
		desc->addr = (unsigned long)bpf_throw_stub;
	return 0;
}

void bpf_unwind_free(struct bpf_verifier_env *env)
{
	struct bpf_unwind_env *unwind = env->unwind;

	if (!unwind)
		return;
	/* A table that is published took over the reference. */
	if (unwind->table)
		bpf_unwind_table_free(unwind->table);
	else if (unwind->ops)
		module_put(unwind->ops->owner);
	bpf_deadline_free(unwind->deadline);
	kvfree(unwind->insns);
	kvfree(unwind->frames);
	kvfree(unwind->sites);
	kvfree(unwind->releases);
	kfree(unwind);
	env->unwind = NULL;
}

void bpf_unwind_table_free(struct bpf_unwind_table *table)
{
	if (!table)
		return;
	bpf_deadline_free(table->deadline);
	module_put(table->ops->owner);
	kvfree(table->funcs);
	kvfree(table);
}

/*
 * Called when so many instructions have been processed as are allowed: whether more
 * are, since a program is not too large because its states are told apart.
 */
bool bpf_unwind_allows_more(struct bpf_verifier_env *env)
{
	struct bpf_unwind_env *unwind = env->unwind;

	if (!unwind)
		return false;
	if (unwind->deadline && !unwind->throws) {
		drop(env, "program", "it is too large with it");
		unwind->allowance = BPF_COMPLEXITY_LIMIT_INSNS;
	}
	return env->insn_processed <= BPF_COMPLEXITY_LIMIT_INSNS + unwind->allowance;
}

/*
 * A function that is verified on its own is done: what it holds at once adds to what its
 * callers hold. It may be verified for two contexts, mostly one after the other.
 */
void bpf_unwind_unit_done(struct bpf_verifier_env *env, int subprog)
{
	struct bpf_unwind_env *unwind = env->unwind;
	struct unwind_site *site;
	u32 i, more;

	for (i = 0; unwind && i < unwind->nr_sites; i++) {
		site = &unwind->sites[i];
		if (subprog != unwind->unit)
			site->counted = 0;
		more = site->concurrent > site->counted ? site->concurrent - site->counted : 0;
		site->counted += more;
		site->total = min(site->total + more, BPF_UNWIND_MAX_SLOTS + 1);
		site->concurrent = 0;
	}
	if (unwind)
		unwind->unit = subprog;
}

static struct unwind_site *site_of(struct bpf_unwind_env *unwind, u32 insn_idx)
{
	u16 site = unwind->insns[insn_idx].site;

	return site ? &unwind->sites[site - 1] : NULL;
}

/* An argument that the program owns from its first instruction on, or -1: an instruction acquires it. */
static int argument_of(const struct bpf_verifier_env *env, const struct bpf_reference_state *ref)
{
	const struct bpf_prog_aux *aux = env->prog->aux;
	u32 i;

	for (i = 0; i < aux->ctx_arg_info_size; i++) {
		if (aux->ctx_arg_info[i].refcounted && aux->ctx_arg_info[i].ref_id == ref->id)
			return i;
	}
	return -1;
}

static struct unwind_site *site_of_ref(const struct bpf_verifier_env *env,
				       const struct bpf_reference_state *ref)
{
	struct bpf_unwind_env *unwind = env->unwind;
	int argument = argument_of(env, ref);

	if (argument < 0)
		return site_of(unwind, ref->insn_idx);
	return unwind->arguments[argument] ?
	       &unwind->sites[unwind->arguments[argument] - 1] : NULL;
}

/* Whether a throw would find two references in the same slot. */
bool bpf_unwind_same_slot(const struct bpf_verifier_env *env, const struct bpf_reference_state *a,
			  const struct bpf_reference_state *b)
{
	return a->insn_idx == b->insn_idx && a->frameno == b->frameno &&
	       argument_of(env, a) == argument_of(env, b);
}

/* Room for one more than @nr elements, doubled when there is none: where @nr is a power of two. */
static void *grow(void *elements, u32 nr, size_t size)
{
	if (nr & (nr - 1))
		return elements;
	return kvrealloc(elements, array_size(nr ? 2 * nr : 1, size), GFP_KERNEL_ACCOUNT);
}

static struct unwind_site *add_site(struct bpf_unwind_env *unwind, s32 insn_idx, u8 arg,
				    const struct unwind_site *found)
{
	struct unwind_site *site, *sites;

	if (unwind->nr_sites == U16_MAX)
		return ERR_PTR(-E2BIG);
	sites = grow(unwind->sites, unwind->nr_sites, sizeof(*sites));
	if (!sites)
		return ERR_PTR(-ENOMEM);
	unwind->sites = sites;
	site = &sites[unwind->nr_sites++];
	*site = *found;
	site->slot.insn_idx = insn_idx;
	site->insn_idx = insn_idx;
	site->arg = arg;
	site->joined = site - sites;
	site->outside = -1;
	return site;
}

/* There is no site for what is acquired: memory is used up, or the numbers of sites are. */
static int refuse_site(struct bpf_verifier_env *env, int err)
{
	if (err != -E2BIG)
		return err;
	if (drop_deadline(env, "program", "it acquires something at too many instructions"))
		return 0;
	verbose(env, "more than %d instructions acquire what a throw may have to release\n", U16_MAX);
	return err;
}

/* Notes that @insn_idx acquires what @slot says; @arg is where it leaves the address. */
static int note_site(struct bpf_verifier_env *env, u32 insn_idx, u8 arg,
		     const struct unwind_site *found)
{
	struct bpf_verifier_state *state = env->cur_state;
	struct bpf_unwind_env *unwind = env->unwind;
	struct unwind_site *site;
	u32 i, concurrent = 0;

	site = site_of(unwind, insn_idx);
	if (!site) {
		site = add_site(unwind, insn_idx, arg, found);
		if (IS_ERR(site))
			return refuse_site(env, PTR_ERR(site));
		unwind->insns[insn_idx].site = unwind->nr_sites;
	} else if (site->known != found->known || site->slot.kind != found->slot.kind ||
		   site->offset != found->offset ||
		   site->slot.release != found->slot.release) {
		site->ambiguous = true;
	}

	for (i = 0; i < state->acquired_refs; i++)
		concurrent += state->refs[i].insn_idx == insn_idx &&
			      argument_of(env, &state->refs[i]) < 0;
	site->concurrent = max(site->concurrent, min(concurrent, BPF_UNWIND_MAX_SLOTS + 1));
	return 0;
}

/* What is acquired and has nothing to release. */
static bool releases_nothing(const char *type)
{
	static const char * const types[] = {
		"bpf_iter_num", "bpf_iter_task", "bpf_iter_css", "cpumask",
	};

	return match_string(types, ARRAY_SIZE(types), type) >= 0;
}

/*
 * A throw calls what sleeps when it has left all regions and locks up to its boundary. Those
 * outside are left later, so that the program has to be in none where it acquires.
 */
static void set_release(struct bpf_verifier_env *env, struct unwind_site *found,
			const struct btf *btf, s32 func_id)
{
	const struct btf_type *func = btf_type_by_id(btf, func_id);
	unsigned long addr;

	addr = func ? kallsyms_lookup_name(btf_name_by_offset(btf, func->name_off)) : 0;
	if (!addr)
		return;
	found->slot.release = (void *)addr;
	found->sleeps = btf_kfunc_sleeps(btf, func_id);
	found->known = !found->sleeps || bpf_may_sleep(env);
}

/*
 * Whether what the kfunc @id does may be done wherever the program runs: in NMI, or
 * under a lock, if the program may call it there itself.
 */
static bool is_safe_to_call(struct bpf_verifier_env *env, const struct btf *btf, s32 id)
{
	const u32 *flags;

	if (!bpf_obj_drop_in_nmi(env) && !bpf_in_locked_callback(env))
		return true;
	flags = id < 0 ? NULL : btf_kfunc_flags(btf, id, env->prog);
	return flags && (!bpf_in_locked_callback(env) || *flags & KF_SPINLOCK_SAFE);
}

/* A pointer to a kernel type: its destructor, else the one kfunc that releases it. */
static void find_release(struct bpf_verifier_env *env, struct unwind_site *found,
			 struct btf *btf, u32 type_id)
{
	struct btf *vmlinux = bpf_get_btf_vmlinux();
	s32 id, kfunc;

	found->slot.kind = BPF_UNWIND_KFUNC;
	id = btf_find_dtor_kfunc(btf, type_id);
	kfunc = btf_find_release_kfunc(btf, type_id);
	if (id < 0 && kfunc == -ENOENT && btf != vmlinux && type_id < btf_nr_types(vmlinux)) {
		btf = vmlinux;
		id = btf_find_dtor_kfunc(btf, type_id);
		kfunc = btf_find_release_kfunc(btf, type_id);
	}
	if (id < 0)
		id = kfunc;
	found->unsafe = id >= 0 && !is_safe_to_call(env, btf, kfunc);
	if (id >= 0 && !found->unsafe)
		set_release(env, found, btf, id);
}

/*
 * Lists and trees are emptied under a lock of their own, which saves IRQ flags where any
 * other does. What a field refers to may have one, or a destructor.
 */
static bool is_unsafe_to_drop(struct bpf_verifier_env *env, const struct btf_record *record)
{
	return (bpf_obj_drop_in_nmi(env) && btf_record_has_nmi_unsafe_fields(record)) ||
	       (bpf_in_locked_callback(env) &&
		btf_record_has_field(record, BPF_GRAPH_ROOT | BPF_KPTR_REF));
}

int bpf_unwind_acquire_reg(struct bpf_verifier_env *env, u32 insn_idx,
			   const struct bpf_reg_state *reg)
{
	const struct bpf_func_proto *release;
	struct unwind_site found = {};

	if (!active(env))
		return 0;
	switch (base_type(reg->type)) {
	case PTR_TO_MEM:
		found.slot.kind = BPF_UNWIND_RINGBUF;
		found.slot.name = "ringbuf record";
		found.known = reg->type & MEM_RINGBUF;
		break;
	case PTR_TO_SOCKET:
	case PTR_TO_SOCK_COMMON:
	case PTR_TO_TCP_SOCK:
		found.slot.kind = BPF_UNWIND_SOCK;
		found.slot.name = "sock";
		/* Any program may look one up in a map. */
		found.unsafe = bpf_get_helper_proto(env, BPF_FUNC_sk_release, &release) < 0;
		found.known = !found.unsafe;
		break;
	case PTR_TO_BTF_ID:
		found.slot.name = btf_name_by_offset(reg->btf,
						     btf_type_by_id(reg->btf, reg->btf_id)->name_off);
		if (!(reg->type & MEM_ALLOC)) {
			if (releases_nothing(found.slot.name))
				return 0;
			find_release(env, &found, reg->btf, reg->btf_id);
			break;
		}
		found.slot.kind = reg->type & MEM_PERCPU ? BPF_UNWIND_PERCPU_OBJ : BPF_UNWIND_OBJ;
		found.slot.meta = btf_find_struct_meta(reg->btf, reg->btf_id);
		/* A node that is taken out of a list or tree is known by the node in it. */
		found.offset = reg->var_off.value;
		found.unsafe = found.slot.meta && is_unsafe_to_drop(env, found.slot.meta->record);
		found.known = !found.unsafe;
		break;
	default:
		found.slot.name = "resource";
	}
	return note_site(env, insn_idx, BPF_REG_0, &found);
}

/* The program owns one of its arguments from its first instruction on. */
int bpf_unwind_acquire_argument(struct bpf_verifier_env *env, u32 argument)
{
	const struct bpf_ctx_arg_aux *info = &env->prog->aux->ctx_arg_info[argument];
	struct btf *btf = info->btf ?: bpf_get_btf_vmlinux();
	struct unwind_site found = { .concurrent = 1 };
	struct unwind_site *site;

	if (!active(env))
		return 0;
	if (argument >= ARRAY_SIZE(env->unwind->arguments))
		return -E2BIG;
	found.slot.name = btf_name_by_offset(btf, btf_type_by_id(btf, info->btf_id)->name_off);
	if (releases_nothing(found.slot.name))
		return 0;
	find_release(env, &found, btf, info->btf_id);
	site = add_site(env->unwind, -1, BPF_REG_1, &found);
	if (IS_ERR(site))
		return PTR_ERR(site);
	env->unwind->arguments[argument] = env->unwind->nr_sites;
	return 0;
}

static u8 arg_of(struct bpf_verifier_env *env, const struct bpf_reg_state *arg)
{
	return arg - env->cur_state->frame[env->cur_state->curframe]->regs;
}

int bpf_unwind_acquire_iter(struct bpf_verifier_env *env, u32 insn_idx,
			    const struct bpf_reg_state *arg, const struct btf *btf, u32 btf_id,
			    bool bound_to_rcu)
{
	const char *name = btf_name_by_offset(btf, btf_type_by_id(btf, btf_id)->name_off);
	struct unwind_site found = {
		.slot = { .kind = BPF_UNWIND_ITER, .name = name },
		.bound_to_rcu = bound_to_rcu,
	};
	char destroy[KSYM_NAME_LEN];
	s32 id;

	if (!active(env) || releases_nothing(name))
		return 0;
	snprintf(destroy, sizeof(destroy), "%s_destroy", name);
	id = btf_find_by_name_kind(btf, destroy, BTF_KIND_FUNC);
	if (id > 0)
		set_release(env, &found, btf, id);
	return note_site(env, insn_idx, arg_of(env, arg), &found);
}

int bpf_unwind_acquire_dynptr(struct bpf_verifier_env *env, u32 insn_idx,
			      const struct bpf_reg_state *arg, enum bpf_dynptr_type type)
{
	struct unwind_site found = {
		.slot.kind = type == BPF_DYNPTR_TYPE_FILE ? BPF_UNWIND_FILE_DYNPTR
							   : BPF_UNWIND_RINGBUF_DYNPTR,
		.slot.name = type == BPF_DYNPTR_TYPE_FILE ? "file dynptr" : "ringbuf dynptr",
		.known = type == BPF_DYNPTR_TYPE_FILE || type == BPF_DYNPTR_TYPE_RINGBUF,
	};

	return active(env) ? note_site(env, insn_idx, arg_of(env, arg), &found) : 0;
}

int bpf_unwind_acquire_lock(struct bpf_verifier_env *env, u32 insn_idx, enum ref_state_type type)
{
	struct unwind_site found = {
		.slot.kind = type == REF_TYPE_LOCK ? BPF_UNWIND_SPIN_LOCK : BPF_UNWIND_RES_LOCK,
		.slot.name = type == REF_TYPE_LOCK ? "bpf_spin_lock" : "bpf_res_spin_lock",
		.known = true,
	};

	if (!active(env))
		return 0;
	env->unwind->takes_irq_lock |= type == REF_TYPE_RES_LOCK_IRQ;
	if (type != REF_TYPE_LOCK)
		env->unwind->max_locks = max_t(u32, env->unwind->max_locks,
					       env->cur_state->active_locks);
	return note_site(env, insn_idx, BPF_REG_1, &found);
}

int bpf_unwind_acquire_irq(struct bpf_verifier_env *env, u32 insn_idx,
			   const struct bpf_reg_state *arg, bool of_lock)
{
	struct unwind_site found = {
		.slot.kind = BPF_UNWIND_IRQ,
		.slot.name = "saved IRQ flags",
		.known = true,
	};

	/* bpf_res_spin_lock_irqsave() is a site already: of the lock. */
	if (!active(env) || of_lock)
		return 0;
	return note_site(env, insn_idx, arg_of(env, arg), &found);
}

/* The one that stands for all sites that are joined to this one. */
static struct unwind_site *leader(struct bpf_unwind_env *unwind, struct unwind_site *site)
{
	struct unwind_site *sites = unwind->sites;

	while (&sites[site->joined] != site) {
		site->joined = sites[site->joined].joined;
		site = &sites[site->joined];
	}
	return site;
}

/* For all that the instruction @insn_idx releases. */
#define for_each_release(unwind, insn_idx, found, i)				\
	for (i = (unwind)->insns[insn_idx].releases;				\
	     i && (found = &(unwind)->sites[(unwind)->releases[i - 1].site], true); \
	     i = (unwind)->releases[i - 1].next)

/* Whether several sites may have acquired the same object, each a reference of its own. */
static bool may_share_object(const struct unwind_site *site)
{
	return site->slot.kind == BPF_UNWIND_OBJ || site->slot.kind == BPF_UNWIND_SOCK ||
	       site->slot.kind == BPF_UNWIND_KFUNC || site->ambiguous;
}

static void join(struct bpf_unwind_env *unwind, struct unwind_site *site, struct unwind_site *other)
{
	site = leader(unwind, site);
	other = leader(unwind, other);
	if (other < site)
		swap(other, site);
	other->joined = site - unwind->sites;
}

/*
 * An instruction that releases what either of two sites acquired cannot tell which, if
 * both have acquired the same object. What they acquire is known when all is verified.
 */
static void join_sites(struct bpf_unwind_env *unwind)
{
	struct unwind_site *site, *before;
	u32 insn_idx, i;

	for (insn_idx = 0; insn_idx < unwind->nr_insns; insn_idx++) {
		before = NULL;
		for_each_release(unwind, insn_idx, site, i) {
			if (!may_share_object(site))
				continue;
			if (before)
				join(unwind, before, site);
			before = site;
		}
	}
}

/* Whether the instruction releases from the same slots, at the same offset, what came before. */
static bool is_repeated(struct bpf_unwind_env *unwind, u32 insn_idx, u32 release)
{
	const struct unwind_release *releases = unwind->releases;
	u8 first = unwind->sites[releases[release - 1].site].first;
	struct unwind_site *site;
	u32 i;

	for_each_release(unwind, insn_idx, site, i) {
		if (i == release)
			break;
		if (site->held && site->first == first &&
		    releases[i - 1].offset == releases[release - 1].offset)
			return true;
	}
	return false;
}

/* Called while the reference is still in the state. Cannot fail: some who release cannot. */
void bpf_unwind_release(struct bpf_verifier_env *env, const struct bpf_reference_state *ref)
{
	struct bpf_verifier_state *state = env->cur_state;
	struct bpf_unwind_env *unwind = env->unwind;
	struct unwind_site *site, *other;
	struct unwind_release *releases;
	u32 frameno = state->curframe, i;
	struct unwind_insn *noted;
	u16 offset = 0;

	if (!active(env))
		return;
	site = site_of_ref(env, ref);
	if (!site) {
		unwind->insns[env->insn_idx].ops |= OP_RELEASE_OTHER;
		return;
	}
	while (frameno && !state->frame[frameno]->in_callback_fn)
		frameno--;
	if (frameno != ref->frameno)
		site->outside = env->insn_idx;

	if (bpf_takes_graph_node(&env->prog->insnsi[env->insn_idx]))
		offset = state->frame[state->curframe]->regs[BPF_REG_2].var_off.value;
	for_each_release(unwind, env->insn_idx, other, i) {
		if (other == site && unwind->releases[i - 1].offset == offset)
			return;
	}
	i = unwind->nr_releases;
	releases = grow(unwind->releases, i, sizeof(*releases));
	if (!releases) {
		unwind->out_of_memory = true;
		return;
	}
	noted = &unwind->insns[env->insn_idx];
	unwind->releases = releases;
	releases[i].site = site - unwind->sites;
	releases[i].offset = offset;
	releases[i].next = noted->releases;
	noted->releases = ++unwind->nr_releases;
}

static const struct bpf_func_state *boundary_frame(const struct bpf_verifier_state *state)
{
	u32 frameno = state->curframe;

	while (frameno && !state->frame[frameno]->in_callback_fn)
		frameno--;
	return state->frame[frameno];
}

/* Each boundary counts its own regions: what leaves another one's cannot be where anything throws. */
static void note_region(struct bpf_verifier_env *env, const char *how)
{
	struct bpf_unwind_env *unwind = env->unwind;

	if (unwind->deadline)
		drop(env, "region", "a callback enters or leaves it");
	unwind->unbalanced = how;
	unwind->unbalanced_at = env->insn_idx;
}

/* Known when all of the program has been verified: a throw in dead code is none. */
static int check_regions(struct bpf_verifier_env *env)
{
	const struct bpf_unwind_env *unwind = env->unwind;

	if (!unwind->unbalanced || !unwind->thrown)
		return 0;
	verbose(env, "callback %s other RCU or preempt-disabled regions than it entered\n",
		unwind->unbalanced);
	bpf_diag_res(env, unwind->unbalanced_at, "unbalanced region in a callback",
		     "A throw could not tell which regions are open.",
		     "Leave every region in the function that enters it.");
	return -EINVAL;
}

/* Called when the region has been entered or left. */
void bpf_unwind_count_rcu(struct bpf_verifier_env *env, u32 insn_idx, bool enter)
{
	if (!active(env))
		return;
	env->unwind->insns[insn_idx].ops |= enter ? OP_RCU_ENTER : OP_RCU_LEAVE;
	if (env->cur_state->active_rcu_locks < boundary_frame(env->cur_state)->entry_rcu_locks)
		note_region(env, "leaves");
}

void bpf_unwind_count_preempt(struct bpf_verifier_env *env, u32 insn_idx, bool enter)
{
	if (!active(env))
		return;
	env->unwind->insns[insn_idx].ops |= enter ? OP_PREEMPT_ENTER : OP_PREEMPT_LEAVE;
	if (env->cur_state->active_preempt_locks <
	    boundary_frame(env->cur_state)->entry_preempt_locks)
		note_region(env, "leaves");
}

/* On this path @insn_idx, which may acquire something on others, does not. */
void bpf_unwind_no_acquire(struct bpf_verifier_env *env, u32 insn_idx)
{
	if (active(env))
		env->unwind->insns[insn_idx].ops |= OP_OTHER;
}

static int refuse(struct bpf_verifier_env *env, s32 insn_idx, const char *name,
		  const char *reason, const char *remedy)
{
	if (drop_deadline(env, name, reason))
		return again(env);
	if (insn_idx < 0) {
		verbose(env, "bpf_throw cannot release %s, an argument: %s\n", name, reason);
		bpf_diag_res(env, 0, "throw with an argument that cannot be released",
			     bpf_diag_fmt(env, "A throw may have to release the %s that the program got with its call, and cannot: %s.",
					  name, reason), remedy);
		return -EINVAL;
	}
	verbose(env, "bpf_throw cannot release %s acquired at insn %d: %s\n", name, insn_idx,
		reason);
	bpf_diag_res(env, insn_idx, "throw with a resource that cannot be released",
		     bpf_diag_fmt(env, "A throw may have to release the %s that instruction %d acquires, and cannot: %s.",
				  name, insn_idx, reason), remedy);
	return -EINVAL;
}

/* Whether what @site acquires can be released by what its slot says, on any path. */
static int check_site(struct bpf_verifier_env *env, const struct unwind_site *site)
{
	if (site->ambiguous ||
	    (!site->arg && env->unwind->insns[site->insn_idx].ops & OP_OTHER))
		return refuse(env, site->insn_idx, site->slot.name,
			      "the instruction acquires different types on different paths",
			      "Acquire each type by an instruction of its own.");
	if (site->known)
		return 0;
	if (site->unsafe)
		return refuse(env, site->insn_idx, site->slot.name,
			      site->slot.kind == BPF_UNWIND_OBJ || site->slot.kind == BPF_UNWIND_PERCPU_OBJ ?
			      "it has fields that cannot be freed in NMI or under a lock, where the program may run" :
			      "it cannot be released in NMI or under a lock, where the program may run",
			      "Release it before anything may throw.");
	if (site->sleeps)
		return refuse(env, site->insn_idx, site->slot.name,
			      "its release may sleep, and where it is acquired the program may not",
			      "Acquire it where the program may sleep, or release it before anything may throw.");
	return refuse(env, site->insn_idx, site->slot.name,
		      "there is not exactly one function that releases it",
		      "Release it before anything may throw.");
}

/* A callback may leave its caller's frames as it found them only. */
int bpf_unwind_callback_exit(struct bpf_verifier_env *env, const struct bpf_func_state *callee)
{
	struct bpf_verifier_state *state = env->cur_state;
	struct unwind_site *site;
	u32 i;

	if (!active(env))
		return 0;
	for (i = 0; i < state->acquired_refs; i++) {
		if (state->refs[i].frameno != callee->frameno)
			continue;
		site = site_of_ref(env, &state->refs[i]);
		if (!site)
			continue;
		return refuse(env, site->insn_idx, site->slot.name,
			      "its callback returns and still holds it",
			      "Release it before the callback returns.");
	}
	if (state->active_rcu_locks != callee->entry_rcu_locks ||
	    state->active_preempt_locks != callee->entry_preempt_locks)
		note_region(env, "returns from");
	return 0;
}

/* Whether all of the stack object whose first slot is @spi still is what it was made. */
static bool is_whole(const struct bpf_func_state *frame, int spi, enum bpf_stack_slot_type type)
{
	const struct bpf_reg_state *first = &frame->stack[spi].spilled_ptr;
	int i, byte, nr = 1;

	/* Its RCU section has ended. */
	if (first->type & PTR_UNTRUSTED)
		return false;
	if (type == STACK_ITER)
		nr = btf_type_by_id(first->iter.btf, first->iter.btf_id)->size / BPF_REG_SIZE;
	for (i = spi; i > spi - nr; i--) {
		for (byte = 0; byte < BPF_REG_SIZE; byte++) {
			if (i < 0 || frame->stack[i].slot_type[byte] != type)
				return false;
		}
		/* Only the first slot has the id: another object begins where there is one. */
		if (i != spi && frame->stack[i].spilled_ptr.id)
			return false;
	}
	return true;
}

/* Whether the state still knows where the stack object of @id is. */
static bool on_stack(struct bpf_verifier_env *env, u32 id, enum bpf_stack_slot_type type)
{
	struct bpf_verifier_state *state = env->cur_state;
	struct bpf_func_state *frame;
	int i, spi;

	for (i = 0; i <= state->curframe; i++) {
		frame = state->frame[i];
		for (spi = 0; spi < frame->allocated_stack / BPF_REG_SIZE; spi++) {
			if (frame->stack[spi].slot_type[BPF_REG_SIZE - 1] == type &&
			    frame->stack[spi].spilled_ptr.id == id)
				return is_whole(frame, spi, type);
		}
	}
	return false;
}

/* Each function that is active here may throw, and each callback comes back to its helper thrown. */
static void note_frames(struct bpf_verifier_env *env)
{
	struct bpf_verifier_state *state = env->cur_state;
	const struct bpf_func_state *frame;
	struct unwind_frame *noted;
	u32 i;

	for (i = 0; i <= state->curframe; i++) {
		frame = state->frame[i];
		env->subprog_info[frame->subprogno].might_throw = true;
		if (!frame->in_callback_fn)
			continue;
		env->unwind->insns[frame->callsite].ops |= OP_CALLBACK;
		noted = &env->unwind->frames[frame->subprogno];
		noted->called_back = true;
		/* The one kfunc, bpf_rbtree_add(), goes on whatever its callback returns. */
		noted->stops |= !bpf_pseudo_kfunc_call(&env->prog->insnsi[frame->callsite]);
	}
}

/* The program may throw here: all that it holds must be known, and is given a slot. */
int bpf_unwind_throw(struct bpf_verifier_env *env)
{
	struct bpf_verifier_state *state = env->cur_state;
	struct bpf_unwind_env *unwind = env->unwind;
	const struct bpf_reference_state *ref;
	struct unwind_site *site;
	u32 i;
	int err;

	if (!active(env))
		return 0;
	unwind->thrown = true;
	note_frames(env);
	for (i = 0; i < state->acquired_refs; i++) {
		ref = &state->refs[i];
		if (ref->type == REF_TYPE_RES_LOCK_IRQ)
			unwind->at_throw |= BIT(BPF_UNWIND_IRQ);
		site = site_of_ref(env, ref);
		if (!site) /* has nothing to release */
			continue;
		err = check_site(env, site);
		if (err)
			return err;
		if ((ref->type == REF_TYPE_IRQ && !on_stack(env, ref->id, STACK_IRQ_FLAG)) ||
		    (site->slot.kind == BPF_UNWIND_ITER && ref->type == REF_TYPE_PTR &&
		     !on_stack(env, ref->id, STACK_ITER)))
			return refuse(env, site->insn_idx, site->slot.name,
				      "the program has overwritten it or left its function",
				      "Destroy it before its stack slot is used otherwise.");
		site->at_throw = true;
		if (ref->type != REF_TYPE_PTR)
			unwind->at_throw |= BIT(site->slot.kind);
	}
	if (state->active_rcu_locks)
		unwind->at_throw |= BIT(BPF_UNWIND_RCU);
	if (state->active_preempt_locks)
		unwind->at_throw |= BIT(BPF_UNWIND_PREEMPT);
	return 0;
}

/* Whether slots of this kind serve all instructions that acquire it. */
static bool is_shared(enum bpf_unwind_kind kind)
{
	return kind <= BPF_UNWIND_PREEMPT || kind == BPF_UNWIND_RCU;
}

static int add_slots(struct bpf_verifier_env *env, const struct bpf_unwind_slot *slot, u32 nr)
{
	struct bpf_unwind_env *unwind = env->unwind;
	u32 first = unwind->nr_slots;

	if (first + nr > BPF_UNWIND_MAX_SLOTS) {
		if (drop_deadline(env, slot->name, "more resources may be held than there are slots"))
			return again(env);
		bpf_diag_res(env, max(slot->insn_idx, 0), "too many resources at a throw",
			     "More resources may be held at a throw than there are slots.",
			     "Release some of them before anything may throw.");
		verbose(env, "more than %d resources may be held at a throw, the last one a %s of insn %d\n",
			BPF_UNWIND_MAX_SLOTS, slot->name, slot->insn_idx);
		return -E2BIG;
	}
	while (nr--)
		unwind->table->slots[unwind->nr_slots++] = *slot;
	return first;
}

static int add_shared_slots(struct bpf_verifier_env *env, enum bpf_unwind_kind kind,
			    const char *name, u32 nr, u8 *first)
{
	struct bpf_unwind_slot slot = { .kind = kind, .name = name, .insn_idx = -1 };
	int ret;

	if (!(env->unwind->held & BIT(kind)))
		return 0;
	ret = add_slots(env, &slot, nr);
	if (ret < 0)
		return ret;
	*first = ret;
	return 0;
}

/* Whether an instruction that releases what one acquired may find it in a slot of the other. */
static bool is_mistakable(struct bpf_unwind_env *unwind, struct unwind_site *a,
			  struct unwind_site *b)
{
	return a->held && b->held && a->slot.kind == b->slot.kind &&
	       a->slot.release == b->slot.release && a->sleeps == b->sleeps &&
	       leader(unwind, a) == leader(unwind, b);
}

/* The slots of @site and of all that may be mistaken for it are those of each of them. */
static int add_mistakable_slots(struct bpf_verifier_env *env, struct unwind_site *site)
{
	struct bpf_unwind_env *unwind = env->unwind;
	struct unwind_site *end = unwind->sites + unwind->nr_sites, *other;
	u8 first = unwind->nr_slots, nr, i;
	int ret;

	for (other = site; other < end; other++) {
		if (!is_mistakable(unwind, site, other))
			continue;
		ret = add_slots(env, &other->slot, other->total);
		if (ret < 0)
			return ret;
		other->own = ret;
	}
	nr = unwind->nr_slots - first;
	for (other = site; other < end; other++) {
		if (!is_mistakable(unwind, site, other))
			continue;
		other->first = first;
		other->nr = nr;
	}
	for (i = first; nr != site->total && i < first + nr; i++)
		unwind->table->slots[i].insn_idx = -1;
	return 0;
}

static int add_own_slots(struct bpf_verifier_env *env, bool bound_to_rcu, bool sleeps)
{
	struct bpf_unwind_env *unwind = env->unwind;
	enum bpf_unwind_kind kind;
	struct unwind_site *site;
	int ret;
	u32 i;

	for (kind = BPF_UNWIND_ITER; kind < BPF_UNWIND_RCU; kind++) {
		for (i = 0; i < unwind->nr_sites; i++) {
			site = &unwind->sites[i];
			if (!site->held || site->nr || site->slot.kind != kind ||
			    site->sleeps != sleeps || site->bound_to_rcu != bound_to_rcu)
				continue;
			ret = add_mistakable_slots(env, site);
			if (ret < 0)
				return ret;
		}
	}
	return 0;
}

/* A run may be ended while anything is held. */
static void hold_everything(struct bpf_unwind_env *unwind)
{
	struct unwind_site *site;
	u32 i;

	for (i = 0; i < unwind->nr_sites; i++) {
		site = &unwind->sites[i];
		if (is_shared(site->slot.kind))
			unwind->held |= BIT(site->slot.kind);
		else
			site->held = true;
	}
	for (i = 0; i < unwind->nr_insns; i++) {
		if (unwind->insns[i].ops & OP_RCU_ENTER)
			unwind->held |= BIT(BPF_UNWIND_RCU);
		if (unwind->insns[i].ops & OP_PREEMPT_ENTER)
			unwind->held |= BIT(BPF_UNWIND_PREEMPT);
	}
	if (unwind->takes_irq_lock)
		unwind->held |= BIT(BPF_UNWIND_IRQ);
}

/* Slots in the order of their release. */
static int allocate_slots(struct bpf_verifier_env *env)
{
	struct bpf_unwind_env *unwind = env->unwind;
	struct unwind_site *site;
	u32 i;
	int err;

	unwind->nr_slots = 0;
	unwind->held = unwind->at_throw;
	for (i = 0; i < unwind->nr_sites; i++) {
		site = &unwind->sites[i];
		if (site->at_throw)
			leader(unwind, site)->leads_held = true;
	}
	for (i = 0; i < unwind->nr_sites; i++) {
		site = &unwind->sites[i];
		site->nr = 0;
		/* What may be mistaken for what is held at a throw has to have a slot as well. */
		site->held = site->at_throw ||
			     ((site->known || site->ambiguous) && leader(unwind, site)->leads_held);
		err = site->held || unwind->deadline ? check_site(env, site) : 0;
		if (err)
			return err;
	}
	if (unwind->deadline)
		hold_everything(unwind);

	/* A bpf_spin_lock is taken outside of all others only, and restores interrupts itself. */
	err = add_shared_slots(env, BPF_UNWIND_RES_LOCK, "bpf_res_spin_lock", unwind->max_locks,
			       &unwind->res_lock);
	err = err ?: add_shared_slots(env, BPF_UNWIND_SPIN_LOCK, "bpf_spin_lock", 1,
				      &unwind->lock);
	err = err ?: add_own_slots(env, true, false);
	err = err ?: add_shared_slots(env, BPF_UNWIND_IRQ, "saved IRQ flags", 1, &unwind->irq);
	err = err ?: add_shared_slots(env, BPF_UNWIND_PREEMPT, "preempt-disabled region", 1,
				      &unwind->preempt);
	err = err ?: add_own_slots(env, false, false);
	err = err ?: add_shared_slots(env, BPF_UNWIND_RCU, "RCU read section", 1, &unwind->rcu);
	err = err ?: add_own_slots(env, false, true);
	err = err ?: add_own_slots(env, true, true);
	if (err)
		return err;

	for (i = 0; i < unwind->nr_sites; i++) {
		site = &unwind->sites[i];
		if (!is_shared(site->slot.kind) || !(unwind->held & BIT(site->slot.kind)))
			continue;
		site->held = true;
		site->nr = site->slot.kind == BPF_UNWIND_RES_LOCK ? unwind->max_locks : 1;
		site->first = site->slot.kind == BPF_UNWIND_SPIN_LOCK ? unwind->lock :
			      site->slot.kind == BPF_UNWIND_RES_LOCK ? unwind->res_lock :
			      unwind->irq;
	}

	/* Its slot is out of reach of an instruction in another boundary. */
	for (i = 0; i < unwind->nr_sites; i++) {
		site = &unwind->sites[i];
		if (!site->held || site->outside < 0)
			continue;
		if (drop_deadline(env, site->slot.name, "it is released across a callback"))
			return again(env);
		verbose(env, "%s acquired at insn %d may be held at a throw and is released at insn %d across a callback\n",
			site->slot.name, site->insn_idx, site->outside);
		bpf_diag_res(env, site->outside, "release across a callback",
			     "A resource that may be held at a throw is acquired outside the callback and released in it, or vice versa.",
			     "Release it in the function that acquired it, or in one that this calls.");
		return -EINVAL;
	}
	return 0;
}

/*
 * What is inserted. Before a call r0 is free, behind it r1 to r5 are. The slots
 * are found by r10 in a boundary, else by a base that is loaded.
 */
struct emit {
	const struct unwind_frame *frame;
	struct bpf_insn *insns;
	u32 cnt;
};

static void put(struct emit *e, struct bpf_insn insn)
{
	e->insns[e->cnt++] = insn;
}

static s16 slot_off(const struct emit *e, u8 slot)
{
	return 8 * slot - (e->frame->boundary ? e->frame->area : 0);
}

/* The register by which slots are found: r10, or @reg. */
static u8 base_reg(struct emit *e, u8 reg)
{
	if (e->frame->boundary)
		return BPF_REG_10;
	put(e, BPF_LDX_MEM(BPF_DW, reg, BPF_REG_10, -e->frame->base));
	return reg;
}

static s16 scratch_off(const struct emit *e, int word)
{
	return 8 * word - e->frame->scratch;
}

/* Jumps over what is inserted from @from on, to behind it, for jumps emitted with offset 0. */
static void land(struct emit *e, u32 from)
{
	u32 i;

	for (i = from; i < e->cnt; i++) {
		if (e->insns[i].code == (BPF_JMP | BPF_JA) && !e->insns[i].off)
			e->insns[i].off = e->cnt - i - 1;
	}
}

/* Writes @value into the slot if that is free, and jumps to where land() is called next. */
static void emit_fill_one(struct emit *e, u8 base, u8 tmp, u8 value, u8 slot)
{
	put(e, BPF_LDX_MEM(BPF_DW, tmp, base, slot_off(e, slot)));
	put(e, BPF_JMP_IMM(BPF_JNE, tmp, 0, 2));
	put(e, BPF_STX_MEM(BPF_DW, base, value, slot_off(e, slot)));
	put(e, BPF_JMP_A(0));
}

/* Writes @value into the first slot of the range that is free. */
static void emit_fill(struct emit *e, u8 base, u8 tmp, u8 value, u8 first, u8 nr)
{
	u32 from = e->cnt;
	u8 i;

	for (i = first; i < first + nr; i++)
		emit_fill_one(e, base, tmp, value, i);
	land(e, from);
}

/* Clears the slot of the range that has the object which @value is @offset bytes into. */
static void emit_clear(struct emit *e, u8 base, u8 tmp, u8 value, u16 offset, u8 first, u8 nr)
{
	u8 i;

	for (i = first; i < first + nr; i++) {
		put(e, BPF_LDX_MEM(BPF_DW, tmp, base, slot_off(e, i)));
		if (offset)
			put(e, BPF_ALU64_IMM(BPF_ADD, tmp, offset));
		put(e, BPF_JMP_REG(BPF_JNE, tmp, value, 2));
		put(e, BPF_ST_MEM(BPF_DW, base, slot_off(e, i), 0));
		put(e, BPF_JMP_A(0));
	}
}

/*
 * Before a call a base and a temporary are needed, and only r0 is free: r6 makes
 * room, and r7 if a value has to be loaded, too.
 */
static u8 save_base(struct emit *e)
{
	if (e->frame->boundary)
		return BPF_REG_10;
	put(e, BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_6, scratch_off(e, 0)));
	return base_reg(e, BPF_REG_6);
}

static void restore_base(struct emit *e)
{
	if (!e->frame->boundary)
		put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_6, BPF_REG_10, scratch_off(e, 0)));
}

static void emit_fill_before(struct emit *e, u8 value, u8 first, u8 nr, bool if_free)
{
	u8 base;

	if (nr == 1 && !if_free) {
		base = base_reg(e, BPF_REG_0);
		put(e, BPF_STX_MEM(BPF_DW, base, value, slot_off(e, first)));
		return;
	}
	emit_fill(e, save_base(e), BPF_REG_0, value, first, nr);
	restore_base(e);
}

static void emit_count(struct emit *e, u8 slot, int step)
{
	u8 base = base_reg(e, BPF_REG_1);

	put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_2, base, slot_off(e, slot)));
	put(e, BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, step));
	put(e, BPF_STX_MEM(BPF_DW, base, BPF_REG_2, slot_off(e, slot)));
}

static bool is_dynptr(enum bpf_unwind_kind kind)
{
	return kind == BPF_UNWIND_RINGBUF_DYNPTR || kind == BPF_UNWIND_FILE_DYNPTR;
}

static void emit_acquire_before(struct emit *e, struct bpf_unwind_env *unwind,
				const struct unwind_site *site, bool irq)
{
	switch (site->slot.kind) {
	case BPF_UNWIND_SPIN_LOCK:
		emit_fill_before(e, site->arg, site->first, 1, false);
		break;
	case BPF_UNWIND_IRQ:
		/* Only the outermost region knows how it was before. */
		emit_fill_before(e, site->arg, site->first, 1, true);
		break;
	case BPF_UNWIND_ITER:
		emit_fill_before(e, site->arg, site->first, site->nr, false);
		break;
	case BPF_UNWIND_RES_LOCK:
		/* Whether it is held turns out behind the call. */
		put(e, BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_1, scratch_off(e, 0)));
		if (irq)
			put(e, BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_2, scratch_off(e, 1)));
		break;
	default:
		if (is_dynptr(site->slot.kind))
			put(e, BPF_STX_MEM(BPF_DW, BPF_REG_10, site->arg, scratch_off(e, 0)));
	}
}

static void emit_acquire_behind(struct emit *e, struct bpf_unwind_env *unwind,
				const struct unwind_site *site, bool irq)
{
	u8 value = BPF_REG_0, base;
	u32 failed, in_lock;
	int slot;

	switch (site->slot.kind) {
	case BPF_UNWIND_SPIN_LOCK:
	case BPF_UNWIND_IRQ:
	case BPF_UNWIND_ITER:
		return;
	case BPF_UNWIND_RES_LOCK:
		failed = e->cnt;
		put(e, BPF_JMP32_IMM(BPF_JNE, BPF_REG_0, 0, 0));
		put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_10, scratch_off(e, 0)));
		base = base_reg(e, BPF_REG_4);
		/* The innermost lock is released first: it has the lowest slot. */
		for (slot = site->first + site->nr - 1; slot >= site->first; slot--)
			emit_fill_one(e, base, BPF_REG_5, BPF_REG_1, slot);
		land(e, failed + 1);
		if (irq) {
			/* Under a bpf_spin_lock, interrupts are off, and that restores them. */
			in_lock = e->cnt;
			if (unwind->held & BIT(BPF_UNWIND_SPIN_LOCK)) {
				put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_5, base, slot_off(e, unwind->lock)));
				put(e, BPF_JMP_IMM(BPF_JNE, BPF_REG_5, 0, 0));
			}
			put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_10, scratch_off(e, 1)));
			emit_fill(e, base, BPF_REG_5, BPF_REG_1, unwind->irq, 1);
			if (unwind->held & BIT(BPF_UNWIND_SPIN_LOCK))
				e->insns[in_lock + 1].off = e->cnt - in_lock - 2;
		}
		e->insns[failed].off = e->cnt - failed - 1;
		return;
	default:
		break;
	}

	if (is_dynptr(site->slot.kind)) {
		/* A failed constructor leaves NULL. */
		value = BPF_REG_1;
		put(e, BPF_LDX_MEM(BPF_DW, value, BPF_REG_10, scratch_off(e, 0)));
		put(e, BPF_LDX_MEM(BPF_DW, value, value, offsetof(struct bpf_dynptr_kern, data)));
	}
	if (site->offset) {
		value = BPF_REG_1;
		put(e, BPF_MOV64_REG(value, BPF_REG_0));
		put(e, BPF_JMP_IMM(BPF_JEQ, value, 0, 1));
		put(e, BPF_ALU64_IMM(BPF_ADD, value, -site->offset));
	}
	base = base_reg(e, BPF_REG_4);
	if (site->nr == 1)
		put(e, BPF_STX_MEM(BPF_DW, base, value, slot_off(e, site->first)));
	else
		emit_fill(e, base, BPF_REG_5, value, site->first, site->nr);
}

static bool is_kptr_xchg(const struct bpf_insn *insn)
{
	return insn->code == (BPF_JMP | BPF_CALL) && !insn->src_reg &&
	       insn->imm == BPF_FUNC_kptr_xchg;
}

/* The register in which the call @insn gets what it releases. */
static u8 release_arg(const struct bpf_insn *insn)
{
	return is_kptr_xchg(insn) || bpf_takes_graph_node(insn) ? BPF_REG_2 : BPF_REG_1;
}

static void emit_release(struct emit *e, struct bpf_verifier_env *env, u32 insn_idx, u32 pos,
			 bool lock_irq)
{
	const struct bpf_insn *insn = &env->prog->insnsi[pos];
	struct bpf_unwind_env *unwind = env->unwind;
	struct unwind_site *site, *only = NULL;
	u32 nr = 0, others = 0, from, i;
	u64 found = 0;
	u8 base, value;

	for_each_release(unwind, insn_idx, site, i) {
		if (!site->held) {
			others++;
			continue;
		}
		if (!(found & BIT_ULL(site->first)))
			nr += site->nr;
		found |= BIT_ULL(site->first);
		only = site;
	}
	if (!only)
		return;
	/* bpf_kptr_xchg() may be given NULL instead, and an inner IRQ region has no slot. */
	others += !!(unwind->insns[insn_idx].ops & OP_RELEASE_OTHER);
	if (nr == 1 && !others && only->slot.kind != BPF_UNWIND_IRQ && !lock_irq &&
	    !is_kptr_xchg(insn)) {
		base = base_reg(e, BPF_REG_0);
		put(e, BPF_ST_MEM(BPF_DW, base, slot_off(e, only->first), 0));
		return;
	}

	base = save_base(e);
	from = e->cnt;
	for_each_release(unwind, insn_idx, site, i) {
		/* Several sites may have the same slots. */
		if (!site->held || is_repeated(unwind, insn_idx, i))
			continue;
		value = release_arg(insn);
		if (is_dynptr(site->slot.kind)) {
			put(e, BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_7, scratch_off(e, 1)));
			put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_7, value,
					   offsetof(struct bpf_dynptr_kern, data)));
			emit_clear(e, base, BPF_REG_0, BPF_REG_7, 0, site->first, site->nr);
			land(e, from);
			put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_7, BPF_REG_10, scratch_off(e, 1)));
			from = e->cnt;
			continue;
		}
		emit_clear(e, base, BPF_REG_0, value, unwind->releases[i - 1].offset,
			   site->first, site->nr);
	}
	land(e, from);
	if (lock_irq) {
		from = e->cnt;
		emit_clear(e, base, BPF_REG_0, BPF_REG_2, 0, unwind->irq, 1);
		land(e, from);
	}
	restore_base(e);
}

static bool takes_base(const struct bpf_unwind_env *unwind, int subprog)
{
	return !unwind->frames[subprog].boundary && unwind->frames[subprog].slots;
}

static bool site_takes_irq(struct bpf_unwind_env *unwind, const struct bpf_insn *insn)
{
	return bpf_is_res_lock_irq(insn) && unwind->held & BIT(BPF_UNWIND_IRQ);
}

static struct bpf_insn checkpoint(u32 fuel)
{
	return BPF_RAW_INSN(BPF_JMP | BPF_JCOND, 0, BPF_CHECKPOINT, 0, fuel);
}

static struct bpf_insn swap_fuel(const struct unwind_frame *frame, u8 how)
{
	return BPF_RAW_INSN(BPF_JMP | BPF_JCOND, BPF_REG_FP, how, 0,
			    -frame->run + (int)offsetof(struct bpf_run, fuel));
}

/*
 * Whether the run of the program may go on with that of one that has tail called it:
 * the JIT then has r5 be zero where it begins otherwise. To a program that replaces a
 * function, r5 is an argument.
 */
bool bpf_run_is_handed(const struct bpf_verifier_env *env)
{
	return env && env->unwind && env->unwind->deadline && env->prog->type != BPF_PROG_TYPE_EXT;
}

/*
 * A run begins. If the program is stopped it does not, or, so that the arguments that
 * it owns are released, without fuel, see emit_arguments(). r1 to r5 may be arguments.
 */
static void emit_run(struct bpf_verifier_env *env, struct emit *e, bool owns_arguments)
{
	const struct bpf_unwind_env *unwind = env->unwind;
	const struct bpf_insn stopped[2] = {
		BPF_LD_IMM64(BPF_REG_0, (unsigned long)&unwind->deadline->stopped)
	};
	const struct bpf_insn refill[2] = {
		BPF_LD_IMM64(BPF_REG_0, (unsigned long)&unwind->deadline->refill)
	};
	int run = -e->frame->run;

	put(e, stopped[0]);
	put(e, stopped[1]);
	put(e, BPF_LDX_MEM(BPF_W, BPF_REG_0, BPF_REG_0, 0));
	put(e, BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 2));
	if (owns_arguments) {
		put(e, BPF_MOV64_IMM(BPF_REG_0, BPF_NO_FUEL));
		put(e, BPF_JMP_A(3));
	} else {
		put(e, BPF_MOV64_IMM(BPF_REG_0, e->frame == unwind->frames ?
				     unwind->deadline->result : 0));
		put(e, BPF_EXIT_INSN());
	}
	put(e, refill[0]);
	put(e, refill[1]);
	put(e, BPF_LDX_MEM(BPF_W, BPF_REG_0, BPF_REG_0, 0));
	put(e, BPF_STX_MEM(BPF_W, BPF_REG_10, BPF_REG_0, run + offsetof(struct bpf_run, fuel)));
	put(e, swap_fuel(e->frame, BPF_ENTER_RUN));
	put(e, BPF_ST_MEM(BPF_DW, BPF_REG_10, run + offsetof(struct bpf_run, last), 0));
	if (e->frame == unwind->frames && bpf_run_is_handed(env))
		put(e, BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_5,
				   run + offsetof(struct bpf_run, spent)));
	else
		put(e, BPF_ST_MEM(BPF_DW, BPF_REG_10, run + offsetof(struct bpf_run, spent), 0));
}

/*
 * In front of a tail call, which is given r1 to r3: hands on what is known of the run.
 * What a function tail calls returns to the caller of that, so it is a run of its own.
 */
static void emit_hand_on(struct emit *e)
{
	const struct bpf_insn mark[2] = { BPF_LD_IMM64(BPF_REG_0, BPF_RUN_HANDED) };
	int run = -e->frame->run;

	if (!run) {
		put(e, BPF_MOV64_IMM(BPF_REG_5, 0));
		return;
	}
	put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_5, BPF_REG_10, run + offsetof(struct bpf_run, spent)));
	put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_0, BPF_REG_10, run + offsetof(struct bpf_run, last)));
	put(e, BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 8));
	put(e, BPF_ALU64_IMM(BPF_RSH, BPF_REG_5, BPF_RUN_HANDED_SHIFT));
	put(e, BPF_ALU64_IMM(BPF_LSH, BPF_REG_5, BPF_RUN_HANDED_LAST));
	put(e, BPF_ALU64_IMM(BPF_RSH, BPF_REG_0, BPF_RUN_HANDED_SHIFT));
	put(e, BPF_ALU64_IMM(BPF_AND, BPF_REG_0, BIT(BPF_RUN_HANDED_LAST) - 1));
	put(e, BPF_ALU64_REG(BPF_OR, BPF_REG_5, BPF_REG_0));
	put(e, mark[0]);
	put(e, mark[1]);
	put(e, BPF_ALU64_REG(BPF_OR, BPF_REG_5, BPF_REG_0));
}

/* What may leave the frame of a run: a tail call that succeeds, a load that fails. */
static bool may_leave(const struct bpf_insn *insn)
{
	return bpf_is_tail_call(insn) || bpf_is_packet_load(insn);
}

/* Everything that is inserted round one instruction; returns how much before it, or an error. */
static int emit_insn(struct bpf_verifier_env *env, struct emit *e, u32 insn_idx, u32 pos)
{
	const struct bpf_insn *orig = &env->prog->insnsi[pos];
	struct bpf_unwind_env *unwind = env->unwind;
	const struct unwind_insn *noted = &unwind->insns[insn_idx];
	const struct unwind_site *site = site_of(unwind, insn_idx);
	struct bpf_insn insn = *orig;
	const struct bpf_insn aux[2] = { BPF_LD_IMM64(BPF_REG_2, (unsigned long)env->prog->aux) };
	const struct bpf_insn again[2] = {
		BPF_LD_IMM64(BPF_REG_2, (unsigned long)env->prog->aux | BPF_THROW_AGAIN)
	};
	bool lock_irq = site_takes_irq(unwind, orig);
	u32 jump;
	int before;

	if (site && !site->held)
		site = NULL;
	if (unwind->deadline && noted->checkpoint)
		put(e, checkpoint(noted->checkpoint));
	emit_release(e, env, insn_idx, pos, lock_irq);
	if (site)
		emit_acquire_before(e, unwind, site, lock_irq);
	if (noted->ops & OP_CALLBACK)
		put(e, BPF_ST_MEM(BPF_DW, BPF_REG_10, -e->frame->pending, 0));
	if (bpf_pseudo_call(orig)) {
		int callee = bpf_find_subprog(env, pos + orig->imm + 1);

		if (callee >= 0 && takes_base(unwind, callee)) {
			if (e->frame->boundary) {
				put(e, BPF_MOV64_REG(BPF_REG_0, BPF_REG_10));
				put(e, BPF_ALU64_IMM(BPF_ADD, BPF_REG_0, -e->frame->area));
			} else {
				base_reg(e, BPF_REG_0);
			}
		}
	}
	if (bpf_is_throw_kfunc(&insn)) {
		put(e, aux[0]);
		put(e, aux[1]);
	}
	if (e->frame->run && (insn.code == (BPF_JMP | BPF_EXIT) || may_leave(&insn)))
		put(e, swap_fuel(e->frame, BPF_LEAVE_RUN));
	if (unwind->deadline && bpf_is_tail_call(&insn))
		emit_hand_on(e);
	before = e->cnt;
	put(e, insn);
	if (e->frame->run && may_leave(&insn))
		put(e, swap_fuel(e->frame, BPF_ENTER_RUN));
	if (site)
		emit_acquire_behind(e, unwind, site, lock_irq);
	if (unwind->held & BIT(BPF_UNWIND_RCU) && noted->ops & (OP_RCU_ENTER | OP_RCU_LEAVE))
		emit_count(e, unwind->rcu, noted->ops & OP_RCU_ENTER ? 1 : -1);
	if (unwind->held & BIT(BPF_UNWIND_PREEMPT) &&
	    noted->ops & (OP_PREEMPT_ENTER | OP_PREEMPT_LEAVE))
		emit_count(e, unwind->preempt, noted->ops & OP_PREEMPT_ENTER ? 1 : -1);
	if (noted->ops & OP_CALLBACK) {
		put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_10, -e->frame->pending));
		jump = e->cnt;
		put(e, BPF_JMP_IMM(BPF_JEQ, BPF_REG_1, 0, 0));
		put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_10, 8 - e->frame->pending));
		/*
		 * A run that is ended goes on with the registers of the caller of any
		 * boundary, which a checkpoint captures and a throw does not.
		 */
		if (unwind->deadline) {
			put(e, checkpoint(0));
		} else {
			put(e, again[0]);
			put(e, again[1]);
			put(e, BPF_CALL_KFUNC(0, bpf_throw_kfunc_id()));
		}
		e->insns[jump].off = e->cnt - jump - 1;
	}
	return before;
}

/* Slots that the instruction touches. */
static u64 touched(struct bpf_unwind_env *unwind, u32 insn_idx, const struct bpf_insn *insn)
{
	const struct unwind_insn *noted = &unwind->insns[insn_idx];
	struct unwind_site *site = site_of(unwind, insn_idx);
	u64 slots = 0;
	u32 i;

	if (site && site->held)
		slots |= GENMASK_ULL(site->first + site->nr - 1, site->first);
	for_each_release(unwind, insn_idx, site, i) {
		if (site->held)
			slots |= GENMASK_ULL(site->first + site->nr - 1, site->first);
	}
	if (site_takes_irq(unwind, insn)) {
		slots |= BIT_ULL(unwind->irq);
		if (unwind->held & BIT(BPF_UNWIND_SPIN_LOCK))
			slots |= BIT_ULL(unwind->lock);
	}
	if (noted->ops & (OP_RCU_ENTER | OP_RCU_LEAVE) && unwind->held & BIT(BPF_UNWIND_RCU))
		slots |= BIT_ULL(unwind->rcu);
	if (noted->ops & (OP_PREEMPT_ENTER | OP_PREEMPT_LEAVE) &&
	    unwind->held & BIT(BPF_UNWIND_PREEMPT))
		slots |= BIT_ULL(unwind->preempt);
	return slots;
}

/* The site of an argument that may be held at a throw, or NULL. */
static const struct unwind_site *held_argument(const struct bpf_unwind_env *unwind, u32 argument)
{
	u16 site = unwind->arguments[argument];

	return site && unwind->sites[site - 1].held ? &unwind->sites[site - 1] : NULL;
}

/* Slots that are filled when the program begins. */
static u64 slots_of_arguments(const struct bpf_unwind_env *unwind)
{
	const struct unwind_site *site;
	u64 slots = 0;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(unwind->arguments); i++) {
		site = held_argument(unwind, i);
		if (site)
			slots |= BIT_ULL(site->own);
	}
	return slots;
}

/* The program begins to hold its arguments. If it is stopped it is ended with them. */
static void emit_arguments(struct bpf_verifier_env *env, struct emit *e)
{
	const struct unwind_site *site;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(env->unwind->arguments); i++) {
		site = held_argument(env->unwind, i);
		if (!site)
			continue;
		put(e, BPF_LDX_MEM(BPF_DW, BPF_REG_0, BPF_REG_1,
				   env->prog->aux->ctx_arg_info[i].offset));
		put(e, BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_0, slot_off(e, site->own)));
	}
	if (env->unwind->deadline && slots_of_arguments(env->unwind))
		put(e, checkpoint(BPF_CHECKPOINT_INSN));
}

static int refuse_call(struct bpf_verifier_env *env, int subprog, u32 insn_idx, const char *how)
{
	if (drop_deadline(env, bpf_subprog_name(env, subprog), how))
		return again(env);
	verbose(env, "func#%d may throw, or acquires what may be held at a throw, and is %s at insn %d\n",
		subprog, how, insn_idx);
	bpf_diag_res(env, insn_idx, "function that cannot be unwound",
		     bpf_diag_fmt(env, "The function %s() may throw, or acquires what may be held at a throw, and is %s.",
				  bpf_subprog_name(env, subprog), how),
		     "Give each use a function of its own.");
	return -EINVAL;
}

static int refuse_stack(struct bpf_verifier_env *env, int subprog, u32 bytes)
{
	const char *name = bpf_subprog_name(env, subprog);

	if (drop_deadline(env, name, "what may be held in it and in what it calls takes too much stack"))
		return again(env);
	verbose(env, "func#%d needs %u bytes of stack, more than %d, for what may be held in it and in what it calls\n",
		subprog, bytes, MAX_EXTRA_STACK);
	bpf_diag_res(env, env->subprog_info[subprog].start, "too much stack for what is held",
		     bpf_diag_fmt(env, "What a throw may have to release in the function %s() and in what it calls takes %u bytes of stack, more than %d.",
				  name, bytes, MAX_EXTRA_STACK),
		     "Hold less in callbacks, or nest fewer.");
	return -E2BIG;
}

/*
 * Adds up what functions need that may be active at once. The address of a callback
 * that runs later, on another stack, may lead back to one that has been looked at.
 */
static int check_stack(struct bpf_verifier_env *env)
{
	struct unwind_frame *frames = env->unwind->frames;
	struct bpf_subprog_info *info = env->subprog_info;
	struct bpf_insn *insn = env->prog->insnsi;
	int i, k, subprog, callee;
	bool changed;
	u32 extra;

	do {
		changed = false;
		for (k = 0; k < env->subprog_cnt; k++) {
			subprog = env->subprog_topo_order[k];
			extra = 0;
			for (i = info[subprog].start; i < info[subprog + 1].start; i++) {
				callee = callee_of(env, i);
				if (callee >= 0 &&
				    (bpf_pseudo_call(&insn[i]) || !info[callee].is_async_cb))
					extra = max(extra, frames[callee].extra);
			}
			extra += frames[subprog].depth - round_up(info[subprog].stack_depth, 8);
			/* It saves all registers of its caller. */
			if (frames[subprog].boundary)
				extra += sizeof_field(struct bpf_unwind_regs, saved);
			if (extra > MAX_EXTRA_STACK)
				return refuse_stack(env, subprog, extra);
			changed |= extra != frames[subprog].extra;
			frames[subprog].extra = extra;
			cond_resched();
		}
	} while (changed);
	return 0;
}

/* Which function touches which slots, itself or in what it calls, and where each keeps what. */
static int layout_frames(struct bpf_verifier_env *env)
{
	struct bpf_subprog_info *info = env->subprog_info;
	struct bpf_unwind_env *unwind = env->unwind;
	struct bpf_insn *insn = env->prog->insnsi;
	struct unwind_frame *frame;
	int i, k, subprog, callee;
	bool callbacks;
	u32 first;
	u16 depth;

	/* Callees before callers, see sort_subprogs_topo(). */
	for (k = 0; k < env->subprog_cnt; k++) {
		subprog = env->subprog_topo_order[k];
		frame = &unwind->frames[subprog];
		/* Dead functions are removed later. */
		info[subprog].unwind_frame = subprog + 1;
		if (frame->called_back && info[subprog].is_async_cb &&
		    (unwind->deadline || info[subprog].might_throw))
			return refuse_call(env, subprog, info[subprog].start,
					   "called back both at once and later");
		/* What was noted while the program was verified, and nothing of an earlier plan. */
		*frame = (struct unwind_frame) {
			.called_back = frame->called_back,
			.stops = frame->stops,
			.boundary = !subprog || info[subprog].is_cb,
			/* It begins with a checkpoint. */
			.ends = unwind->deadline && frame->stops,
		};
		if (!subprog)
			frame->slots = slots_of_arguments(unwind);
		callbacks = false;
		for (i = info[subprog].start; i < info[subprog + 1].start; i++) {
			callbacks |= unwind->insns[i].ops & OP_CALLBACK;
			frame->slots |= touched(unwind, i, &insn[i]);
			frame->ends |= unwind->deadline && unwind->insns[i].checkpoint;
			if (!bpf_pseudo_call(&insn[i]))
				continue;
			callee = bpf_find_subprog(env, i + insn[i].imm + 1);
			if (callee < 0)
				continue;
			if (unwind->frames[callee].boundary &&
			    (unwind->frames[callee].slots || unwind->frames[callee].ends ||
			     unwind->frames[callee].run || info[callee].might_throw))
				return refuse_call(env, callee, i, "both called and called back");
			if (takes_base(unwind, callee) && info[subprog].tail_call_reachable)
				return refuse_call(env, callee, i,
						   "called in a function with tail calls");
			frame->slots |= unwind->frames[callee].slots;
			frame->calls_end |= unwind->frames[callee].ends;
		}
		frame->ends |= frame->calls_end || (unwind->deadline && callbacks);

		depth = round_up(info[subprog].stack_depth, 8);
		if (frame->boundary && frame->slots) {
			/* It keeps those from the first to the last that it touches. */
			first = __ffs64(frame->slots);
			depth += 8 * (fls64(frame->slots) - first);
			frame->area = depth + 8 * first;
		}
		if (!frame->boundary && frame->slots)
			frame->base = depth += 8;
		if (frame->slots)
			frame->scratch = depth += 16;
		if (callbacks)
			frame->pending = depth += sizeof(struct bpf_unwind_pending);
		/* An exception callback is said to be asynchronous, too. */
		if (unwind->deadline &&
		    (!subprog || (info[subprog].is_async_cb && !info[subprog].is_exception_cb)))
			frame->run = depth += sizeof(struct bpf_run);
		/* Frames below a tail call pile up, see check_max_stack_depth_subprog(). */
		if (depth > 256 && (frame->slots || frame->run) &&
		    info[subprog].tail_call_reachable)
			return refuse_call(env, subprog, info[subprog].start,
					   "in need of too much stack for a function with tail calls");
		/* What is put in front of its first instruction runs once. */
		if ((frame->slots || frame->run || (unwind->deadline && frame->stops)) &&
		    env->insn_aux_data[info[subprog].start].indirect_target)
			return refuse_call(env, subprog, info[subprog].start, "jumped to by gotox");
		frame->depth = depth;
	}
	return 0;
}

/*
 * All that takes the place of one instruction. Returns how much of it comes before
 * that, and in @prologue how much runs only when its function begins, or an error.
 */
static int emit(struct bpf_verifier_env *env, struct emit *e, u32 insn_idx, u32 pos, int subprog,
		u32 *prologue)
{
	const struct bpf_subprog_info *info = &env->subprog_info[subprog];
	const struct bpf_unwind_env *unwind = env->unwind;
	struct unwind_frame *frame = &env->unwind->frames[subprog];
	u32 slot;

	e->frame = frame;
	e->cnt = 0;
	if (pos == info->start) {
		if (frame->run)
			emit_run(env, e, !subprog && slots_of_arguments(unwind));
		for (slot = 0; frame->boundary && slot < unwind->nr_slots; slot++) {
			if (frame->slots & BIT_ULL(slot))
				put(e, BPF_ST_MEM(BPF_DW, BPF_REG_10, slot_off(e, slot), 0));
		}
		if (!subprog)
			emit_arguments(env, e);
		if (takes_base(unwind, subprog))
			put(e, BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_0, -frame->base));
		if (unwind->deadline && frame->stops && !frame->run)
			put(e, checkpoint(bpf_checkpoint_weight(env, pos, info[1].start - 1)));
	}
	*prologue = e->cnt;
	return emit_insn(env, e, insn_idx, pos);
}

/*
 * Whether jumps reach their targets with all that is put in between. If they would
 * not, or not with three times as much of what the verifier puts there later, there
 * is no deadline; without one, a program that throws is refused.
 */
static int check_jumps(struct bpf_verifier_env *env, struct emit *e)
{
	const struct bpf_subprog_info *info = env->subprog_info;
	const int reach = env->unwind->deadline ? S16_MAX / 4 : S16_MAX;
	struct bpf_insn *insn = env->prog->insnsi;
	u32 i, prologue, len = env->prog->len;
	int subprog = 0, err = 0;
	u32 *at;

	at = kvmalloc_array(len + 1, sizeof(*at), GFP_KERNEL_ACCOUNT);
	if (!at)
		return -ENOMEM;
	at[0] = 0;
	for (i = 0; i < len; i++) {
		if (i == info[subprog + 1].start)
			subprog++;
		emit(env, e, i, i, subprog, &prologue);
		at[i + 1] = at[i] + e->cnt;
		cond_resched();
	}
	for (i = 0; i < len && !err; i++) {
		u8 class = BPF_CLASS(insn[i].code), op = BPF_OP(insn[i].code);

		/* Of those with 32 bits there need not be any. */
		if ((class != BPF_JMP && class != BPF_JMP32) || op == BPF_CALL ||
		    op == BPF_EXIT || insn[i].code == (BPF_JMP32 | BPF_JA))
			continue;
		if (abs((int)(at[i + 1 + insn[i].off] - at[i + 1])) <= reach)
			continue;
		if (drop_deadline(env, "program", "its jumps would not reach their targets")) {
			err = -EAGAIN;
			continue;
		}
		verbose(env, "the jump of insn %d would not reach its target with what a throw needs in between\n",
			i);
		bpf_diag_res(env, i, "jump that is too long",
			     "What a throw needs is inserted between the jump and its target, which is then too far away.",
			     "Hold less where anything may throw, or make a function of what is jumped over.");
		err = -E2BIG;
	}
	kvfree(at);
	return err;
}

/* Which slots there are, and where each function keeps what. */
static int plan(struct bpf_verifier_env *env, struct emit *e)
{
	struct bpf_subprog_info *info = env->subprog_info;
	struct bpf_unwind_env *unwind = env->unwind;
	int i, err;

	join_sites(unwind);
	/* Again if it turns out that the program cannot have the deadline that was planned for. */
	do {
		err = allocate_slots(env);
		err = err ?: layout_frames(env);
		err = err ?: check_stack(env);
		err = err ?: check_jumps(env, e);
	} while (err == -EAGAIN && needed(unwind));
	if (err)
		return err == -EAGAIN ? 0 : err;

	for (i = 0; i < env->subprog_cnt && needed(unwind); i++) {
		if (unwind->frames[i].depth > round_up(info[i].stack_depth, 8))
			info[i].stack_depth = unwind->frames[i].depth;
	}
	return 0;
}

static int insert(struct bpf_verifier_env *env, struct emit *e, u32 pos, u32 prologue, u32 before)
{
	struct bpf_insn_aux_data aux, *data;
	struct bpf_prog *prog;
	struct bpf_insn *insn = &e->insns[before];

	if (bpf_pseudo_call(insn) || bpf_pseudo_func(insn)) {
		/* It may be neither the first nor the last of what replaces it. */
		if (insn->imm < 0)
			insn->imm -= before;
		else
			insn->imm += e->cnt - before - 1;
	} else if (before && bpf_jumps_back(insn)) {
		if (insn->code == (BPF_JMP32 | BPF_JA))
			insn->imm -= before;
		else
			insn->off -= before;
	}
	prog = bpf_patch_insn_data(env, pos, e->insns, e->cnt);
	if (!prog)
		return -ENOMEM;
	env->prog = prog;

	/* What is known of the instruction goes with it, not with the last one. */
	data = env->insn_aux_data + pos;
	if (before != e->cnt - 1) {
		aux = data[e->cnt - 1];
		aux.indirect_target = data[before].indirect_target;
		data[e->cnt - 1] = data[before];
		data[e->cnt - 1].indirect_target = 0;
		data[before] = aux;
	}
	/* A jump to the first instruction must not run the prologue again. */
	if (prologue && bpf_adjust_jmp_off(prog, pos, prologue))
		return -ERANGE;
	return 0;
}

/* Inserts what fills and clears slots. Nothing has been inserted into the program before. */
int bpf_unwind_instrument(struct bpf_verifier_env *env)
{
	struct bpf_unwind_env *unwind = env->unwind;
	struct bpf_subprog_info *info = env->subprog_info;
	u32 i, len, delta = 0, subprog = 0, prologue;
	struct emit e = {};
	int before, err;

	if (!needed(unwind))
		return 0;
	unwind->verified = true;
	if (unwind->deadline && !find_checkpoints(env))
		no_deadline(unwind);
	if (!needed(unwind))
		return 0;
	unwind->table = kvzalloc_flex(*unwind->table, slots, BPF_UNWIND_MAX_SLOTS,
				      GFP_KERNEL_ACCOUNT);
	if (!unwind->table)
		return -ENOMEM;
	unwind->table->ops = unwind->ops;
	unwind->ops = NULL;
	if (unwind->out_of_memory)
		return -ENOMEM;
	e.insns = kvmalloc_objs(*e.insns, INSNS_MAX);
	if (!e.insns)
		return -ENOMEM;
	err = check_regions(env);
	err = err ?: plan(env, &e);
	if (err)
		goto out;
	if (!needed(unwind)) {
		bpf_unwind_table_free(unwind->table);
		unwind->table = NULL;
		goto out;
	}
	unwind->table->nr_slots = unwind->nr_slots;
	env->prog->jit_required = true;

	len = env->prog->len;
	for (i = 0; i < len && !err; i++) {
		if (i + delta == info[subprog + 1].start)
			subprog++;
		before = emit(env, &e, i, i + delta, subprog, &prologue);
		if (e.cnt == 1)
			continue;
		err = insert(env, &e, i + delta, prologue, before);
		delta += e.cnt - 1;
	}
out:
	kvfree(e.insns);
	return err;
}

/*
 * Whether the function has to save all registers for its caller, since unwinding
 * stops at it from functions that save some. Of its own ones it knows which.
 */
bool bpf_unwind_is_boundary(struct bpf_verifier_env *env, u32 subprog)
{
	struct bpf_subprog_info *info = &env->subprog_info[subprog];
	const struct bpf_unwind_env *unwind = env->unwind;

	if (!needed(unwind) || info->is_exception_cb || (subprog && !info->is_cb))
		return false;
	/* What the exception callback takes over is a frame that has saved all. */
	if (!subprog && unwind->deadline && unwind->deadline->callback)
		return true;
	return (subprog && info->might_throw) ||
	       (info->unwind_frame && unwind->frames[info->unwind_frame - 1].calls_end);
}

static int compare_funcs(const void *a, const void *b)
{
	const struct bpf_unwind_func *f = a, *g = b;

	return f->start < g->start ? -1 : f->start > g->start;
}

/* The functions are where they will run: completes the table and gives it to the program. */
int bpf_unwind_publish(struct bpf_verifier_env *env, struct bpf_prog **func)
{
	struct bpf_subprog_info *info = env->subprog_info;
	struct bpf_unwind_env *unwind = env->unwind;
	struct bpf_unwind_table *table;
	u32 i;

	if (!unwind || !unwind->table)
		return 0;
	table = unwind->table;
	table->funcs = kvzalloc_objs(*table->funcs, env->subprog_cnt, GFP_KERNEL_ACCOUNT);
	if (!table->funcs)
		return -ENOMEM;
	table->nr_funcs = env->subprog_cnt;
	for (i = 0; i < env->subprog_cnt; i++) {
		struct bpf_unwind_func *f = &table->funcs[i];
		/* The default exception callback came after the layout and has no frame. */
		static const struct unwind_frame none;
		const struct unwind_frame *frame = info[i].unwind_frame ?
			&unwind->frames[info[i].unwind_frame - 1] : &none;

		f->start = (unsigned long)func[i]->bpf_func;
		f->end = f->start + func[i]->jited_len;
		f->subprog = i;
		f->saved = func[i]->aux->unwind_saved;
		f->saved_regs = func[i]->aux->unwind_saved_regs;
		f->run = frame->run;
		/* What is put below all else. */
		if (info[i].stack_extra == sizeof(struct bpf_timed_may_goto))
			f->may_goto = info[i].stack_depth;
		f->private_stack = func[i]->aux->unwind_private_stack;
		f->area = frame->area;
		f->pending = frame->pending;
		f->slots = frame->boundary ? frame->slots : 0;
		f->stop = i || !unwind->deadline ? frame->stops : unwind->deadline->result;
		f->boundary = !i ? BPF_UNWIND_MAIN :
			      info[i].is_exception_cb ? BPF_UNWIND_EXCEPTION :
			      !info[i].is_cb ? BPF_UNWIND_NO_BOUNDARY :
			      info[i].is_async_cb ? BPF_UNWIND_ASYNC : BPF_UNWIND_CALLBACK;
	}
	sort(table->funcs, table->nr_funcs, sizeof(*table->funcs), compare_funcs, NULL);
	table->deadline = unwind->deadline;
	unwind->deadline = NULL;
	env->prog->aux->unwind = table;
	unwind->table = NULL;
	return 0;
}

/* A synchronous callback is entered: it has a checkpoint if its helper stops when told so. */
void bpf_unwind_callback_enter(struct bpf_verifier_env *env, u32 subprog, u32 callsite)
{
	struct unwind_frame *frame;

	if (!active(env) || !env->unwind->deadline)
		return;
	env->unwind->insns[callsite].ops |= OP_CALLBACK;
	frame = &env->unwind->frames[subprog];
	frame->called_back = true;
	frame->stops |= !bpf_pseudo_kfunc_call(&env->prog->insnsi[callsite]);
}

/* Called by bpf_checkpoint_stub(). */
bool bpf_checkpoint(struct bpf_unwind_regs *regs)
{
	const struct bpf_unwind_table *table = regs->aux->unwind;
	int fuel;

	if (regs->ret) {
		table->ops->unwind(regs);
		return true;
	}
	fuel = table->deadline->ops->checkpoint(regs);
	if (fuel < 0)
		return true;
	this_cpu_write(bpf_checkpoint_fuel, fuel);
	return false;
}
