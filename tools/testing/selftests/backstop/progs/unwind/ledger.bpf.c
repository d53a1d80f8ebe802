// SPDX-License-Identifier: GPL-2.0
/* What became of the objects of module bpf_unwind_test, for ledger.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "ledger.h"

char LICENSE[] SEC("license") = "GPL";

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
