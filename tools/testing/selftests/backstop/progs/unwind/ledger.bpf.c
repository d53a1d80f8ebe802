// SPDX-License-Identifier: GPL-2.0
/* What became of the objects of module bpf_unwind_test, for ledger.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define __unwind_test	__ksym __attribute__((btf_decl_tag("module:bpf_unwind_test")))

/* Shared with user space. */
struct bpf_unwind_ledger {
	__u32 live;
	__u32 faults;
	__u32 acquired;
	__u32 released;
	char log[128];
};

void bpf_unwind_ledger(struct bpf_unwind_ledger *ledger) __unwind_test;
void bpf_unwind_reset(void) __unwind_test;

struct bpf_unwind_ledger ledger SEC(".data.ledger");

SEC("syscall")
int look(void *ctx)
{
	bpf_unwind_ledger(&ledger);
	return 0;
}

SEC("syscall")
int reset(void *ctx)
{
	bpf_unwind_reset();
	return 0;
}
