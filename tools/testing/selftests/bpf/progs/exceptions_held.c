// SPDX-License-Identifier: GPL-2.0
/* The programs of exceptions_held.h, which succeed with bpf_unwind. */
#define PROG(name) throw_##name
#define __refused(msg)
#include "exceptions_held.h"

int references;
int preempt_count;

/* Sets references and preempt_count, which are not to change when a program throws. */
SEC("?tc")
int look(void *ctx)
{
	struct prog_test_ref_kfunc *ref;
	unsigned long arg = 0;

	ref = bpf_kfunc_call_test_acquire(&arg);
	if (!ref)
		return 1;
	references = ref->cnt.refs.counter;
	bpf_kfunc_call_test_release(ref);
	preempt_count = get_preempt_count();
	return 0;
}
