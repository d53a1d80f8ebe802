/* SPDX-License-Identifier: GPL-2.0 */
/*
 * When a run of a BPF program has to end, and who ends it.
 *
 * The verifier puts checkpoints where a run can stay long: in front of jumps
 * backwards and of tail calls, and into functions that are called back. Each
 * takes from the fuel of its CPU what the code up to the next one is worth. When
 * the fuel is used up, which is about a millisecond later, the checkpoint asks a
 * module whether the run goes on. Each run has fuel of its own: the one that it is
 * called by, or has interrupted, goes on with what that had.
 */
#ifndef _LINUX_BPF_DEADLINE_H
#define _LINUX_BPF_DEADLINE_H

#include <linux/bits.h>
#include <linux/percpu.h>
#include <linux/types.h>

struct bpf_insn;
struct bpf_unwind_regs;
struct bpf_verifier_env;
struct module;

/* src_reg of BPF_JMP | BPF_JCOND; imm is what it takes from the fuel, 0 that a throw may go on. */
#define BPF_CHECKPOINT	1
/*
 * The same; dst_reg is BPF_REG_FP, imm the offset of bpf_run.fuel: swaps that with the fuel.
 * What a run has used it takes from the run outside when it leaves.
 */
#define BPF_ENTER_RUN	2
#define BPF_LEAVE_RUN	3

/*
 * What a jump backwards takes for each instruction up to its target, and at most.
 * A call may take long, but for the one of the iterator that counts.
 */
#define BPF_CHECKPOINT_INSN	1
#define BPF_CHECKPOINT_NEXT	8
#define BPF_CHECKPOINT_CALL	128
#define BPF_CHECKPOINT_MAX	BIT(12)
/* Fuel that is used up, whatever is added to it; twice that fits, too. */
#define BPF_NO_FUEL	(-(1 << 28))
/* What may be executed without a checkpoint: if it can be more, calls have one, too. */
#define BPF_CHECKPOINT_FREE	BIT(18)

/* Bounds of a deadline that a program brings along: declaration tag "deadline_us:N". */
#define BPF_DEADLINE_MIN_US	1000
#define BPF_DEADLINE_MAX_US	10000000
#define BPF_DEADLINE_TAG	"deadline_us:"

/* Why a program is not run. */
enum bpf_stopped {
	BPF_STOPPED_NOT,
	BPF_STOPPED_OPERATOR,	/* somebody has said so */
	BPF_STOPPED_OFTEN,	/* its runs had to be ended again and again */
};

/*
 * The programs of a chain of tail calls are one run: each hands on to the next one,
 * in r5, what has been spent and when that was, in units of 2^16 ns below a mark
 * that no pointer has. The JIT zeroes r5 where a run begins; behind a program
 * without deadline it may be anything.
 */
#define BPF_RUN_HANDED		0x5be47a91c0000000ULL
#define BPF_RUN_HANDED_SHIFT	16
#define BPF_RUN_HANDED_LAST	12	/* bits of when: beyond a quarter of a second it begins anew */
#define BPF_RUN_HANDED_BITS	30	/* of both */

/* In the frame where a run ends. All times are ns of CPU time between checkpoints. */
struct bpf_run {
	u64 last;		/* when the run was looked at, 0: not yet */
	u64 spent;		/* by the run; before it is looked at, what it was handed */
	u64 handed;		/* of that, what programs before this one in the chain have spent */
	u64 section;		/* spent when it came to be in the context it is in, and which that is */
	s32 fuel;		/* of the run outside, which this one is called by or has interrupted */
	s32 given;		/* what it began with itself */
};

struct bpf_deadline {
	const struct bpf_deadline_ops *ops;
	u64 limit;		/* ns, by declaration tag; 0 if it has none */
	s64 result;		/* of a run that is ended, or not run */
	u32 stopped;		/* enum bpf_stopped, looked at by the program's first instructions */
	u32 refill;		/* fuel that lasts about a millisecond, which runs begin with, too */
	u64 looked_at;		/* when a run was last, by whatever CPU, ns of CLOCK_MONOTONIC */
	bool callback;		/* the program has an exception callback of its own */
	/* For reports. */
	u64 longest;		/* ns that a run has taken, as far as checkpoints have seen it */
	u64 deadlines;		/* runs ended for their deadline */
	u64 kills;		/* runs ended by an operator */
	u64 ended_at;		/* when the last one was, ns of CLOCK_MONOTONIC, or 0 */
	u64 spent;		/* by that one, ns */
	u64 exceeded;		/* its deadline, ns, or 0: an operator ended it */
	u64 held;		/* slots that were released then */
	u32 row;		/* runs ended in short succession */
};

/**
 * struct bpf_deadline_ops - what a module gives the verifier
 * @owner: pinned by every program that is loaded with it
 * @checkpoint: called when the fuel is used up, in any context, NMI included. Returns
 *	the fuel for what follows, or a negative number if it has ended the run.
 */
struct bpf_deadline_ops {
	struct module *owner;
	int (*checkpoint)(struct bpf_unwind_regs *regs);
};

DECLARE_PER_CPU(int, bpf_checkpoint_fuel);

int bpf_deadline_register(const struct bpf_deadline_ops *ops);
void bpf_deadline_unregister(const struct bpf_deadline_ops *ops);

/* Has every CPU ask at its next checkpoint. Any context in which interrupts are on. */
void bpf_deadline_kick(void);

/* The run ends without its last instructions: gives the fuel back to the one outside. */
void bpf_run_ended(const struct bpf_run *run);

/* In assembly: asks, all registers of the program preserved. */
void bpf_checkpoint_stub(void);
/* What that calls. Returns whether the program goes on where @regs say. */
bool bpf_checkpoint(struct bpf_unwind_regs *regs);

#ifdef CONFIG_BPF_SYSCALL
bool bpf_run_is_handed(const struct bpf_verifier_env *env);
#else
static inline bool bpf_run_is_handed(const struct bpf_verifier_env *env)
{
	return false;
}
#endif

/* For the verifier. */
struct bpf_deadline *bpf_deadline_alloc(struct bpf_verifier_env *env);
void bpf_deadline_free(struct bpf_deadline *deadline);
bool bpf_jumps_back(struct bpf_insn *insn);
bool bpf_is_tail_call(const struct bpf_insn *insn);
bool bpf_is_packet_load(const struct bpf_insn *insn);
u32 bpf_checkpoint_weight(const struct bpf_verifier_env *env, u32 from, u32 to);
u32 bpf_checkpoint_at(const struct bpf_verifier_env *env, u32 insn_idx, bool calls);

#endif /* _LINUX_BPF_DEADLINE_H */
