// SPDX-License-Identifier: GPL-2.0
/* Writes what is known about each program: a record, and the names of what was held. */
#include "kernel.h"

/* src/record.rs reads it, in this order. */
struct record {
	__u64 throws;
	/* struct bpf_deadline */
	__u64 limit;
	__u64 longest;
	__u64 deadlines;
	__u64 kills;
	__u64 ended_at;
	__u64 spent;
	__u64 exceeded;
	__u64 held;		/* a struct held follows for each bit */
	__u32 row;
	__u32 stopped;
	__u32 id;
	__u32 type;
	__u8 sleepable;
	__u8 known;		/* the kernel has deadlines */
	__u8 present;		/* the program has one */
	__u8 unused[5];
	char name[BPF_OBJ_NAME_LEN];
};

struct held {
	char name[64];
};

static __u64 throws(const struct bpf_prog *prog)
{
	struct bpf_prog_stats *stats;
	__u64 sum = 0;
	int cpu;

	if (!bpf_core_field_exists(struct bpf_prog_stats, throws))
		return 0;
	bpf_for(cpu, 0, MAX_CPUS) {
		stats = bpf_per_cpu_ptr(prog->stats, cpu);
		if (!stats)
			break;
		sum += stats->throws.v.a.a.counter;
	}
	return sum;
}

static struct bpf_unwind_slot *slot(struct bpf_unwind_table *table, int i)
{
	return (void *)table + bpf_core_field_offset(struct bpf_unwind_table, slots) +
	       i * bpf_core_type_size(struct bpf_unwind_slot);
}

SEC("iter/bpf_prog")
int list(struct bpf_iter__bpf_prog *ctx)
{
	struct bpf_unwind_table *table = NULL;
	struct bpf_deadline *deadline = NULL;
	struct bpf_prog *prog = ctx->prog;
	struct record record = {};
	struct held held;
	int i;

	if (!prog)
		return 0;
	record.throws = throws(prog);
	record.id = BPF_CORE_READ(prog, aux, id);
	record.type = BPF_CORE_READ(prog, type);
	record.sleepable = BPF_CORE_READ_BITFIELD_PROBED(prog, sleepable);
	BPF_CORE_READ_STR_INTO(&record.name, prog, aux, name);

	if (bpf_core_field_exists(struct bpf_unwind_table, deadline)) {
		record.known = 1;
		table = BPF_CORE_READ(prog, aux, unwind);
		deadline = BPF_CORE_READ(table, deadline);
	}
	if (deadline) {
		record.present = 1;
		record.limit = BPF_CORE_READ(deadline, limit);
		record.longest = BPF_CORE_READ(deadline, longest);
		record.deadlines = BPF_CORE_READ(deadline, deadlines);
		record.kills = BPF_CORE_READ(deadline, kills);
		record.ended_at = BPF_CORE_READ(deadline, ended_at);
		record.spent = BPF_CORE_READ(deadline, spent);
		record.exceeded = BPF_CORE_READ(deadline, exceeded);
		record.held = BPF_CORE_READ(deadline, held);
		record.row = BPF_CORE_READ(deadline, row);
		record.stopped = BPF_CORE_READ(deadline, stopped);
	}

	/* What does not fit is thrown away as a whole, and the program is run again. */
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	bpf_for(i, 0, BPF_UNWIND_MAX_SLOTS) {
		if (!(record.held >> i & 1))
			continue;
		__builtin_memset(&held, 0, sizeof(held));
		bpf_probe_read_kernel_str(held.name, sizeof(held.name),
					  BPF_CORE_READ(slot(table, i), name));
		bpf_seq_write(ctx->meta->seq, &held, sizeof(held));
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
