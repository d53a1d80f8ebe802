// SPDX-License-Identifier: GPL-2.0
/* Counts the calls of a function by one process, for counter.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* Shared with user space. */
struct counter {
	__u64 count;
	__u64 tgid;
};

struct counter counter SEC(".data.counter");

SEC("fentry")
int count(void *ctx)
{
	if (bpf_get_current_pid_tgid() >> 32 == counter.tgid)
		__sync_fetch_and_add(&counter.count, 1);
	return 0;
}
