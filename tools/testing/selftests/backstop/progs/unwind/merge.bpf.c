// SPDX-License-Identifier: GPL-2.0
/*
 * Paths that the verifier merges or prunes before a throw: what is released is what the path
 * at hand holds, never what another path did.
 *
 * Each pair of tests has the same instructions but one number: 'first' takes the branch that
 * the verifier walks last, and prunes if it can, 'second' the one that it walks first.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

#define MERGED(name, description, first, second, text)				\
	MERGED_WAY(name##_first, description, first, 1, text)			\
	MERGED_WAY(name##_second, description, second, 0, text)

#define MERGED_WAY(name, description, labels, when, text)			\
	SEC("syscall")								\
	__description(description) __unwinds(labels)				\
	__naked int name(void)						\
	{									\
		asm volatile ("r1 = %[before] ll;"				\
			      "call %[cpu];"					\
			      "r6 = 0;"						\
			      "r7 = 0;"						\
			      "r1 = %[one] ll;"					\
			      "r9 = *(u32 *)(r1 + 0);"				\
			      text						\
			      "throw_%=: r1 = 42;"				\
			      "call %[throw];"					\
			      "exit_%=: r0 = 0;"				\
			      "exit;"						\
			      :: [before] "i"(&before), [one] "i"(&one), [way] "i"(when), \
				 [cpu] "i"(bpf_unwind_cpu), [throw] "i"(bpf_throw), \
				 [object] "i"(bpf_unwind_object_acquire),	\
				 [again] "i"(bpf_unwind_object_get),		\
				 [put_object] "i"(bpf_unwind_object_release),	\
				 [node] "i"(bpf_unwind_node_acquire),		\
				 [iter] "i"(bpf_iter_unwind_new),		\
				 [ring] __imm_addr(ring),			\
				 [reserve_dynptr] "i"(bpf_ringbuf_reserve_dynptr), \
				 [irq_save] "i"(bpf_local_irq_save),		\
				 [rcu_lock] "i"(bpf_rcu_read_lock),		\
				 [preempt] "i"(bpf_preempt_disable)		\
			      : __clobber_all);					\
	}

#define __imm_addr(name) "i"(&(name))

MERGED(number, "a register holds a number on one path and a reference on the other", "a", "",
	"if r9 == %[way] goto first_%=;"
	"r6 = 7;"
	"goto throw_%=;"
	"first_%=: r1 = 0x61;"
	"call %[object];"
	"r6 = r0;")

MERGED(number_spilled, "a stack slot holds a number on one path and a reference on the other",
	"a", "",
	"if r9 == %[way] goto first_%=;"
	"r1 = 7;"
	"*(u64 *)(r10 - 8) = r1;"
	"goto throw_%=;"
	"first_%=: r1 = 0x61;"
	"call %[object];"
	"*(u64 *)(r10 - 8) = r0;")

MERGED(types, "a register holds references of different types on two paths", "n", "a",
	"if r9 == %[way] goto first_%=;"
	"r1 = 0x61;"
	"call %[object];"
	"r6 = r0;"
	"goto throw_%=;"
	"first_%=: r1 = 0x6e;"
	"call %[node];"
	"r6 = r0;")

MERGED(types_lost, "references of different types on two paths are in no register at the throw",
	"n", "a",
	"if r9 == %[way] goto first_%=;"
	"r1 = 0x61;"
	"call %[object];"
	"goto throw_%=;"
	"first_%=: r1 = 0x6e;"
	"call %[node];")

MERGED(types_null, "references of different types on two paths were tested for NULL", "n", "a",
	"if r9 == %[way] goto first_%=;"
	"r1 = 0x61;"
	"call %[object];"
	"if r0 == 0 goto exit_%=;"
	"goto throw_%=;"
	"first_%=: r1 = 0x6e;"
	"call %[node];"
	"if r0 == 0 goto exit_%=;")

MERGED(instructions, "two instructions acquire the same type on two paths", "b", "a",
	"if r9 == %[way] goto first_%=;"
	"r1 = 0x61;"
	"call %[object];"
	"r6 = r0;"
	"goto throw_%=;"
	"first_%=: r1 = 0x62;"
	"call %[object];"
	"r6 = r0;")

MERGED(registers, "one reference is in different registers on two paths", "a", "a",
	"r1 = 0x61;"
	"call %[object];"
	"if r0 == 0 goto exit_%=;"
	"if r9 == %[way] goto first_%=;"
	"r6 = r0;"
	"goto throw_%=;"
	"first_%=: r7 = r0;")

MERGED(slots, "one reference is in different stack slots on two paths", "a", "a",
	"r1 = 0x61;"
	"call %[object];"
	"if r0 == 0 goto exit_%=;"
	"if r9 == %[way] goto first_%=;"
	"*(u64 *)(r10 - 8) = r0;"
	"goto throw_%=;"
	"first_%=: *(u64 *)(r10 - 16) = r0;")

MERGED(swapped, "two references are in swapped registers on two paths", "ab", "ab",
	"r1 = 0x61;"
	"call %[object];"
	"r6 = r0;"
	"r1 = 0x62;"
	"call %[object];"
	"r7 = r0;"
	"if r9 == %[way] goto first_%=;"
	"goto throw_%=;"
	"first_%=: r8 = r6;"
	"r6 = r7;"
	"r7 = r8;")

MERGED(short_path, "a stack slot is not written on the shorter path", "", "a",
	"if r9 == %[way] goto throw_%=;"
	"r1 = 0x61;"
	"call %[object];"
	"*(u64 *)(r10 - 8) = r0;")

MERGED(short_path_last, "the shorter path comes last", "a", "",
	"if r9 != %[way] goto throw_%=;"
	"r1 = 0x61;"
	"call %[object];"
	"*(u64 *)(r10 - 8) = r0;")

MERGED(released, "one path releases what both acquired", "a", "a",
	"r1 = 0x61;"
	"call %[object];"
	"if r0 == 0 goto exit_%=;"
	"r6 = r0;"
	"if r9 == %[way] goto first_%=;"
	"r1 = r6;"
	"call %[put_object];"
	"goto throw_%=;"
	"first_%=:")

MERGED(released_other, "each path releases another of two references", "ab", "ab",
	"r1 = 0x61;"
	"call %[object];"
	"if r0 == 0 goto exit_%=;"
	"r6 = r0;"
	"r1 = 0x62;"
	"call %[object];"
	"r7 = r0;"
	"if r0 == 0 goto throw_%=;"
	"r1 = r6;"
	"if r9 == %[way] goto first_%=;"
	"r1 = r7;"
	"first_%=: call %[put_object];")

MERGED(iter_places, "an iterator lies in different places on two paths", "i", "i",
	"r1 = r10;"
	"r1 += -16;"
	"if r9 == %[way] goto first_%=;"
	"r1 += -16;"
	"first_%=: r2 = 0x69;"
	"r3 = 3;"
	"call %[iter];")

MERGED(iter_instructions, "two instructions make iterators in different places on two paths", "j", "i",
	"r1 = r10;"
	"if r9 == %[way] goto first_%=;"
	"r1 += -16;"
	"r2 = 0x69;"
	"r3 = 3;"
	"call %[iter];"
	"goto throw_%=;"
	"first_%=: r1 += -32;"
	"r2 = 0x6a;"
	"r3 = 3;"
	"call %[iter];")

MERGED(iter_or_reference, "one path holds an iterator and the other a reference", "a", "i",
	"if r9 == %[way] goto first_%=;"
	"r1 = r10;"
	"r1 += -16;"
	"r2 = 0x69;"
	"r3 = 3;"
	"call %[iter];"
	"goto throw_%=;"
	"first_%=: r1 = 0x61;"
	"call %[object];")

MERGED(dynptr_places, "a dynptr of a record lies in different places on two paths", "", "",
	"r4 = r10;"
	"r4 += -16;"
	"if r9 == %[way] goto first_%=;"
	"r4 += -16;"
	"first_%=: r1 = %[ring] ll;"
	"r2 = 8;"
	"r3 = 0;"
	"call %[reserve_dynptr];")

MERGED(irq_places, "saved interrupt flags lie in different places on two paths", "", "",
	"r1 = r10;"
	"r1 += -8;"
	"if r9 == %[way] goto first_%=;"
	"r1 += -8;"
	"first_%=: call %[irq_save];")

MERGED(irq_instructions, "two instructions save interrupt flags in different places on two paths",
	"", "",
	"r1 = r10;"
	"if r9 == %[way] goto first_%=;"
	"r1 += -8;"
	"call %[irq_save];"
	"goto throw_%=;"
	"first_%=: r1 += -16;"
	"call %[irq_save];")

MERGED(irq_or_not, "interrupts are saved on one path only", "", "",
	"if r9 == %[way] goto throw_%=;"
	"r1 = r10;"
	"r1 += -8;"
	"call %[irq_save];")

MERGED(rcu_or_not, "a read section is entered on one path only", "", "",
	"if r9 == %[way] goto throw_%=;"
	"call %[rcu_lock];")

MERGED(preempt_twice_or_once, "preemption is disabled once or twice", "", "",
	"call %[preempt];"
	"if r9 == %[way] goto throw_%=;"
	"call %[preempt];")

/* In r6 and r7: their address does not tell them apart. */
#define TWO_REFERENCES								\
	"r1 = 0x61;"								\
	"call %[object];"							\
	"if r0 == 0 goto exit_%=;"						\
	"r6 = r0;"								\
	"r1 = r0;"								\
	"call %[again];"							\
	"r7 = r0;"

/* By an instruction that releases both. */
#define RELEASE_EITHER								\
	"if r9 > 1 goto throw_%=;"						\
	"r1 = r7;"								\
	"if r9 == %[way] goto shared_%=;"					\
	"r1 = r6;"								\
	"shared_%=: call %[put_object];"

/* The other one by an instruction of its own. */
MERGED(released_twice, "what two instructions have released is not released again", "aa", "aa",
	TWO_REFERENCES
	RELEASE_EITHER
	"if r9 == %[way] goto first_%=;"
	"r1 = r7;"
	"call %[put_object];"
	"goto throw_%=;"
	"first_%=: r1 = r6;"
	"call %[put_object];")

/* The other one is left. */
MERGED(one_left, "of two references to one object, the one that is left is released", "aa", "aa",
	TWO_REFERENCES
	RELEASE_EITHER
	"if r9 <= 1 goto throw_%=;"
	"r1 = r6;"
	"call %[put_object];"
	"r1 = r7;"
	"call %[put_object];")

/* Only the first reference is ever held at a throw, and it is the second one that is released. */
MERGED_WAY(other_unheld, "a reference is released though one that no throw finds has its address", "aa", 1,
	TWO_REFERENCES
	"r9 &= 1;"
	"r1 = r7;"
	"if r9 == %[way] goto shared_%=;"
	"r1 = r6;"
	"shared_%=: call %[put_object];"
	"if r9 == %[way] goto throw_%=;"
	"r1 = r7;"
	"call %[put_object];"
	"goto exit_%=;")

/* The slot of the one that is released first is filled again. */
MERGED(acquired_again, "a reference that is acquired again does not displace the other one", "aaa", "aaa",
	TWO_REFERENCES
	"if r9 > 1 goto throw_%=;"
	"r8 = 0;"
	"again_%=: r1 = r7;"
	"if r9 == %[way] goto shared_%=;"
	"r1 = r6;"
	"r6 = r7;"
	"shared_%=: call %[put_object];"
	"if r8 != 0 goto throw_%=;"
	"r8 = 1;"
	"r1 = r6;"
	"call %[again];"
	"r7 = r0;"
	"goto again_%=;")

/* Never called: clang describes a kfunc in BTF only where it is called from C. */
void kfuncs(void)
{
	struct bpf_iter_unwind it;
	unsigned long flags;

	bpf_throw(COOKIE);
	bpf_unwind_object_release(bpf_unwind_object_get(bpf_unwind_object_acquire('a')));
	bpf_unwind_node_acquire('n');
	bpf_iter_unwind_new(&it, 'i', 3);
	bpf_local_irq_save(&flags);
	bpf_rcu_read_lock();
	bpf_preempt_disable();
}
