// SPDX-License-Identifier: GPL-2.0
/* Types that cannot be released where the program runs, or not told apart, are refused at load. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

struct box {
	__u64 a, b;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct values {
		struct bpf_unwind_object __kptr *object;
		struct box __kptr *box;
	});
} values SEC(".maps");

/* One instruction, whose first argument points to one field or the other. */
SEC("syscall")
__description("an instruction that acquires different types on different paths is refused")
__refused("acquired at insn {{[0-9]+}}: the instruction acquires different types on different paths")
__naked int refuse_two_types(void)
{
	asm volatile ("r1 = 0;"
		      "*(u32 *)(r10 - 4) = r1;"
		      "r1 = %[values] ll;"
		      "r2 = r10;"
		      "r2 += -4;"
		      "call %[lookup];"
		      "if r0 == 0 goto out_%=;"
		      "r6 = r0;"
		      "r1 = %[one] ll;"
		      "r2 = *(u32 *)(r1 + 0);"
		      "r1 = r6;"
		      "if r2 == 0 goto take_%=;"
		      "r1 += 8;"
		      "take_%=: r2 = 0;"
		      "call %[xchg];"
		      "r1 = 42;"
		      "call %[throw];"
		      "out_%=: r0 = 0;"
		      "exit;"
		      :: [values] "i"(&values), [one] "i"(&one),
			 [lookup] "i"(bpf_map_lookup_elem), [xchg] "i"(bpf_kptr_xchg),
			 [throw] "i"(bpf_throw)
		      : __clobber_all);
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packets {
		struct sk_buff __kptr *packet;
	});
} packets SEC(".maps");

/* Only a Qdisc may call bpf_kfree_skb(), which is not for NMI. */
SEC("tp_btf/sched_switch")
__description("what a program out of a map holds and may not release itself, for it may run in NMI, is refused")
__event(none) __failure(EINVAL)
__msg("bpf_throw cannot release sk_buff acquired at insn {{[0-9]+}}: it cannot be released in NMI or under a lock")
int refuse_in_nmi(void *ctx)
{
	struct packets *value;
	__u32 key = 0;

	value = bpf_map_lookup_elem(&packets, &key);
	if (!value)
		return 0;
	bpf_kptr_xchg(&value->packet, NULL);
	bpf_throw(COOKIE);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

/* Any program may look up a socket, but only some may call bpf_sk_release(). */
SEC("raw_tp/sched_switch")
__description("a socket from a map is refused where the program may not release it")
__event(none) __failure(EINVAL)
__msg("bpf_throw cannot release sock acquired at insn {{[0-9]+}}: it cannot be released in NMI or under a lock")
int refuse_socket_in_nmi(void *ctx)
{
	__u32 key = 0;

	if (bpf_map_lookup_elem(&sockets, &key))
		bpf_throw(COOKIE);
	return 0;
}

/* Never called: clang describes kfuncs, and types behind pointers, only where C uses them. */
void kfuncs(struct sk_buff *packet)
{
	struct box *box = new(struct box);

	if (box && bpf_unwind_object_acquire('a')->type)
		bpf_throw(box->a + packet->len);
}
