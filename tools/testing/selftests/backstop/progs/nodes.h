/* SPDX-License-Identifier: GPL-2.0 */
/* Nodes at different offsets, which one instruction puts into lists. Include after unwind.h. */
#ifndef _BACKSTOP_NODES_H
#define _BACKSTOP_NODES_H

int bpf_list_push_front(struct bpf_list_head *head, struct bpf_list_node *node) __ksym;

struct low {
	struct bpf_list_node node;
	__u64 data;
};

struct high {
	__u64 data[8];
	struct bpf_list_node node;
};

private(nodes) struct bpf_spin_lock nodes_lock;
private(nodes) struct bpf_list_head low_list __contains(low, node);
private(nodes) struct bpf_list_head high_list __contains(high, node);

static __noinline int push(struct bpf_list_head *list, struct bpf_list_node *node)
{
	return bpf_list_push_front(list, node);
}

#endif /* _BACKSTOP_NODES_H */
