// SPDX-License-Identifier: GPL-2.0
/* Watches how runs are ended, for src/watch.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

/* What tracepoint bpf_prog_terminate says. */
struct seen {
	__u64 runs;
	__u64 deadline;	/* of the last one, ns */
	__u64 spent;	/* by it */
	__u64 late;	/* by how much the latest one was */
	__u64 cpus;	/* a bit each */
	__u64 stopped;	/* ended without having exceeded one */
	__u32 prog_id;
} seen SEC(".data.seen");

SEC("tp_btf/bpf_prog_terminate")
int BPF_PROG(watch, const struct bpf_prog *prog, __u64 deadline, __u64 spent, unsigned long ip,
	     __u32 frames, __u32 released, bool resumed)
{
	/* Of a run that ends part by part, the first is told. */
	if (resumed)
		return 0;
	/* What the last one of the row has stopped. */
	if (!deadline) {
		__sync_fetch_and_add(&seen.stopped, 1);
		return 0;
	}
	__sync_fetch_and_add(&seen.runs, 1);
	__sync_fetch_and_or(&seen.cpus, 1ULL << bpf_get_smp_processor_id());
	seen.deadline = deadline;
	seen.spent = spent;
	seen.prog_id = prog->aux->id;
	if (spent - deadline > seen.late)
		seen.late = spent - deadline;
	return 0;
}
