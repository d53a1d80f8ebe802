// SPDX-License-Identifier: GPL-2.0
/*
 * Boots the crash kernel at the moment the out-of-memory killer has chosen a
 * victim in the watched cgroup, and has not yet killed it.
 */
#include "kernel.h"

/* The condition and the reason, constants once the program is loaded. */
const volatile __u64 cgroup_id;
const volatile char why[128];

/* What user space is told if the machine is still there afterwards. */
struct failure {
	__s32 error;
	__s32 pid;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} failures SEC(".maps");

SEC("fentry/oom_kill_process")
int BPF_PROG(oom_dump, struct oom_control *oc)
{
	struct mem_cgroup *memcg = oc->memcg;
	struct task_struct *victim = oc->chosen;
	struct failure failure = {};
	__u64 args[2];

	/* Without a memory cgroup it is the whole system that has run out. */
	if (!memcg || memcg->css.cgroup->kn->id != cgroup_id)
		return 0;

	args[0] = (__u64)victim->comm;
	args[1] = victim->tgid;
	bpf_console_printk("victim %s pid %d", args, sizeof(args));

	failure.error = bpf_crash_dump((const char *)why);

	failure.pid = victim->tgid;
	bpf_probe_read_kernel_str(failure.comm, sizeof(failure.comm), victim->comm);
	bpf_ringbuf_output(&failures, &failure, sizeof(failure), 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
