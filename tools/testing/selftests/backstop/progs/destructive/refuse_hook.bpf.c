// SPDX-License-Identifier: GPL-2.0
/*
 * No program type outside the tracing hooks loads with a destructive kfunc, nor does an LSM
 * program of a cgroup.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "destructive.h"
#include "expect.h"

char LICENSE[] SEC("license") = "GPL";

#define REFUSED(name, section)							\
	SEC(section)								\
	__description("a program of section " section " cannot call bpf_halt")	\
	__event(none) __failure(EACCES)						\
	__msg("calling kernel function bpf_halt is not allowed")		\
	int refuse_##name(void *ctx)						\
	{									\
		bpf_halt(BPF_STOP_NOW);						\
		return 0;							\
	}

REFUSED(socket_filter, "socket")
REFUSED(xdp, "xdp")
REFUSED(tc_classifier, "tc")
REFUSED(tc_action, "action")
REFUSED(lwt_in, "lwt_in")
REFUSED(lwt_out, "lwt_out")
REFUSED(lwt_xmit, "lwt_xmit")
REFUSED(lwt_seg6local, "lwt_seg6local")
REFUSED(cgroup_skb, "cgroup_skb/ingress")
REFUSED(cgroup_sock, "cgroup/sock_create")
REFUSED(cgroup_sock_addr, "cgroup/connect4")
REFUSED(cgroup_sockopt, "cgroup/getsockopt")
REFUSED(cgroup_sysctl, "cgroup/sysctl")
REFUSED(cgroup_device, "cgroup/dev")
REFUSED(lsm_cgroup, "lsm_cgroup/socket_bind")
REFUSED(sock_ops, "sockops")
REFUSED(sk_skb, "sk_skb/stream_verdict")
REFUSED(sk_msg, "sk_msg")
REFUSED(sk_lookup, "sk_lookup")
REFUSED(sk_reuseport, "sk_reuseport")
REFUSED(flow_dissector, "flow_dissector")
REFUSED(netfilter, "netfilter")
REFUSED(syscall, "syscall")
REFUSED(raw_tp_writable, "raw_tp.w/bpf_test_finish")
