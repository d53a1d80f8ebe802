// SPDX-License-Identifier: GPL-2.0
/* A throw leaves the main program without running what the kernel adds behind it. */
#include <vmlinux.h>
#include <bpf/bpf_tracing.h>
#include "../test_kmods/bpf_testmod.h"
#include "bpf_misc.h"
#include "bpf_experimental.h"

char _license[] SEC("license") = "GPL";

__noinline static int throw(void)
{
	bpf_throw(0);
	return 0;
}

SEC("struct_ops/test_epilogue")
__failure __msg("bpf_throw cannot be called in a program that has an epilogue")
int BPF_PROG(throw_past_epilogue, struct st_ops_args *args)
{
	return throw();
}

SEC(".struct_ops.link")
struct bpf_testmod_st_ops exceptions_epilogue_fail = {
	.test_epilogue = (void *)throw_past_epilogue,
};
