// SPDX-License-Identifier: GPL-2.0
/* What a program says on the console is known when it is loaded. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "destructive.h"
#include "expect.h"

char LICENSE[] SEC("license") = "GPL";

char writable[] = "can be changed by anyone";
const char unterminated[4] SEC(".rodata.unterminated") = { 'o', 'o', 'p', 's' };
const char table[] SEC(".rodata.table") = "one\0two";

#define REFUSED(name, errno, what, says, call)					\
	SEC("raw_tp/sys_enter")							\
	__description("a text " what " is refused")				\
	__event(none) __failure(errno) __msg(says)				\
	int refuse_##name(void *ctx)						\
	{									\
		call;								\
		return 0;							\
	}

REFUSED(writable, EACCES, "that can change", "does not point to a readonly map",
	bpf_panic(writable))
REFUSED(writable_write, EACCES, "that can change", "does not point to a readonly map",
	bpf_console_write(writable))
REFUSED(writable_format, EACCES, "that can change", "does not point to a readonly map",
	__u64 arg = 0; bpf_console_printk(writable, &arg, sizeof(arg)))
REFUSED(writable_dump, EACCES, "that can change", "does not point to a readonly map",
	bpf_crash_dump(writable))
REFUSED(unterminated, EINVAL, "without an end", "string is not zero-terminated",
	bpf_panic(unterminated))
REFUSED(variable, EACCES, "at an address that is not constant", "is not a constant address",
	bpf_panic(&table[(bpf_get_prandom_u32() & 1) * 4]))
REFUSED(stack, EINVAL, "on the stack", "bpf_panic",
	char local[8] = "local"; bpf_panic(local))
REFUSED(null, EACCES, "that is not there", "Possibly NULL pointer passed to trusted",
	bpf_panic(NULL))
