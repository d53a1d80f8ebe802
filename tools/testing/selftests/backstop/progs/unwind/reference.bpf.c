// SPDX-License-Identifier: GPL-2.0
/* References to objects of the kernel, one test for each function that hands one out. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "trigger.h"
#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
struct task_struct *bpf_task_from_vpid(__s32 vpid) __ksym;
void bpf_task_release(struct task_struct *p) __ksym;
struct cgroup *bpf_cgroup_acquire(struct cgroup *cgrp) __ksym;
struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgrp, int level) __ksym;
struct cgroup *bpf_cgroup_from_id(__u64 cgid) __ksym;
void bpf_cgroup_release(struct cgroup *cgrp) __ksym;
struct bpf_cpumask *bpf_cpumask_create(void) __ksym;
struct bpf_cpumask *bpf_cpumask_acquire(struct bpf_cpumask *cpumask) __ksym;
void bpf_cpumask_release(struct bpf_cpumask *cpumask) __ksym;
struct bpf_crypto_ctx *bpf_crypto_ctx_create(const struct bpf_crypto_params *params,
					     __u32 params__sz, int *err) __ksym;
void bpf_crypto_ctx_release(struct bpf_crypto_ctx *ctx) __ksym;
struct file *bpf_get_task_exe_file(struct task_struct *task) __ksym;
void bpf_put_file(struct file *file) __ksym;
int bpf_dynptr_from_file(struct file *file, __u32 flags, struct bpf_dynptr *ptr__uninit) __ksym;
int bpf_dynptr_file_discard(struct bpf_dynptr *dynptr) __ksym;
struct mem_cgroup *bpf_get_root_mem_cgroup(void) __ksym;
void bpf_put_mem_cgroup(struct mem_cgroup *memcg) __ksym;
struct bpf_key *bpf_lookup_user_key(__s32 serial, __u64 flags) __ksym;
struct bpf_key *bpf_lookup_system_key(__u64 id) __ksym;
void bpf_key_put(struct bpf_key *bkey) __ksym;
struct bpf_ksock *bpf_ksock_create(const struct bpf_ksock_create_opts *opts, __u32 opts__sz,
				   int *err__uninit) __ksym;
void bpf_ksock_release(struct bpf_ksock *ks) __ksym;

enum wrong {
	NOTHING_ACQUIRED = -301,
	TASK_USERS = -302,
	MASK_USERS = -303,
};

#define BPF_F_CURRENT_NETNS	(-1L)

/* What the program got, as a number: the test shows nothing if that is 0. */
__u64 got;
int users_before;

static __always_inline void begin_reference(void)
{
	begin();
	got = 0;
}

__noinline int caught_reference(__u64 cookie)
{
	return got ? settle(cookie) : NOTHING_ACQUIRED;
}

#define __puts(functions)							\
	__exception_cb(caught_reference) __event(test_run) __retval(42)	\
	__calls(1, functions)

static __always_inline int task_users(void)
{
	return bpf_get_current_task_btf()->rcu_users.refs.counter;
}

__noinline int caught_task(__u64 cookie)
{
	if (!got)
		return NOTHING_ACQUIRED;
	return task_users() == users_before ? settle(cookie) : TASK_USERS;
}

#define __puts_task								\
	__exception_cb(caught_task) __event(test_run) __retval(42)		\
	__calls(1, "bpf_task_release|bpf_task_release_dtor")

#define TASK(name, description, acquire)					\
	SEC("syscall")								\
	__description(description) __puts_task					\
	int name(void *ctx)							\
	{									\
		struct task_struct *task = bpf_get_current_task_btf();		\
										\
		begin_reference();						\
		users_before = task_users();					\
		got = (__u64)acquire;						\
		bpf_throw(COOKIE);						\
		return 0;							\
	}

TASK(task, "a reference to a task is released", bpf_task_acquire(task))
TASK(task_pid, "a reference to a task found by pid is released", bpf_task_from_pid(task->pid))
TASK(task_vpid, "a reference to a task found by virtual pid is released",
		bpf_task_from_vpid(task->pid))

#define CGROUP_FUNCTIONS "bpf_cgroup_release|bpf_cgroup_release_dtor"

SEC("syscall")
__description("a reference to a control group found by its id is released")
__puts(CGROUP_FUNCTIONS)
int cgroup_id(void *ctx)
{
	begin_reference();
	got = (__u64)bpf_cgroup_from_id(1);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("references to a control group and to its ancestor are released")
__exception_cb(caught_reference) __event(test_run) __retval(42) __calls(3, CGROUP_FUNCTIONS)
int cgroup_ancestor(void *ctx)
{
	struct cgroup *cgroup, *ancestor, *again;

	begin_reference();
	cgroup = bpf_cgroup_from_id(1);
	if (!cgroup)
		return 0;
	ancestor = bpf_cgroup_ancestor(cgroup, 0);
	again = bpf_cgroup_acquire(cgroup);
	got = ancestor && again;
	if (one)
		bpf_throw(COOKIE);
	if (ancestor)
		bpf_cgroup_release(ancestor);
	if (again)
		bpf_cgroup_release(again);
	bpf_cgroup_release(cgroup);
	return 0;
}

__u64 cgroup_to_hold SEC(".data.cgroup");

/* For tests/unwind.rs, which removes the control group afterwards. */
SEC("syscall") __exception_cb(caught_reference)
int cgroup_held(void *ctx)
{
	begin_reference();
	got = (__u64)bpf_cgroup_from_id(cgroup_to_hold);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a set of CPUs is released")
__puts("bpf_cpumask_release")
int cpumask(void *ctx)
{
	begin_reference();
	got = (__u64)bpf_cpumask_create();
	bpf_throw(COOKIE);
	return 0;
}

__noinline int caught_mask(__u64 cookie)
{
	int users = 0;

	if (!got)
		return NOTHING_ACQUIRED;
	/* The map has one. */
	if (bpf_probe_read_kernel(&users, sizeof(users),
				  &((struct bpf_cpumask *)got)->usage) || users != 1)
		return MASK_USERS;
	return settle(cookie);
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct masks {
		struct bpf_cpumask __kptr *mask;
	});
} masks SEC(".maps");

SEC("syscall")
__description("one more reference to a set of CPUs is released")
__exception_cb(caught_mask) __event(test_run) __retval(42)
int cpumask_again(void *ctx)
{
	struct bpf_cpumask *mask, *again, *old;
	struct masks *value;
	__u32 key = 0;

	begin_reference();
	value = bpf_map_lookup_elem(&masks, &key);
	if (!value)
		return 0;
	mask = bpf_cpumask_create();
	if (!mask)
		return 0;
	got = (__u64)mask;
	again = bpf_cpumask_acquire(mask);
	old = bpf_kptr_xchg(&value->mask, mask);
	if (old)
		bpf_cpumask_release(old);
	if (one)
		bpf_throw(COOKIE);
	bpf_cpumask_release(again);
	return 0;
}

struct bpf_crypto_params crypto_params = {
	.type = "skcipher",
	.algo = "ecb(aes)",
	.key = "0123456789abcde",
	.key_len = 16,
};

SEC("syscall")
__description("a cipher is released")
__puts("bpf_crypto_ctx_release")
int crypto(void *ctx)
{
	int err = 0;

	begin_reference();
	got = (__u64)bpf_crypto_ctx_create(&crypto_params, sizeof(crypto_params), &err);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a reference to the root memory control group is released")
__puts("bpf_put_mem_cgroup")
int mem_cgroup(void *ctx)
{
	begin_reference();
	got = (__u64)bpf_get_root_mem_cgroup();
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a key of the user is released")
__puts("bpf_key_put")
int key_user(void *ctx)
{
	begin_reference();
	got = (__u64)bpf_lookup_user_key(-4 /* user keyring */, 1 /* create it */);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a key of the system is released")
__puts("bpf_key_put")
int key_system(void *ctx)
{
	begin_reference();
	got = (__u64)bpf_lookup_system_key(0);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("a socket of the kernel is released")
__puts("bpf_ksock_release")
int ksock(void *ctx)
{
	struct bpf_ksock_create_opts opts = { .family = 2 /* AF_INET */, .type = 2 /* SOCK_DGRAM */ };
	int err = 0;

	begin_reference();
	got = (__u64)bpf_ksock_create(&opts, sizeof(opts), &err);
	bpf_throw(COOKIE);
	return 0;
}

/* Some are for security programs only. */
__noinline int caught_lsm(__u64 cookie)
{
	record(got ? settle(cookie) : NOTHING_ACQUIRED);
	return 0;
}

#define __lsm_puts(functions)							\
	__exception_cb(caught_lsm) __event(syscall) __retval(42) __calls(1, functions)

SEC("lsm/task_getpgid")
__description("a reference to a file is released")
__lsm_puts("bpf_put_file")
int file(void *ctx)
{
	if (!take(TASK))
		return 0;
	begin_reference();
	got = (__u64)bpf_get_task_exe_file(bpf_get_current_task_btf());
	bpf_throw(COOKIE);
	return 0;
}

SEC("lsm/task_getpgid")
__description("a dynptr of a file is released, and the file after it")
__lsm_puts("bpf_put_file") __calls(1, "bpf_dynptr_file_discard")
int file_dynptr(void *ctx)
{
	struct bpf_dynptr ptr;
	struct file *file;

	if (!take(TASK))
		return 0;
	begin_reference();
	file = bpf_get_task_exe_file(bpf_get_current_task_btf());
	if (!file)
		return 0;
	got = !bpf_dynptr_from_file(file, 0, &ptr);
	if (one)
		bpf_throw(COOKIE);
	bpf_dynptr_file_discard(&ptr);
	bpf_put_file(file);
	return 0;
}

SEC("lsm/task_getpgid")
__description("a dynptr of a file that is discarded before the throw is not discarded again")
__lsm_puts("bpf_put_file") __calls(1, "bpf_dynptr_file_discard")
int file_dynptr_discarded(void *ctx)
{
	struct bpf_dynptr ptr;
	struct file *file;

	if (!take(TASK))
		return 0;
	begin_reference();
	file = bpf_get_task_exe_file(bpf_get_current_task_btf());
	if (!file)
		return 0;
	got = !bpf_dynptr_from_file(file, 0, &ptr);
	bpf_dynptr_file_discard(&ptr);
	bpf_throw(COOKIE);
	return 0;
}

/* For tests/unwind.rs, which has a connection on the loopback device. */
struct bpf_sock_tuple tuple SEC(".data.tuple");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

static __always_inline struct bpf_sock *look_up(struct __sk_buff *skb)
{
	return bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

SEC("tc") __exception_cb(caught_reference)
int sk_lookup_tcp(struct __sk_buff *skb)
{
	begin_reference();
	got = !!look_up(skb);
	bpf_throw(COOKIE);
	return 0;
}

SEC("tc") __exception_cb(caught_reference)
int sk_lookup_tcp_null(struct __sk_buff *skb)
{
	struct bpf_sock_tuple nobody = {};

	begin_reference();
	got = 1 + !bpf_sk_lookup_tcp(skb, &nobody, sizeof(nobody.ipv4), BPF_F_CURRENT_NETNS, 0);
	bpf_throw(COOKIE);
	return 0;
}

SEC("tc") __exception_cb(caught_reference)
int skc_lookup_tcp(struct __sk_buff *skb)
{
	begin_reference();
	got = !!bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	bpf_throw(COOKIE);
	return 0;
}

SEC("xdp") __exception_cb(caught_reference)
int sk_lookup_xdp(struct xdp_md *xdp)
{
	begin_reference();
	got = !!bpf_sk_lookup_tcp(xdp, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	bpf_throw(COOKIE);
	return 0;
}

SEC("tc") __exception_cb(caught_reference)
int sk_cast(struct __sk_buff *skb)
{
	struct tcp_sock *tcp;
	struct bpf_sock *sk;

	begin_reference();
	sk = look_up(skb);
	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	got = !!tcp;
	bpf_throw(COOKIE);
	return 0;
}

SEC("tc") __exception_cb(caught_reference)
int sk_map(struct __sk_buff *skb)
{
	__u32 key = 0;

	begin_reference();
	got = !!bpf_map_lookup_elem(&sockets, &key);
	bpf_throw(COOKIE);
	return 0;
}

/* How many references there are to the socket, this one included. */
SEC("tc")
int sk_users(struct __sk_buff *skb)
{
	struct bpf_sock *sk = look_up(skb);
	struct tcp_sock *tcp;
	int users = 0;

	if (!sk)
		return -1;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp)
		users = tcp->inet_conn.icsk_inet.sk.__sk_common.skc_refcnt.refs.counter;
	bpf_sk_release(sk);
	return users;
}
