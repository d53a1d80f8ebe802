// SPDX-License-Identifier: GPL-2.0
/* What user space may ask of the module bpf_deadline: one call, one answer. */
#include "types.h"

#include <bpf/bpf_helpers.h>

/* kernel/bpf/deadline.rs */
int bpf_prog_stop(__u32 id, __u32 stop) __ksym;
__s64 bpf_deadline_get(__u32 setting) __ksym;
int bpf_deadline_set(__u32 setting, __u64 value) __ksym;

struct stop {
	__u32 id;
	__u32 stop;
};

struct setting {
	__u64 value;
	__u32 setting;
	__u32 unused;
};

SEC("syscall")
int stop(struct stop *ctx)
{
	return bpf_prog_stop(ctx->id, ctx->stop);
}

/* The bounds of all settings fit. */
SEC("syscall")
int get(struct setting *ctx)
{
	return bpf_deadline_get(ctx->setting);
}

SEC("syscall")
int set(struct setting *ctx)
{
	return bpf_deadline_set(ctx->setting, ctx->value);
}

char LICENSE[] SEC("license") = "GPL";
