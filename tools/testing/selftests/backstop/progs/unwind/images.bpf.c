// SPDX-License-Identifier: GPL-2.0
/* How much memory the images of all programs take, for memory.rs. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "../unwind.h"

char LICENSE[] SEC("license") = "GPL";

/* An atomic_long_t of the kernel, bytes. */
extern const void bpf_jit_current __ksym;

long images SEC(".data.images");

SEC("syscall")
int measure(void *ctx)
{
	return bpf_probe_read_kernel(&images, sizeof(images), &bpf_jit_current);
}

/* Keeps the module loaded until it is freed, and is freed by call_rcu(): it does not sleep. */
SEC("tc")
int last(void *ctx)
{
	bpf_unwind_delay(0);
	return 0;
}
