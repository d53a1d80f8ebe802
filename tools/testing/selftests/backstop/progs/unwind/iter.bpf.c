// SPDX-License-Identifier: GPL-2.0
/* Open-coded iterators that are not finished when the program throws. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_iter_bits_new(struct bpf_iter_bits *it, const __u64 *unsafe_ptr__ign, __u32 nr_words) __ksym;
int *bpf_iter_bits_next(struct bpf_iter_bits *it) __ksym;
void bpf_iter_bits_destroy(struct bpf_iter_bits *it) __ksym;
int bpf_iter_task_vma_new(struct bpf_iter_task_vma *it, struct task_struct *task, __u64 addr) __ksym;
struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma *it) __ksym;
void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma *it) __ksym;
int bpf_iter_css_task_new(struct bpf_iter_css_task *it, struct cgroup_subsys_state *css,
			  unsigned int flags) __ksym;
struct task_struct *bpf_iter_css_task_next(struct bpf_iter_css_task *it) __ksym;
void bpf_iter_css_task_destroy(struct bpf_iter_css_task *it) __ksym;
int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task__nullable,
		      unsigned int flags) __ksym;
struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym;
void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym;
int bpf_iter_css_new(struct bpf_iter_css *it, struct cgroup_subsys_state *start,
		     unsigned int flags) __ksym;
struct cgroup_subsys_state *bpf_iter_css_next(struct bpf_iter_css *it) __ksym;
void bpf_iter_css_destroy(struct bpf_iter_css *it) __ksym;
int bpf_iter_kmem_cache_new(struct bpf_iter_kmem_cache *it) __ksym;
struct kmem_cache *bpf_iter_kmem_cache_next(struct bpf_iter_kmem_cache *it) __ksym;
void bpf_iter_kmem_cache_destroy(struct bpf_iter_kmem_cache *it) __ksym;
struct cgroup *bpf_cgroup_from_id(__u64 cgid) __ksym;
void bpf_cgroup_release(struct cgroup *cgrp) __ksym;

SEC("syscall")
__description("an iterator of a module is destroyed amid its rounds")
__unwinds("i")
int iter(void *ctx)
{
	int *value;

	begin();
	bpf_for_each(unwind, value, 'i', 5) {
		if (*value == 2 + one)
			bpf_throw(COOKIE);
	}
	return 0;
}

SEC("syscall")
__description("an iterator is destroyed before its first round")
__unwinds("i")
int iter_new(void *ctx)
{
	struct bpf_iter_unwind it;

	begin();
	bpf_iter_unwind_new(&it, 'i', 5);
	if (one)
		bpf_throw(COOKIE);
	bpf_iter_unwind_destroy(&it);
	return 0;
}

SEC("syscall")
__description("an iterator whose rounds are over is destroyed")
__unwinds("i")
int iter_over(void *ctx)
{
	struct bpf_iter_unwind it;

	begin();
	bpf_iter_unwind_new(&it, 'i', 2);
	while (bpf_iter_unwind_next(&it))
		;
	if (one)
		bpf_throw(COOKIE);
	bpf_iter_unwind_destroy(&it);
	return 0;
}

SEC("syscall")
__description("an iterator whose constructor failed is destroyed")
__unwinds("")
int iter_failed(void *ctx)
{
	struct bpf_iter_unwind it;

	begin();
	bpf_iter_unwind_new(&it, 0, 5);
	if (one)
		bpf_throw(COOKIE);
	bpf_iter_unwind_destroy(&it);
	return 0;
}

SEC("syscall")
__description("an iterator that was destroyed is not destroyed again")
__unwinds("i")
int iter_destroyed(void *ctx)
{
	int *value;

	begin();
	bpf_for_each(unwind, value, 'i', 2)
		;
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("nested iterators are destroyed")
__unwinds("ijk")
int iter_nested(void *ctx)
{
	int *i, *j, *k;

	begin();
	bpf_for_each(unwind, i, 'i', 3) {
		bpf_for_each(unwind, j, 'j', 3) {
			bpf_for_each(unwind, k, 'k', 3) {
				if (one)
					bpf_throw(COOKIE);
			}
		}
	}
	return 0;
}

SEC("syscall")
__description("an iterator that is made anew in each round of another is destroyed once a round")
__unwinds("ijjj")
int iter_again(void *ctx)
{
	int *i, *j;

	begin();
	bpf_for_each(unwind, i, 'i', 5) {
		bpf_for_each(unwind, j, 'j', 2) {
			if (*i == 2 + one)
				bpf_throw(COOKIE);
		}
	}
	return 0;
}

static __noinline int iterate(int n)
{
	int *value, sum = 0;

	bpf_for_each(unwind, value, '0' + n, 5) {
		if (*value == 2 + one)
			bpf_throw(COOKIE);
		sum += *value;
	}
	return sum;
}

SEC("syscall")
__description("iterators of a function and of its caller are destroyed")
__unwinds("i1")
int iter_callee(void *ctx)
{
	int *value, sum = 0;

	begin();
	bpf_for_each(unwind, value, 'i', 5)
		sum += iterate(1);
	return sum;
}

SEC("syscall")
__description("references acquired in each round are released with the iterator, which comes first")
__unwinds_in_order("aaia")
int iter_reference(void *ctx)
{
	struct bpf_unwind_object *object;
	int *value;

	begin();
	bpf_for_each(unwind, value, 'i', 5) {
		object = bpf_unwind_object_acquire('a');
		if (!object)
			continue;
		if (*value == 2 + one)
			bpf_throw(COOKIE);
		bpf_unwind_object_release(object);
	}
	return 0;
}

SEC("syscall")
__description("counting leaves nothing to destroy")
__unwinds("")
int iter_num(void *ctx)
{
	int i;

	begin();
	bpf_for(i, 0, 10) {
		if (i == 4 + one)
			bpf_throw(COOKIE);
	}
	return 0;
}

/* More than fit into the iterator itself: it allocates. */
__u64 words[64];

SEC("syscall")
__description("an iterator over bits is destroyed")
__unwinds("") __calls(1, "bpf_iter_bits_destroy")
int iter_bits(void *ctx)
{
	int *bit;

	begin();
	words[0] = 7;
	bpf_for_each(bits, bit, words, 64) {
		if (*bit == one)
			bpf_throw(COOKIE);
	}
	return 0;
}

SEC("syscall")
__description("an iterator over the memory of a task is destroyed")
__unwinds("") __calls(1, "bpf_iter_task_vma_destroy")
int iter_task_vma(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct vm_area_struct *vma;
	int count = 0;

	begin();
	bpf_for_each(task_vma, vma, task, 0) {
		if (++count == 2 + one)
			bpf_throw(COOKIE);
	}
	return count;
}

SEC("syscall")
__description("an iterator over all tasks is left together with its read section")
__unwinds("")
int iter_task(void *ctx)
{
	struct task_struct *task;

	begin();
	bpf_rcu_read_lock();
	bpf_for_each(task, task, NULL, 0) {
		if (task->pid == one)
			bpf_throw(COOKIE);
	}
	bpf_rcu_read_unlock();
	return 0;
}

SEC("syscall")
__description("an iterator over control groups is left together with its read section")
__unwinds("") __calls(1, "bpf_cgroup_release|bpf_cgroup_release_dtor")
int iter_css(void *ctx)
{
	struct cgroup_subsys_state *css;
	struct cgroup *root;

	begin();
	root = bpf_cgroup_from_id(1);
	if (!root)
		return 0;
	bpf_rcu_read_lock();
	bpf_for_each(css, css, &root->self, BPF_CGROUP_ITER_DESCENDANTS_PRE) {
		if (one)
			bpf_throw(COOKIE);
	}
	bpf_rcu_read_unlock();
	bpf_cgroup_release(root);
	return 0;
}

SEC("syscall")
__description("an iterator over the caches of the slab allocator is destroyed")
__unwinds("") __calls(1, "bpf_iter_kmem_cache_destroy")
int iter_kmem_cache(void *ctx)
{
	struct kmem_cache *cache;
	int count = 0;

	begin();
	bpf_for_each(kmem_cache, cache) {
		if (++count == 2 + one)
			bpf_throw(COOKIE);
	}
	return count;
}

SEC("syscall")
__description("an iterator over the tasks of a control group is destroyed")
__unwinds("") __calls(1, "bpf_iter_css_task_destroy")
__calls(1, "bpf_cgroup_release|bpf_cgroup_release_dtor")
int iter_css_task(void *ctx)
{
	struct task_struct *task;
	struct cgroup *root;

	begin();
	root = bpf_cgroup_from_id(1);
	if (!root)
		return 0;
	bpf_for_each(css_task, task, &root->self, 0) {
		if (one)
			bpf_throw(COOKIE);
	}
	bpf_cgroup_release(root);
	return 0;
}

SEC("syscall")
__description("iterators of different kinds within each other are destroyed")
__unwinds("i") __calls(1, "bpf_iter_bits_destroy") __calls(1, "bpf_iter_task_vma_destroy")
int iter_kinds(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct vm_area_struct *vma;
	int *value, *bit;

	begin();
	words[0] = 7;
	bpf_for_each(unwind, value, 'i', 3) {
		bpf_for_each(task_vma, vma, task, 0) {
			bpf_for_each(bits, bit, words, 64) {
				if (*bit == one)
					bpf_throw(COOKIE);
			}
		}
	}
	return 0;
}
