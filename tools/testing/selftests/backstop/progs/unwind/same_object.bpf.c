// SPDX-License-Identifier: GPL-2.0
/*
 * Several references to one object, whose address does not tell them apart: what a throw releases
 * is what is left, whichever of them the instructions before it have released.
 *
 * Each pair of tests has the same instructions but one number, as in merge.bpf.c.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

void *bpf_refcount_acquire(void *p__refcounted_kptr) __ksym;

#define SAME(name, description, labels, text)					\
	SAME_WAY(name##_first, description, labels, 1, text)			\
	SAME_WAY(name##_second, description, labels, 0, text)

#define SAME_WAY(name, description, labels, when, text)				\
	SEC("syscall")								\
	__description(description) __unwinds(labels)				\
	__naked int name(void)							\
	{									\
		asm volatile ("r1 = %[before] ll;"				\
			      "call %[cpu];"					\
			      "r1 = %[one] ll;"					\
			      "r9 = *(u32 *)(r1 + 0);"				\
			      "r1 = 0x61;"					\
			      "call %[object];"					\
			      "if r0 == 0 goto exit_%=;"			\
			      "r6 = r0;"					\
			      "r1 = r0;"					\
			      "call %[again];"					\
			      "r7 = r0;"					\
			      text						\
			      "throw_%=: r1 = 42;"				\
			      "call %[throw];"					\
			      "exit_%=: r0 = 0;"				\
			      "exit;"						\
			      :: [before] "i"(&before), [one] "i"(&one), [way] "i"(when), \
				 [cpu] "i"(bpf_unwind_cpu), [throw] "i"(bpf_throw), \
				 [object] "i"(bpf_unwind_object_acquire),	\
				 [again] "i"(bpf_unwind_object_get),		\
				 [put] "i"(bpf_unwind_object_release)		\
			      : __clobber_all);					\
	}

/* Either reference by an instruction that releases both, the other by one of its own. */
SAME(released_twice, "what two instructions have released is not released again", "aa",
	"if r9 > 1 goto throw_%=;"
	"r1 = r7;"
	"if r9 == %[way] goto shared_%=;"
	"r1 = r6;"
	"shared_%=: call %[put];"
	"if r9 == %[way] goto first_%=;"
	"r1 = r7;"
	"call %[put];"
	"goto throw_%=;"
	"first_%=: r1 = r6;"
	"call %[put];")

/* The other one is left. */
SAME(one_left, "of two references to one object, the one that is left is released", "aa",
	"if r9 > 1 goto throw_%=;"
	"r1 = r7;"
	"if r9 == %[way] goto shared_%=;"
	"r1 = r6;"
	"shared_%=: call %[put];"
	"if r9 <= 1 goto throw_%=;"
	"r1 = r6;"
	"call %[put];"
	"r1 = r7;"
	"call %[put];")

/* Only the first reference is ever held at a throw, and it is the second one that is released. */
SAME_WAY(other_unheld, "a reference is released though one that no throw finds has its address", "aa", 1,
	 "r9 &= 1;"
	 "r1 = r7;"
	 "if r9 == %[way] goto shared_%=;"
	 "r1 = r6;"
	 "shared_%=: call %[put];"
	 "if r9 == %[way] goto throw_%=;"
	 "r1 = r7;"
	 "call %[put];"
	 "goto exit_%=;")

/* The slot of the one that is released first is filled again. */
SAME(acquired_again, "a reference that is acquired again does not displace the other one", "aaa",
	"if r9 > 1 goto throw_%=;"
	"r8 = 0;"
	"again_%=: r1 = r7;"
	"if r9 == %[way] goto shared_%=;"
	"r1 = r6;"
	"r6 = r7;"
	"shared_%=: call %[put];"
	"if r8 != 0 goto throw_%=;"
	"r8 = 1;"
	"r1 = r6;"
	"call %[again];"
	"r7 = r0;"
	"goto again_%=;")

struct counted {
	__u64 data;
	struct bpf_unwind_object __kptr *inner;
	struct bpf_refcount refcount;
};

static __noinline int drop(struct counted *counted)
{
	bpf_obj_drop(counted);
	return one;
}

#define DROPPED(name, cond)							\
	SEC("syscall")								\
	__description("an object that two instructions have dropped is not dropped again") \
	__unwinds("a")								\
	int name(void *ctx)							\
	{									\
		struct bpf_unwind_object *object;				\
		struct counted *first, *second;					\
										\
		begin();							\
		first = new(struct counted);					\
		if (!first)							\
			return 0;						\
		object = bpf_unwind_object_acquire('a');			\
		if (object)							\
			object = bpf_kptr_xchg(&first->inner, object);		\
		if (object)							\
			bpf_unwind_object_release(object);			\
		second = bpf_refcount_acquire(first);				\
		if (one > 1)							\
			bpf_throw(COOKIE + 1);					\
		if (cond) {							\
			drop(second);						\
			bpf_obj_drop(first);					\
			asm volatile ("r0 = 1;" ::: "r0");			\
		} else {							\
			drop(first);						\
			bpf_obj_drop(second);					\
			asm volatile ("r0 = 2;" ::: "r0");			\
		}								\
		bpf_throw(COOKIE);						\
		return 0;							\
	}

DROPPED(dropped_twice_first, one)
DROPPED(dropped_twice_second, !one)

/* Never called: clang describes a kfunc in BTF only where it is called from C. */
void kfuncs(void)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire('a');

	if (!object)
		return;
	bpf_unwind_object_release(bpf_unwind_object_get(object));
	bpf_unwind_object_release(object);
}
