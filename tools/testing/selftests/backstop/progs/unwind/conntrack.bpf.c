// SPDX-License-Identifier: GPL-2.0
/* Connections that a program looks up, makes and has tracked. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

struct nf_conn___init *bpf_skb_ct_alloc(struct __sk_buff *skb_ctx, struct bpf_sock_tuple *bpf_tuple,
					__u32 tuple__sz, struct bpf_ct_opts *opts,
					__u32 opts__sz) __ksym;
struct nf_conn___init *bpf_xdp_ct_alloc(struct xdp_md *xdp_ctx, struct bpf_sock_tuple *bpf_tuple,
					__u32 tuple__sz, struct bpf_ct_opts *opts,
					__u32 opts__sz) __ksym;
struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb_ctx, struct bpf_sock_tuple *bpf_tuple,
				  __u32 tuple__sz, struct bpf_ct_opts *opts,
				  __u32 opts__sz) __ksym;
struct nf_conn *bpf_ct_insert_entry(struct nf_conn___init *nfct_i) __ksym;
void bpf_ct_set_timeout(struct nf_conn___init *nfct, __u32 timeout) __ksym;
void bpf_ct_discard(struct nf_conn___init *nfct_i) __ksym;
void bpf_ct_release(struct nf_conn *nfct) __ksym;

enum wrong {
	NOTHING_ACQUIRED = -301,
};

#define IPPROTO_UDP	17
#define MINUTE_MS	60000

__u64 got;
struct bpf_sock_tuple tuple;
struct bpf_ct_opts options;

/* Every run has a connection of its own: one that is inserted stays, and each test has its port. */
static __always_inline void begin_connection(__u16 port)
{
	begin();
	got = 0;
	tuple.ipv4.saddr = bpf_htonl(0x0a000001);
	tuple.ipv4.daddr = bpf_htonl(0x0a000002);
	tuple.ipv4.sport = bpf_htons(bpf_ntohs(tuple.ipv4.sport) + 1);
	tuple.ipv4.dport = bpf_htons(port);
	options.netns_id = -1;
	options.l4proto = IPPROTO_UDP;
}

#define TUPLE &tuple, sizeof(tuple.ipv4), &options, sizeof(options)

__noinline int caught_connection(__u64 cookie)
{
	return got ? settle(cookie) : NOTHING_ACQUIRED;
}

#define __puts(functions)							\
	__exception_cb(caught_connection) __event(test_run) __retval(42)	\
	__calls(1, functions)

#define MADE(name, section, context, description, alloc, port)			\
	SEC(section)								\
	__description(description) __puts("bpf_ct_discard")			\
	int name(context)							\
	{									\
		begin_connection(port);						\
		got = (__u64)alloc(ctx, TUPLE);					\
		bpf_throw(COOKIE);						\
		return 0;							\
	}

MADE(alloc_skb, "tc", struct __sk_buff *ctx, "a connection that was made and not inserted is freed",
	bpf_skb_ct_alloc, 1)
MADE(alloc_xdp, "xdp", struct xdp_md *ctx, "the same in a program of a driver", bpf_xdp_ct_alloc, 2)

SEC("tc")
__description("a connection that was inserted is put, and freed by nobody")
__puts("bpf_ct_release|bpf_ct_discard")
int insert(struct __sk_buff *skb)
{
	struct nf_conn___init *made;

	begin_connection(3);
	made = bpf_skb_ct_alloc(skb, TUPLE);
	if (!made)
		return 1;
	bpf_ct_set_timeout(made, MINUTE_MS);
	got = (__u64)bpf_ct_insert_entry(made);
	bpf_throw(COOKIE);
	return 0;
}

SEC("tc")
__description("a connection that was looked up is put")
__exception_cb(caught_connection) __event(test_run) __retval(42) __calls(2, "bpf_ct_release")
int lookup(struct __sk_buff *skb)
{
	struct nf_conn___init *made;
	struct nf_conn *inserted;

	begin_connection(4);
	made = bpf_skb_ct_alloc(skb, TUPLE);
	if (!made)
		return 1;
	bpf_ct_set_timeout(made, MINUTE_MS);
	inserted = bpf_ct_insert_entry(made);
	if (!inserted)
		return 2;
	bpf_ct_release(inserted);
	got = (__u64)bpf_skb_ct_lookup(skb, TUPLE);
	bpf_throw(COOKIE);
	return 0;
}

SEC("tc")
__description("a program may free a connection that it has made itself")
__exception_cb(caught_connection) __event(test_run) __retval(42) __calls(1, "bpf_ct_discard")
int discard(struct __sk_buff *skb)
{
	struct nf_conn___init *made;

	begin_connection(5);
	made = bpf_skb_ct_alloc(skb, TUPLE);
	if (!made)
		return 1;
	got = 1;
	bpf_ct_discard(made);
	bpf_throw(COOKIE);
	return 0;
}
