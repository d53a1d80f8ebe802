// SPDX-License-Identifier: GPL-2.0
/*
 * What --bench runs to tell what it costs to hold references at a throw, and to
 * hold them where one may come. Each row stands beside the same program that
 * releases them itself. None loads without the modules.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include "ledger.h"
#include "row.h"

char LICENSE[] SEC("license") = "GPL";

void bpf_throw(__u64 cookie) __kfunc_of(bpf_unwind);
struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
void bpf_task_release(struct task_struct *p) __ksym;

const volatile bool never;

static __always_inline void release(struct task_struct *task)
{
	if (task)
		bpf_task_release(task);
}

#define EACH(count, statement)							\
	_Pragma("clang loop unroll(full)")					\
	for (int i = 0; i < (count); i++) {					\
		statement;							\
	}

#define ROW_OF(name, count, what, condition)					\
	ROW("references held, " #count ": " what, 100000)			\
	int name##_##count(struct xdp_md *ctx)					\
	{									\
		struct task_struct *task = bpf_get_current_task_btf();		\
		struct task_struct *held[count];				\
										\
		EACH(count, held[i] = bpf_task_acquire(task))			\
		if (condition)							\
			bpf_throw(XDP_PASS);					\
		if (never)							\
			bpf_unwind_reset();					\
		EACH(count, release(held[i]))					\
		return XDP_PASS;						\
	}

#define ROWS(count)								\
	ROW_OF(by_hand, count, "released by hand", never)			\
	ROW_OF(possible, count, "released by hand, throw possible", !ctx->data)	\
	ROW_OF(throw, count, "throw", ctx->data)

ROWS(1)
ROWS(2)
ROWS(4)
ROWS(8)
ROWS(16)
