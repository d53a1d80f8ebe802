// SPDX-License-Identifier: GPL-2.0
/* Chains of tail calls, which are one run: for tests/deadline.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

/* A chain of programs that take 2 ms each: as many as are to be. */
struct chain {
	__u64 programs;	/* set by user space */
	__u64 entered;
};

struct chain chain SEC(".data.chain");

int link(struct __sk_buff *skb);
int link_by_index(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__array(values, int (void *));
} links SEC(".maps") = {
	.values = {
		[0] = (void *)&link,
		[1] = (void *)&link_by_index,
	},
};

/* The JIT has code of its own for an index that is known. */
#define LINK(name, index)							\
	SEC("tc") __exception_cb(ended) __soon					\
	int name(struct __sk_buff *skb)						\
	{									\
		chain.entered++;						\
		take_two_ms();							\
		if (chain.entered < chain.programs)				\
			bpf_tail_call(skb, &links, index);			\
		return 7;							\
	}

LINK(link, 0)
LINK(link_by_index, *(volatile int *)&one)

/* It takes no time itself, and has no loop: a tail call is all it has. */
#define CHAIN(name, index)							\
	SEC("tc") __exception_cb(ended) __soon					\
	int name(struct __sk_buff *skb)						\
	{									\
		begin();							\
		chain.entered = 0;						\
		bpf_tail_call(skb, &links, index);				\
		return 1;							\
	}

CHAIN(chain_direct, 0)
CHAIN(chain_by_index, *(volatile int *)&one)

/* What it returns must not be known: it is what the last program of the chain does. */
static __noinline int calls_the_first(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &links, 0);
	return one;
}

/* What was tail called returns to this. */
SEC("tc") __exception_cb(ended) __soon
int chain_in_function(struct __sk_buff *skb)
{
	begin();
	chain.entered = 0;
	return calls_the_first(skb);
}
