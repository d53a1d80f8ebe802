/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a BPF program holds when it throws, and who lets it go.
 *
 * The verifier gives every resource that may be held at a throw point a slot in
 * the frame of the function at which unwinding stops: the main program or a
 * callback. Inserted instructions fill the slot where the resource is acquired
 * and clear it where it is released, so that at any moment a slot that is not
 * zero is a resource that is held. The slots of a frame are in the order in
 * which they are to be released.
 */
#ifndef _LINUX_BPF_UNWIND_H
#define _LINUX_BPF_UNWIND_H

#include <linux/types.h>

struct bpf_deadline;
struct bpf_prog_aux;
struct btf_struct_meta;
struct module;

/* At most this many slots in a program: one bit each in bpf_unwind_func.slots. */
#define BPF_UNWIND_MAX_SLOTS	64

/* How the content of a slot is released. allocate_slots() has the order. */
enum bpf_unwind_kind {
	BPF_UNWIND_SPIN_LOCK,	/* struct bpf_spin_lock * */
	BPF_UNWIND_RES_LOCK,	/* struct bpf_res_spin_lock *, interrupts left as they are */
	BPF_UNWIND_IRQ,		/* unsigned long *, the flags of the outermost IRQ-saved region */
	BPF_UNWIND_PREEMPT,	/* number of preempt-disabled regions */
	BPF_UNWIND_ITER,	/* iterator on the program's stack: release(it) */
	BPF_UNWIND_RINGBUF_DYNPTR, /* record behind a dynptr */
	BPF_UNWIND_FILE_DYNPTR,	/* struct bpf_dynptr_file_impl * behind a dynptr */
	BPF_UNWIND_RINGBUF,	/* record from bpf_ringbuf_reserve() */
	BPF_UNWIND_OBJ,		/* from bpf_obj_new(): meta */
	BPF_UNWIND_PERCPU_OBJ,	/* from bpf_percpu_obj_new(): meta */
	BPF_UNWIND_SOCK,	/* struct sock * from a helper */
	BPF_UNWIND_KFUNC,	/* pointer to a kernel type: release(ptr) */
	BPF_UNWIND_RCU,		/* number of RCU read sections */
	__BPF_UNWIND_KINDS,
};

struct bpf_unwind_slot {
	enum bpf_unwind_kind kind;
	/* Instruction of the loaded program that acquires, for reports; -1 if several do. */
	s32 insn_idx;
	/* Of the type or the acquiring function, for reports. Never NULL. */
	const char *name;
	union {
		void (*release)(void *object);
		const struct btf_struct_meta *meta;
	};
};

/* What stops unwinding at a function. */
enum bpf_unwind_boundary {
	BPF_UNWIND_NO_BOUNDARY,	/* a subprogram: its caller is unwound, too */
	BPF_UNWIND_MAIN,	/* the exception callback finishes the run */
	BPF_UNWIND_CALLBACK,	/* ends with `stop`, and its helper's caller goes on unwinding */
	BPF_UNWIND_ASYNC,	/* timer, workqueue, task work: ends with `stop` */
	BPF_UNWIND_EXCEPTION,	/* the run has ended: nothing is unwound */
};

/* A function of the program. In a table they are sorted by @start. */
struct bpf_unwind_func {
	unsigned long start;	/* of its code */
	unsigned long end;
	u16 subprog;		/* its number in the program */
	u8 boundary;		/* enum bpf_unwind_boundary */
	/* bpf_prog_aux.unwind_saved and unwind_saved_regs */
	u8 saved_regs;
	u16 saved;
	/*
	 * Of a boundary with slots: slot 0 lies that far below what the program sees as
	 * r10, or would, if the frame had those that it does not fill.
	 */
	u16 area;
	/* If it calls helpers whose callback may throw: distance below r10 of struct bpf_unwind_pending. */
	u16 pending;
	/* Where a run ends, if it has a deadline: distance below r10 of struct bpf_run. */
	u16 run;
	/* If it has loops that may_goto leaves: distance below r10 of struct bpf_timed_may_goto. */
	u16 may_goto;
	u64 slots;		/* of a boundary: those that its frame may fill */
	u64 stop;		/* what a boundary returns that is ended: a callback, so that its helper stops */
	/* If the program's stack is not on the kernel's: what it sees as r10. */
	void __percpu *private_stack;
};

/* A throw that ended a callback and goes on when the helper returns. */
struct bpf_unwind_pending {
	u64 thrown;
	u64 cookie;
};

struct bpf_unwind_table {
	const struct bpf_unwind_ops *ops;
	struct bpf_deadline *deadline; /* or NULL */
	u32 nr_funcs;
	u32 nr_slots;
	struct bpf_unwind_func *funcs;
	struct bpf_unwind_slot slots[];
};

/*
 * Or'ed to the program that bpf_throw_stub() is given, which is aligned, if a
 * throw has ended a callback and goes on in the function that called the helper.
 */
#define BPF_THROW_AGAIN	1

/*
 * Registers at a throw, and where to go on: filled by bpf_throw_stub(), which
 * loads them again when the frame-release hook has returned.
 */
struct bpf_unwind_regs {
	u64 cookie;
	struct bpf_prog_aux *aux; /* of the main program */
	u64 ip;			/* behind the call that throws */
	u64 sp;			/* as they are behind that call */
	u64 bp;
	u64 args[3];		/* first three arguments of a function that is jumped to */
	u64 ret;		/* before: BPF_THROW_AGAIN or 0; then the value of a function that is ended */
	u64 saved[5];		/* x86: rbx, r12, r13, r14, r15; before: at a checkpoint */
};

/**
 * struct bpf_unwind_ops - what a module gives the verifier
 * @owner: pinned by every program that is loaded with it
 * @unwind: releases what the frames up to the boundary hold and says in @regs where
 *	to go on. Any context, NMI included. Must not fail, nor sleep before what
 *	it releases last does.
 */
struct bpf_unwind_ops {
	struct module *owner;
	void (*unwind)(struct bpf_unwind_regs *regs);
};

int bpf_unwind_register(const struct bpf_unwind_ops *ops);
void bpf_unwind_unregister(const struct bpf_unwind_ops *ops);

void bpf_unwind_table_free(struct bpf_unwind_table *table);
bool bpf_jit_supports_unwind(void);

/* In assembly: what a throw calls, and what a trampoline returns to while its callee is unwound. */
void bpf_throw_stub(u64 cookie, struct bpf_prog_aux *aux);
void bpf_throw_resume(void);
/* In assembly: calls a kfunc that releases @object, whatever its prototype. */
void bpf_call_release(void (*release)(void *object), void *object);
/* Like arch_bpf_stack_walk(), beginning with code of the kernel that has these registers. */
void arch_bpf_stack_walk_from(bool (*consume_fn)(void *cookie, u64 ip, u64 sp, u64 bp),
			      void *cookie, u64 ip, u64 sp, u64 bp);
/* What bpf_throw_stub() calls. */
void bpf_unwind_frames(struct bpf_unwind_regs *regs);

#endif /* _LINUX_BPF_UNWIND_H */
