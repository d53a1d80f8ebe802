/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel as the iterator sees it: the few fields it reads, which CO-RE
 * finds at their place in the running kernel.
 */
#ifndef BACKSTOP_KERNEL_H
#define BACKSTOP_KERNEL_H

#include "types.h"

/* bpf_for() */
struct bpf_iter_num {
	__u64 __opaque[1];
} __attribute__((aligned(8)));

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define __core __attribute__((preserve_access_index))

#define BPF_OBJ_NAME_LEN	16	/* include/uapi/linux/bpf.h */
#define BPF_UNWIND_MAX_SLOTS	64	/* include/linux/bpf_unwind.h */
#define MAX_CPUS			8192	/* as many as any configuration has */

/* u64_stats_t, as it is on 64 bits */
struct counter {
	struct {
		struct {
			struct {
				__s64 counter;
			} a;
		} a;
	} v;
} __core;

struct bpf_prog_stats {
	struct counter throws;
} __core;

struct bpf_deadline {
	__u64 limit;
	__u32 stopped;
	__u64 longest;
	__u64 deadlines;
	__u64 kills;
	__u64 ended_at;
	__u64 spent;
	__u64 exceeded;
	__u64 held;
	__u32 row;
} __core;

struct bpf_unwind_slot {
	const char *name;
} __core;

struct bpf_unwind_table {
	struct bpf_deadline *deadline;
	__u32 nr_slots;
	struct bpf_unwind_slot slots[];
} __core;

struct bpf_prog_aux {
	__u32 id;
	char name[BPF_OBJ_NAME_LEN];
	struct bpf_unwind_table *unwind;
} __core;

enum bpf_prog_type {
	BPF_PROG_TYPE_UNSPEC,
};

struct bpf_prog {
	__u32 sleepable : 1;
	enum bpf_prog_type type;
	struct bpf_prog_stats *stats;
	struct bpf_prog_aux *aux;
} __core;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __core;

struct bpf_iter__bpf_prog {
	struct bpf_iter_meta *meta;
	struct bpf_prog *prog;
} __core;

#endif
