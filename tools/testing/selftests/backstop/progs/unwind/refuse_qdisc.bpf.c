// SPDX-License-Identifier: GPL-2.0
/* Nor does an operation throw that the kernel completes: in a file of its own, as libbpf loads it with its map. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

SEC("struct_ops/reset")
__description("an operation after which the kernel has something to do cannot throw")
__event(none) __failure(EOPNOTSUPP)
__msg("bpf_throw cannot be called in a program that has an epilogue")
void refuse_reset(struct Qdisc *sch)
{
	bpf_throw(COOKIE);
}

SEC(".struct_ops")
struct Qdisc_ops backstop_refused = {
	.reset = (void *)refuse_reset,
	.id = "backstop",
};
