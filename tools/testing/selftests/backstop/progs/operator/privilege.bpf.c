// SPDX-License-Identifier: GPL-2.0
/*
 * Who may load what stops programs. A callback of a workqueue or of another task is called with the
 * privileges of that one, so those of the caller alone do not say.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "expect.h"
#include "kfunc.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_prog_stop(__u32 id, __u32 stop) __kfunc_of(bpf_deadline);
__s64 bpf_deadline_get(__u32 setting) __kfunc_of(bpf_deadline);
int bpf_deadline_set(__u32 setting, __u64 value) __kfunc_of(bpf_deadline);
int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __weak __ksym;
int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __weak __ksym;
int bpf_wq_set_callback(struct bpf_wq *wq, int (*callback)(void *map, int *key, void *value),
			unsigned int flags) __weak __ksym;

/* In front of each test of this file. */
#define __without_boot(description)						\
	__description(description)						\
	__event(test_run) __module(bpf_deadline) __without_cap(SYS_BOOT)
#define __refused_without_boot							\
	__failure(EACCES) __msg("destructive kfunc calls require CAP_SYS_BOOT capability")

struct work {
	struct bpf_wq wq;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} works SEC(".maps");

static int stop_in_worker(void *map, int *key, void *value)
{
	bpf_prog_stop(1, 1);
	return 0;
}

SEC("syscall")
__without_boot("a worker does not stop programs for one without CAP_SYS_BOOT")
__refused_without_boot
int refuse_worker(void *ctx)
{
	__u32 key = 0;
	struct work *work = bpf_map_lookup_elem(&works, &key);

	if (!work || bpf_wq_init(&work->wq, &works, 0) ||
	    bpf_wq_set_callback(&work->wq, stop_in_worker, 0))
		return 1;
	return bpf_wq_start(&work->wq, 0);
}

SEC("syscall")
__without_boot("stopping a program needs CAP_SYS_BOOT at load") __refused_without_boot
int refuse_stop(void *ctx)
{
	return bpf_prog_stop(1, 1);
}

SEC("syscall")
__without_boot("setting a default needs CAP_SYS_BOOT at load") __refused_without_boot
int refuse_set(void *ctx)
{
	return bpf_deadline_set(0, 1000000);
}

SEC("syscall")
__without_boot("anyone who may load a program may ask for a default") __retval(0)
int get(void *ctx)
{
	return bpf_deadline_get(0) <= 0;
}
