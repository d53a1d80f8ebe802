// SPDX-License-Identifier: GPL-2.0
/* What runs return that are ended, and have no exception callback. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

#define RESULT(name, hook, result, what, other)					\
	SEC(hook)								\
	__description("a run that is ended " what)				\
	__module(bpf_unwind) __module(bpf_deadline) __soon			\
	__event(test_run) __retval(result) __expires					\
	int result_##name(void *ctx)						\
	{									\
		take_long();							\
		return other;							\
	}

RESULT(tc, "tc", -1, "leaves a packet to the next classifier", 2)
RESULT(action, "action", -1, "leaves a packet to the next action", 2)
RESULT(xdp, "xdp", 0, "aborts a packet", 2)
RESULT(cgroup_skb, "cgroup_skb/ingress", 1, "lets a packet of a control group in", 0)
RESULT(socket, "socket", 0, "keeps a packet from a socket", 1)
RESULT(flow_dissector, "flow_dissector", 129, "leaves a packet to the kernel's dissector", 0)
RESULT(lwt, "lwt_xmit", 0, "lets a packet through a tunnel", 2)

static __noinline int stay_below(int n)
{
	int i, j;

	bpf_for(i, 0, ROUNDS)
		bpf_for(j, 0, ROUNDS)
			sum += n;
	return 0;
}

SEC("tc")
__description("a run that is ended in a function returns from the main program")
__module(bpf_unwind) __module(bpf_deadline) __soon __event(test_run) __retval(-1) __expires
int result_below(void *ctx)
{
	stay_below(one);
	return 2;
}

static int callback(__u32 i, void *ctx)
{
	stay_below(i);
	return 0;
}

SEC("tc")
__description("a run that is ended in a callback returns from the main program")
__module(bpf_unwind) __module(bpf_deadline) __soon __event(test_run) __retval(-1) __expires
int result_in_callback(void *ctx)
{
	bpf_loop(one, callback, NULL, 0);
	return 2;
}
