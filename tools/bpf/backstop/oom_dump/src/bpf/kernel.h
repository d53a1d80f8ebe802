/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel as the program sees it: the few fields it reads, which CO-RE finds
 * at their place in the running kernel, and the kfuncs of bpf_destructive.
 */
#ifndef OOM_DUMP_KERNEL_H
#define OOM_DUMP_KERNEL_H

typedef unsigned char __u8;
typedef signed short __s16;
typedef unsigned short __u16;
typedef signed int __s32;
typedef unsigned int __u32;
typedef signed long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* include/uapi/linux/bpf.h */
#define BPF_MAP_TYPE_RINGBUF 27

#define __core __attribute__((preserve_access_index))

struct kernfs_node {
	__u64 id;
} __core;

struct cgroup {
	struct kernfs_node *kn;
} __core;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
} __core;

struct mem_cgroup {
	struct cgroup_subsys_state css;
} __core;

struct task_struct {
	int tgid;
	char comm[16];
} __core;

struct oom_control {
	struct mem_cgroup *memcg;
	struct task_struct *chosen;
} __core;

/* kernel/bpf/destructive.rs */
int bpf_console_printk(const char *fmt__str, const void *args, __u32 len__sz) __ksym;
int bpf_crash_dump(const char *why__str) __ksym;

#endif
