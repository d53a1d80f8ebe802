// SPDX-License-Identifier: GPL-2.0
/* What an operator ends, see tests/operator.rs: a run that takes hours, and what cannot be ended. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "expect.h"

char LICENSE[] SEC("license") = "GPL";

/* As many rounds as an iterator makes. */
#define ROUNDS (8 << 20)

/* Shared with user space. */
struct runs {
	__u64 brief;	/* runs are to end at once */
	__u64 begun;	/* runs */
	__u64 finished;
};

struct runs runs SEC(".data.runs");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

/* Holds a record meanwhile. Its deadline is the longest that there is. */
SEC("syscall")
__attribute__((btf_decl_tag("deadline_us:10000000")))
int endless(void *ctx)
{
	volatile __u64 rounds = 0;
	__u64 *record;
	int i, j;

	__sync_fetch_and_add(&runs.begun, 1);
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record)
		return 1;
	if (!runs.brief) {
		bpf_for(i, 0, ROUNDS) {
			bpf_for(j, 0, ROUNDS)
				rounds++;
		}
	}
	bpf_ringbuf_discard(record, 0);
	__sync_fetch_and_add(&runs.finished, 1);
	return 0;
}

SEC("syscall")
int straight(void *ctx)
{
	return 0;
}
