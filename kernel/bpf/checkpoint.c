// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checkpoints of BPF programs: where they are, what they cost, and what is known
 * of the deadline of a program when it is loaded.
 */
#include <linux/bpf.h>
#include <linux/bpf_deadline.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/ctype.h>
#include <linux/filter.h>
#include <linux/module.h>
#include <linux/pkt_cls.h>
#include <linux/smp.h>

#include "diagnostics.h"

#define verbose(env, fmt, args...) bpf_verifier_log_write(env, fmt, ##args)

/* Until it is known how long it lasts. */
#define INITIAL_REFILL	BIT(13)

DEFINE_PER_CPU(int, bpf_checkpoint_fuel);

/* Prevents that a module goes while its ops are taken. */
static DEFINE_MUTEX(ops_lock);
static const struct bpf_deadline_ops *deadline_ops;

int bpf_deadline_register(const struct bpf_deadline_ops *ops)
{
	guard(mutex)(&ops_lock);
	if (deadline_ops)
		return -EBUSY;
	deadline_ops = ops;
	return 0;
}
EXPORT_SYMBOL_FOR_MODULES(bpf_deadline_register, "bpf_deadline");

void bpf_deadline_unregister(const struct bpf_deadline_ops *ops)
{
	guard(mutex)(&ops_lock);
	if (deadline_ops == ops)
		deadline_ops = NULL;
}
EXPORT_SYMBOL_FOR_MODULES(bpf_deadline_unregister, "bpf_deadline");

static const struct bpf_deadline_ops *ops_get(void)
{
	guard(mutex)(&ops_lock);
	return deadline_ops && try_module_get(deadline_ops->owner) ? deadline_ops : NULL;
}

static void use_up_fuel(void *unused)
{
	this_cpu_write(bpf_checkpoint_fuel, BPF_NO_FUEL);
}

void bpf_deadline_kick(void)
{
	on_each_cpu(use_up_fuel, NULL, 0);
}
EXPORT_SYMBOL_FOR_MODULES(bpf_deadline_kick, "bpf_deadline");

void bpf_run_ended(const struct bpf_run *run)
{
	int used = run->given - this_cpu_read(bpf_checkpoint_fuel);

	this_cpu_write(bpf_checkpoint_fuel, max(run->fuel - used, 0));
}

BTF_ID_LIST_SINGLE(iter_num_next_ids, func, bpf_iter_num_next)

bool bpf_is_packet_load(const struct bpf_insn *insn)
{
	u8 mode = BPF_MODE(insn->code);

	return BPF_CLASS(insn->code) == BPF_LD && (mode == BPF_ABS || mode == BPF_IND);
}

static bool is_call(const struct bpf_insn *insn)
{
	return insn->code == (BPF_JMP | BPF_CALL) || bpf_is_packet_load(insn);
}

static u32 insn_weight(const struct bpf_insn *insn)
{
	if (!is_call(insn))
		return BPF_CHECKPOINT_INSN;
	if (bpf_pseudo_kfunc_call(insn) && !insn->off && insn->imm == iter_num_next_ids[0])
		return BPF_CHECKPOINT_NEXT;
	return BPF_CHECKPOINT_CALL;
}

/* Fuel for the instructions from @from to @to, as often as there are. */
u32 bpf_checkpoint_weight(const struct bpf_verifier_env *env, u32 from, u32 to)
{
	const struct bpf_insn *insn = env->prog->insnsi;
	u32 weight = 0;

	for (; from <= to && weight < BPF_CHECKPOINT_MAX; from++)
		weight += insn_weight(&insn[from]);
	return weight;
}

bool bpf_is_tail_call(const struct bpf_insn *insn)
{
	return insn->code == (BPF_JMP | BPF_CALL) && !insn->src_reg &&
	       insn->imm == BPF_FUNC_tail_call;
}

bool bpf_jumps_back(struct bpf_insn *insn)
{
	u8 class = BPF_CLASS(insn->code), op = BPF_OP(insn->code);

	return (class == BPF_JMP || class == BPF_JMP32) && op != BPF_CALL && op != BPF_EXIT &&
	       bpf_jmp_offset(insn) < 0;
}

/*
 * Fuel that a checkpoint in front of the instruction takes, 0 if none has to be
 * there: every loop has a jump backwards, and every chain of programs a tail call.
 * What takes long without them consists of @calls.
 */
u32 bpf_checkpoint_at(const struct bpf_verifier_env *env, u32 insn_idx, bool calls)
{
	struct bpf_insn *insn = &env->prog->insnsi[insn_idx];

	if (bpf_is_tail_call(insn) || insn->code == (BPF_JMP | BPF_JA | BPF_X) ||
	    (calls && is_call(insn)))
		return BPF_CHECKPOINT_CALL;
	if (!bpf_jumps_back(insn))
		return 0;
	return bpf_checkpoint_weight(env, insn_idx + bpf_jmp_offset(insn) + 1, insn_idx);
}

/* Whose result the hook gets: that of the program, or of one whose main function it replaces. */
static const struct bpf_prog *answers_for(const struct bpf_prog *prog)
{
	const struct bpf_prog *replaced = prog->aux->dst_prog;

	if (prog->type != BPF_PROG_TYPE_EXT || !replaced || !replaced->aux->func_info ||
	    replaced->aux->func_info[0].type_id != prog->aux->attach_btf_id)
		return prog;
	return replaced;
}

/*
 * What a run that is ended, or not made, returns: what the hook does if nobody
 * decides. All of it is within what the verifier lets programs of the type return.
 */
static s64 default_result(const struct bpf_prog *prog)
{
	prog = answers_for(prog);
	switch (prog->type) {
	case BPF_PROG_TYPE_SCHED_CLS:
	case BPF_PROG_TYPE_SCHED_ACT:
		return TC_ACT_UNSPEC;
	case BPF_PROG_TYPE_SYSCALL:
		return -ETIMEDOUT;
	case BPF_PROG_TYPE_FLOW_DISSECTOR:
		return BPF_FLOW_DISSECTOR_CONTINUE;
	case BPF_PROG_TYPE_LSM:
		return prog->expected_attach_type == BPF_LSM_CGROUP;
	case BPF_PROG_TYPE_SK_SKB:
		/* To a stream parser, 1 would be the length of a message. */
		return prog->expected_attach_type != BPF_SK_SKB_STREAM_PARSER;
	case BPF_PROG_TYPE_CGROUP_SKB:
	case BPF_PROG_TYPE_CGROUP_SOCK:
	case BPF_PROG_TYPE_CGROUP_SOCK_ADDR:
	case BPF_PROG_TYPE_CGROUP_SOCKOPT:
	case BPF_PROG_TYPE_CGROUP_SYSCTL:
	case BPF_PROG_TYPE_CGROUP_DEVICE:
	case BPF_PROG_TYPE_SOCK_OPS:
	case BPF_PROG_TYPE_SK_MSG:
	case BPF_PROG_TYPE_SK_REUSEPORT:
	case BPF_PROG_TYPE_SK_LOOKUP:
	case BPF_PROG_TYPE_NETFILTER:
		return 1; /* let it pass */
	default:
		return 0;
	}
}

/* The program's own deadline in ns, 0 if it has none. */
static int find_limit(struct bpf_verifier_env *env, u64 *limit)
{
	const struct bpf_prog_aux *aux = env->prog->aux;
	const struct btf_type *func;
	const char *value;
	u64 us;
	int err;

	*limit = 0;
	if (!aux->btf || !aux->func_info)
		return 0;
	func = btf_type_by_id(aux->btf, aux->func_info[0].type_id);
	value = func ? btf_find_decl_tag_value(aux->btf, func, -1, BPF_DEADLINE_TAG) :
		       ERR_PTR(-ENOENT);
	if (value == ERR_PTR(-ENOENT))
		return 0;
	if (IS_ERR(value)) {
		verbose(env, "more than one declaration tag %s\n", BPF_DEADLINE_TAG);
		return -EINVAL;
	}
	err = isdigit(*value) ? kstrtou64(value, 10, &us) : -EINVAL;
	if (err || us < BPF_DEADLINE_MIN_US || us > BPF_DEADLINE_MAX_US) {
		verbose(env, "declaration tag %s%s: not a number from %d to %d\n",
			BPF_DEADLINE_TAG, value, BPF_DEADLINE_MIN_US, BPF_DEADLINE_MAX_US);
		return -EINVAL;
	}
	*limit = us * NSEC_PER_USEC;
	return 0;
}

/* Of a program that is being loaded. NULL if there are no deadlines, or an error. */
struct bpf_deadline *bpf_deadline_alloc(struct bpf_verifier_env *env)
{
	const struct bpf_deadline_ops *ops = ops_get();
	struct bpf_deadline *deadline;
	int err;

	if (!ops)
		return NULL;
	deadline = kzalloc_obj(*deadline, GFP_KERNEL_ACCOUNT);
	if (!deadline) {
		module_put(ops->owner);
		return ERR_PTR(-ENOMEM);
	}
	deadline->ops = ops;
	err = find_limit(env, &deadline->limit);
	if (err) {
		bpf_deadline_free(deadline);
		return ERR_PTR(err);
	}
	deadline->result = default_result(env->prog);
	deadline->refill = INITIAL_REFILL;
	return deadline;
}

void bpf_deadline_free(struct bpf_deadline *deadline)
{
	if (!deadline)
		return;
	module_put(deadline->ops->owner);
	kfree(deadline);
}
