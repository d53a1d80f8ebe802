// SPDX-License-Identifier: GPL-2.0
/* Runs that take too long while they hold something, each kind by itself. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"
#include "nodes.h"

char LICENSE[] SEC("license") = "GPL";

struct bpf_spin_lock lock private(lock);
struct bpf_res_spin_lock res_lock private(res_lock);
struct bpf_res_spin_lock inner_lock private(inner_lock);

static __always_inline void stay(void)
{
	__u64 i = 0;

	COUNT_ON(i);
	sum += i;
}

SEC("tc")
__description("a run that holds a bpf_spin_lock is ended, and the lock released")
__ends_late("")
int spin_lock(void *ctx)
{
	begin();
	bpf_spin_lock(&lock);
	stay();
	bpf_spin_unlock(&lock);
	return 2;
}

SEC("tc")
__description("a run that holds a bpf_res_spin_lock is ended, and the lock released")
__ends_late("")
int res_spin_lock(void *ctx)
{
	begin();
	if (bpf_res_spin_lock(&res_lock))
		return 1;
	stay();
	bpf_res_spin_unlock(&res_lock);
	return 2;
}

SEC("tc")
__description("a run that holds two of them, interrupts off, is ended")
__ends_late("")
int res_spin_lock_irqsave(void *ctx)
{
	unsigned long flags;

	begin();
	if (bpf_res_spin_lock(&res_lock))
		return 1;
	if (bpf_res_spin_lock_irqsave(&inner_lock, &flags)) {
		bpf_res_spin_unlock(&res_lock);
		return 1;
	}
	stay();
	bpf_res_spin_unlock_irqrestore(&inner_lock, &flags);
	bpf_res_spin_unlock(&res_lock);
	return 2;
}

SEC("tc")
__description("a run in an RCU read section is ended, and the section left")
__ends_late("")
int rcu(void *ctx)
{
	int i;

	begin();
	bpf_rcu_read_lock();
	bpf_for(i, 0, ROUNDS)
		stay();
	bpf_rcu_read_unlock();
	return 2;
}

SEC("tc")
__description("a run with preemption off is ended, and preemption is on again")
__ends_late("")
int preempt(void *ctx)
{
	int i;

	begin();
	bpf_preempt_disable();
	bpf_for(i, 0, ROUNDS)
		stay();
	bpf_preempt_enable();
	return 2;
}

SEC("tc")
__description("a run with interrupts off is ended, and interrupts are on again")
__ends_late("")
int irq(void *ctx)
{
	unsigned long flags;
	int i;

	begin();
	bpf_local_irq_save(&flags);
	bpf_for(i, 0, ROUNDS)
		stay();
	bpf_local_irq_restore(&flags);
	return 2;
}

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

SEC("tc")
__description("a run that holds a record of a ring buffer is ended, and the record discarded")
__ends_late("")
int ringbuf(void *ctx)
{
	__u64 *record;
	int i;

	begin();
	record = bpf_ringbuf_reserve(&ring, 64, 0);
	if (!record)
		return 1;
	bpf_for(i, 0, ROUNDS)
		stay();
	bpf_ringbuf_submit(record, 0);
	return 2;
}

struct box {
	__u64 value;
};

SEC("tc")
__description("a run that holds an object of its own is ended, and the object dropped")
__ends_late("") __calls(1, "bpf_obj_drop")
int obj(void *ctx)
{
	struct box *box;
	int i;

	begin();
	box = new(struct box);
	if (!box)
		return 1;
	bpf_for(i, 0, ROUNDS)
		stay();
	bpf_obj_drop(box);
	return 2;
}

SEC("tc")
__description("a run that has put nodes into lists, at different offsets, is ended, and none dropped")
__ends_late("") __calls(0, "bpf_obj_drop")
int pushed(void *ctx)
{
	struct high *high;
	struct low *low;

	begin();
	low = new(struct low);
	if (!low)
		return 1;
	high = new(struct high);
	if (!high) {
		bpf_obj_drop(low);
		return 1;
	}
	bpf_spin_lock(&nodes_lock);
	push(&low_list, &low->node);
	push(&high_list, &high->node);
	bpf_spin_unlock(&nodes_lock);
	stay();
	return 2;
}
