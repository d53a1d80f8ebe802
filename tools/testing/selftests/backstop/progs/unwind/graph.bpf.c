// SPDX-License-Identifier: GPL-2.0
/*
 * Objects that a program allocates, alone and as nodes of lists and trees. Each has a counted
 * object inside, which goes with it.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"
#include "nodes.h"

char LICENSE[] SEC("license") = "GPL";

void *bpf_refcount_acquire(void *p__refcounted_kptr) __ksym;
int bpf_list_push_back(struct bpf_list_head *head, struct bpf_list_node *node) __ksym;
struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym;
struct bpf_list_node *bpf_list_pop_back(struct bpf_list_head *head) __ksym;
struct bpf_list_node *bpf_list_del(struct bpf_list_head *head,
				   struct bpf_list_node *node__nonown_allowed) __ksym;
struct bpf_list_node *bpf_list_front(struct bpf_list_head *head) __ksym;
int bpf_rbtree_add(struct bpf_rb_root *root, struct bpf_rb_node *node,
		   bool (*less)(struct bpf_rb_node *, const struct bpf_rb_node *)) __ksym;
struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root) __ksym;
struct bpf_rb_node *bpf_rbtree_remove(struct bpf_rb_root *root, struct bpf_rb_node *node) __ksym;
void *bpf_percpu_obj_new(__u64 local_type_id__k) __ksym;
void bpf_percpu_obj_drop(void *p__alloc) __ksym;

struct box {
	struct bpf_unwind_object __kptr *inner;
	__u64 data;
};

struct item {
	__u64 key;
	struct bpf_unwind_object __kptr *inner;
	struct bpf_list_node list;
	struct bpf_rb_node tree;
	struct bpf_refcount refcount;
};

struct plain {
	__u64 a, b;
};

private(A) struct bpf_spin_lock lock;
private(A) struct bpf_list_head head __contains(item, list);
private(A) struct bpf_rb_root root __contains(item, tree);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shelf {
		struct box __kptr *box;
		struct plain __percpu_kptr *percpu;
		struct item __kptr *item;
	});
} shelf SEC(".maps");

/* Fails only if the pool is empty; then the test fails by the ledger. */
static __always_inline void fill(struct bpf_unwind_object **inner, int label)
{
	struct bpf_unwind_object *object = bpf_unwind_object_acquire(label);

	if (!object)
		return;
	object = bpf_kptr_xchg(inner, object);
	if (object)
		bpf_unwind_object_release(object);
}

static __always_inline struct item *item(int label)
{
	struct item *item = new(struct item);

	if (item) {
		fill(&item->inner, label);
		item->key = label;
	}
	return item;
}

static bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct item, tree)->key < container_of(b, struct item, tree)->key;
}

SEC("syscall")
__description("an allocated object is dropped, with what it holds")
__unwinds("a")
int box(void *ctx)
{
	struct box *box;

	begin();
	box = new(struct box);
	if (!box)
		return 0;
	fill(&box->inner, 'a');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("an allocated object without special fields is dropped")
__unwinds("") __calls(1, "bpf_obj_drop")
int plain(void *ctx)
{
	begin();
	new(struct plain);
	bpf_throw(COOKIE);
	return 0;
}

SEC("xdp")
__description("an allocated object is dropped in XDP")
__unwinds("a")
int box_xdp(struct xdp_md *ctx)
{
	struct box *box;

	begin();
	box = new(struct box);
	if (!box)
		return 0;
	fill(&box->inner, 'a');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("an object that was dropped is not dropped again")
__unwinds("a")
int box_dropped(void *ctx)
{
	struct box *box;

	begin();
	box = new(struct box);
	if (!box)
		return 0;
	fill(&box->inner, 'a');
	bpf_obj_drop(box);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("an object in a map is not dropped, the one that came out is")
__unwinds("a")
int box_moved(void *ctx)
{
	struct shelf *value;
	struct box *box;
	__u32 key = 0;

	begin();
	value = bpf_map_lookup_elem(&shelf, &key);
	if (!value)
		return 0;
	box = new(struct box);
	if (!box)
		return 0;
	fill(&box->inner, 'a');
	box = bpf_kptr_xchg(&value->box, box);
	if (one)
		bpf_throw(COOKIE);
	if (box)
		bpf_obj_drop(box);
	return 0;
}

SEC("syscall")
__description("a per-CPU object is dropped")
__unwinds("") __calls(1, "bpf_percpu_obj_drop")
int percpu(void *ctx)
{
	begin();
	bpf_percpu_obj_new(bpf_core_type_id_local(struct plain));
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a per-CPU object that came out of a map is dropped")
__unwinds("") __calls(1, "bpf_percpu_obj_drop")
int percpu_moved(void *ctx)
{
	struct plain __percpu_kptr *percpu;
	struct shelf *value;
	__u32 key = 0;

	begin();
	value = bpf_map_lookup_elem(&shelf, &key);
	if (!value)
		return 0;
	percpu = bpf_percpu_obj_new(bpf_core_type_id_local(struct plain));
	if (!percpu)
		return 0;
	percpu = bpf_kptr_xchg(&value->percpu, percpu);
	if (percpu)
		bpf_percpu_obj_drop(percpu);
	bpf_kptr_xchg(&value->percpu, NULL);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("each reference to a refcounted object is dropped")
__unwinds("a")
int refcounted(void *ctx)
{
	struct item *first, *second;

	begin();
	first = item('a');
	if (!first)
		return 0;
	second = bpf_refcount_acquire(first);
	if (one)
		bpf_throw(COOKIE);
	bpf_obj_drop(second);
	bpf_obj_drop(first);
	return 0;
}

SEC("syscall")
__description("of two references to a refcounted object, the one that is left is dropped")
__unwinds("a")
int refcounted_one_dropped(void *ctx)
{
	struct item *first, *second;

	begin();
	first = item('a');
	if (!first)
		return 0;
	second = bpf_refcount_acquire(first);
	bpf_obj_drop(first);
	if (one)
		bpf_throw(COOKIE);
	bpf_obj_drop(second);
	return 0;
}

static __noinline int drop(struct item *item)
{
	bpf_obj_drop(item);
	return one;
}

#define DROPPED(name, cond)							\
	SEC("syscall")								\
	__description("an object that two instructions have dropped is not dropped again") \
	__unwinds("a")								\
	int name(void *ctx)							\
	{									\
		struct item *first, *second;					\
										\
		begin();							\
		first = item('a');						\
		if (!first)							\
			return 0;						\
		second = bpf_refcount_acquire(first);				\
		if (one > 1)							\
			bpf_throw(COOKIE + 1);					\
		if (cond) {							\
			drop(second);						\
			bpf_obj_drop(first);					\
			asm volatile ("r0 = 1;" ::: "r0");			\
		} else {							\
			drop(first);						\
			bpf_obj_drop(second);					\
			asm volatile ("r0 = 2;" ::: "r0");			\
		}								\
		bpf_throw(COOKIE);						\
		return 0;							\
	}

DROPPED(dropped_twice_first, one)
DROPPED(dropped_twice_second, !one)

SEC("syscall")
__description("a node that was pushed to a list is not dropped, one that was popped is")
__unwinds("a")
int list_pop(void *ctx)
{
	struct bpf_list_node *node;
	struct item *pushed;

	begin();
	pushed = item('a');
	if (!pushed)
		return 0;
	bpf_spin_lock(&lock);
	bpf_list_push_front(&head, &pushed->list);
	bpf_spin_unlock(&lock);
	bpf_spin_lock(&lock);
	node = bpf_list_pop_back(&head);
	bpf_spin_unlock(&lock);
	if (one)
		bpf_throw(COOKIE);
	if (node)
		bpf_obj_drop(container_of(node, struct item, list));
	return 0;
}

SEC("syscall")
__description("a node that was taken out of the midst of a list is dropped")
__unwinds("a")
int list_del(void *ctx)
{
	struct bpf_list_node *node;
	struct item *pushed;

	begin();
	pushed = item('a');
	if (!pushed)
		return 0;
	bpf_spin_lock(&lock);
	bpf_list_push_front(&head, &pushed->list);
	node = bpf_list_front(&head);
	if (node)
		node = bpf_list_del(&head, node);
	bpf_spin_unlock(&lock);
	if (one)
		bpf_throw(COOKIE);
	if (node)
		bpf_obj_drop(container_of(node, struct item, list));
	return 0;
}

SEC("syscall")
__description("a list that has no node gives nothing to drop")
__unwinds("")
int list_pop_empty(void *ctx)
{
	begin();
	bpf_spin_lock(&lock);
	bpf_list_pop_front(&head);
	bpf_spin_unlock(&lock);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a node that was popped is dropped under the lock as well")
__unwinds("a")
int list_pop_locked(void *ctx)
{
	struct item *pushed;

	begin();
	pushed = item('a');
	if (!pushed)
		return 0;
	bpf_spin_lock(&lock);
	bpf_list_push_back(&head, &pushed->list);
	bpf_list_pop_front(&head);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a node that is in a list when the program throws stays there until the map goes")
__unwinds("ab")
int list_pushed(void *ctx)
{
	struct item *pushed, *kept;

	begin();
	pushed = item('a');
	if (!pushed)
		return 0;
	kept = item('b');
	if (!kept) {
		bpf_obj_drop(pushed);
		return 0;
	}
	bpf_spin_lock(&lock);
	bpf_list_push_front(&head, &pushed->list);
	if (one)
		bpf_throw(COOKIE);
	bpf_spin_unlock(&lock);
	bpf_obj_drop(kept);
	return 0;
}

SEC("syscall")
__description("a popped node that went into another list is not dropped")
__unwinds("ab")
int list_moved(void *ctx)
{
	struct bpf_list_node *node;
	struct item *pushed;
	struct item *moved;

	begin();
	pushed = item('a');
	if (!pushed)
		return 0;
	bpf_spin_lock(&lock);
	bpf_list_push_front(&head, &pushed->list);
	node = bpf_list_pop_front(&head);
	bpf_spin_unlock(&lock);
	if (!node)
		return 0;
	moved = container_of(node, struct item, list);
	moved->key = 1;
	bpf_spin_lock(&lock);
	bpf_rbtree_add(&root, &moved->tree, less);
	bpf_spin_unlock(&lock);
	pushed = item('b');
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a node that was removed from a tree is dropped")
__unwinds("a")
int tree_remove(void *ctx)
{
	struct bpf_rb_node *node;
	struct item *added;

	begin();
	added = item('a');
	if (!added)
		return 0;
	bpf_spin_lock(&lock);
	bpf_rbtree_add(&root, &added->tree, less);
	node = bpf_rbtree_first(&root);
	if (!node) {
		bpf_spin_unlock(&lock);
		return 0;
	}
	node = bpf_rbtree_remove(&root, node);
	bpf_spin_unlock(&lock);
	if (one)
		bpf_throw(COOKIE);
	if (node)
		bpf_obj_drop(container_of(node, struct item, tree));
	return 0;
}

SEC("syscall")
__description("a node that is in a tree stays there, another reference to it is dropped")
__unwinds("a")
int tree_added(void *ctx)
{
	struct item *added, *again;

	begin();
	added = item('a');
	if (!added)
		return 0;
	again = bpf_refcount_acquire(added);
	bpf_spin_lock(&lock);
	bpf_rbtree_add(&root, &added->tree, less);
	bpf_spin_unlock(&lock);
	if (one)
		bpf_throw(COOKIE);
	bpf_obj_drop(again);
	return 0;
}

static bool less_throws(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	if (one)
		bpf_throw(COOKIE);
	return true;
}

/* The first run finds an empty tree and compares nothing. */
SEC("syscall")
__description("a throw from the comparison of a tree leaves lock and tree in order")
__unwinds("a")
int tree_less_throws(void *ctx)
{
	struct item *first;

	begin();
	first = item('a');
	if (!first)
		return 0;
	bpf_spin_lock(&lock);
	bpf_rbtree_add(&root, &first->tree, less_throws);
	bpf_spin_unlock(&lock);
	bpf_throw(COOKIE);
	return 0;
}

/* A lock inside the object: the object may be dropped only after its lock is free. */
struct locked {
	struct bpf_spin_lock lock;
	struct bpf_unwind_object __kptr *inner;
	__u64 value;
};

SEC("syscall")
__description("an object is dropped after the lock in it")
__unwinds("a")
int box_locked(void *ctx)
{
	struct locked *locked;

	begin();
	locked = new(struct locked);
	if (!locked)
		return 0;
	fill(&locked->inner, 'a');
	bpf_spin_lock(&locked->lock);
	locked->value++;
	if (one)
		bpf_throw(COOKIE);
	bpf_spin_unlock(&locked->lock);
	bpf_obj_drop(locked);
	return 0;
}

struct leaf {
	struct bpf_list_node node;
};

struct holder {
	struct bpf_spin_lock lock;
	struct bpf_list_head leaves __contains(leaf, node);
};

struct outer {
	struct holder __kptr *holder;
	__u64 data;
};

#define REFUSED_IN_LESS(name, what, type, stash)				\
	private(stash) struct type __kptr *stash;				\
	static bool name##_less(struct bpf_rb_node *a, const struct bpf_rb_node *b) \
	{									\
		struct type *taken = bpf_kptr_xchg(&stash, NULL);		\
										\
		if (taken)							\
			bpf_throw(COOKIE);					\
		return true;							\
	}									\
	SEC("tc") __description(what)						\
	__refused("bpf_throw cannot release " #type " acquired at insn {{[0-9]+}}: it has fields that cannot be freed in NMI or under a lock") \
	int name(void *ctx)							\
	{									\
		struct item *node = item('a');					\
										\
		if (!node)							\
			return 1;						\
		bpf_spin_lock(&lock);						\
		bpf_rbtree_add(&root, &node->tree, name##_less);		\
		bpf_spin_unlock(&lock);						\
		return 0;							\
	}

REFUSED_IN_LESS(refuse_list_in_less, "an object with a list is not dropped under the lock of a tree: that saves IRQ flags, too",
		holder, stashed)
REFUSED_IN_LESS(refuse_what_has_a_list_in_less, "an object that refers to one with a list is not dropped under the lock of a tree either",
		outer, outer_stashed)

/* Of one object, each reference may be put into another list. */
struct both {
	struct bpf_list_node node;
	struct bpf_list_node other;
	struct bpf_refcount refcount;
};

private(nodes) struct bpf_list_head both_list __contains(both, node);
private(nodes) struct bpf_list_head other_list __contains(both, other);

#define __drops(count)								\
	__exception_cb(caught) __event(test_run) __retval(42) __calls(count, "bpf_obj_drop")

#define PUSHED(name, what, first, second)					\
	SEC("syscall") __description(what) __drops(0)				\
	int name(void *ctx)							\
	{									\
		struct second *two;						\
		struct first *single;						\
										\
		begin();							\
		single = new(struct first);					\
		if (!single)							\
			return 0;						\
		two = new(struct second);					\
		if (!two) {							\
			bpf_obj_drop(single);					\
			return 0;						\
		}								\
		if (one > 1)							\
			bpf_throw(COOKIE + 1);					\
		bpf_spin_lock(&nodes_lock);						\
		push(&first##_list, &single->node);				\
		push(&second##_list, &two->node);				\
		bpf_spin_unlock(&nodes_lock);					\
		bpf_throw(COOKIE);						\
		return 0;							\
	}

PUSHED(pushed_low, "nodes that one instruction puts into lists are not dropped, at whatever offset", low, high)
PUSHED(pushed_high, "nodes are not dropped, the higher offset first", high, low)

SEC("syscall")
__description("a node is not dropped that shares its instruction with one that no throw finds")
__drops(0)
int pushed_unheld(void *ctx)
{
	struct high *high;
	struct low *low;

	begin();
	low = new(struct low);
	if (!low)
		return 0;
	if (one > 1)
		bpf_throw(COOKIE + 1);
	bpf_spin_lock(&nodes_lock);
	push(&low_list, &low->node);
	bpf_spin_unlock(&nodes_lock);
	high = new(struct high);
	if (!high)
		return 0;
	bpf_spin_lock(&nodes_lock);
	push(&high_list, &high->node);
	bpf_spin_unlock(&nodes_lock);
	bpf_throw(COOKIE);
	return 0;
}

#define BY_EITHER_NODE(name, what, drops, last)					\
	SEC("syscall") __description(what) __drops(drops)			\
	int name(void *ctx)							\
	{									\
		struct both *both, *again;					\
										\
		begin();							\
		both = new(struct both);					\
		if (!both)							\
			return 0;						\
		again = bpf_refcount_acquire(both);				\
		if (one > 1)							\
			bpf_throw(COOKIE + 1);					\
		bpf_spin_lock(&nodes_lock);						\
		push(&other_list, &both->other);				\
		if (last)							\
			push(&both_list, &again->node);				\
		bpf_spin_unlock(&nodes_lock);					\
		bpf_throw(COOKIE);						\
		return 0;							\
	}

BY_EITHER_NODE(pushed_by_both, "an object is not dropped that is in lists by both its nodes", 0, one)
BY_EITHER_NODE(pushed_by_one, "of an object in a list by one node, the other reference is dropped", 1, !one)

static __noinline void *take(void *field)
{
	return bpf_kptr_xchg(field, NULL);
}

SEC("syscall")
__description("what is a per-CPU object on one path may share its address with another on the next")
__refused("bpf_throw cannot release plain acquired at insn {{[0-9]+}}: the instruction acquires different types on different paths")
int refuse_percpu_or_not(void *ctx)
{
	struct item *first, *second;
	struct shelf *value;
	void *percpu;
	__u32 key = 0;

	value = bpf_map_lookup_elem(&shelf, &key);
	if (!value)
		return 0;
	percpu = take(&value->percpu);
	if (percpu)
		bpf_percpu_obj_drop(percpu);
	first = take(&value->item);
	if (!first)
		return 0;
	second = bpf_refcount_acquire(first);
	if (one) {
		drop(first);
		bpf_throw(COOKIE);
	}
	drop(second);
	bpf_obj_drop(first);
	return 0;
}

/* Never called: a type is in BTF only where it is used. */
void types(void)
{
	new(struct leaf);
	new(struct outer);
}
