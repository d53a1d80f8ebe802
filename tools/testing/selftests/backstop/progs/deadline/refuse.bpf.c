// SPDX-License-Identifier: GPL-2.0
/* Declaration tags that are no deadlines, and some that are. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "deadline.h"

char LICENSE[] SEC("license") = "GPL";

#define __tag(text) __attribute__((btf_decl_tag("deadline_us:" text)))
#define __watched __module(bpf_unwind) __module(bpf_deadline)

#define REFUSED(name, what, text)						\
	SEC("tc")								\
	__description(what) __watched __tag(text)				\
	__event(none) __failure(EINVAL)						\
	__msg("deadline_us:" text ": not a number from 1000 to 10000000")	\
	int name(void *ctx)							\
	{									\
		return 0;							\
	}

#define ACCEPTED(name, what, text)						\
	SEC("tc")								\
	__description(what) __watched __tag(text) __event(test_run) __retval(0)	\
	int name(void *ctx)							\
	{									\
		return 0;							\
	}

REFUSED(no_number, "a deadline that is no number is refused", "soon")
REFUSED(nothing, "a deadline of nothing is refused", "")
REFUSED(negative, "a deadline that is over already is refused", "-1000")
REFUSED(with_sign, "a deadline with a sign is refused", "+1000")
REFUSED(unit, "a deadline with a unit is refused", "10ms")
REFUSED(too_short, "a deadline shorter than can be measured is refused", "999")
REFUSED(too_long, "a deadline longer than the longest is refused", "10000001")
REFUSED(overflow, "a deadline beyond 64 bits is refused", "18446744073709551616")
ACCEPTED(shortest, "the shortest deadline is accepted", "1000")
ACCEPTED(longest, "the longest deadline is accepted", "10000000")

SEC("tc")
__description("two deadlines are refused")
__watched __tag("1000") __tag("2000")
__event(none) __failure(EINVAL) __msg("more than one declaration tag deadline_us:")
int twice(void *ctx)
{
	return 0;
}
