// SPDX-License-Identifier: GPL-2.0
/*
 * Records of a ring buffer, plain and behind dynptrs: a throw discards them, since one that is
 * neither submitted nor discarded blocks the consumer for ever.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

int bpf_dynptr_clone(const struct bpf_dynptr *p, struct bpf_dynptr *clone__uninit) __ksym;

#define RECORD 16
/* More than the ring has. */
#define TOO_MUCH 8192

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

enum wrong {
	NO_RECORD = -201,
	NOT_DISCARDED = -202,
	NOT_SUBMITTED = -203,
};

/* Where the first and the last record of the program are, as numbers. */
__u64 first, last;

static __always_inline __u32 header_of(__u64 record)
{
	__u32 header = 0;

	/* The header is the 8 bytes before, the length and two flags come first. */
	if (bpf_probe_read_kernel(&header, sizeof(header), (void *)record - 8))
		return 0;
	return header;
}

static __always_inline bool is_discarded(__u64 record)
{
	return (header_of(record) & (BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT)) ==
	       BPF_RINGBUF_DISCARD_BIT;
}

static __always_inline bool is_submitted(__u64 record)
{
	return !(header_of(record) & (BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT));
}

/* Both records were discarded. */
__noinline int caught_discarded(__u64 cookie)
{
	if (!first || !last)
		return NO_RECORD;
	if (!is_discarded(first) || !is_discarded(last))
		return NOT_DISCARDED;
	return settle(cookie);
}

/* The first record was submitted, the last one discarded. */
__noinline int caught_submitted(__u64 cookie)
{
	if (!first || !last)
		return NO_RECORD;
	if (!is_submitted(first))
		return NOT_SUBMITTED;
	if (!is_discarded(last))
		return NOT_DISCARDED;
	return settle(cookie);
}

#define __discards	__exception_cb(caught_discarded) __event(test_run) __retval(42) __released("")
#define __submits	__exception_cb(caught_submitted) __event(test_run) __retval(42) __released("")

static __always_inline void begin_records(void)
{
	begin();
	first = 0;
	last = 0;
}

static __always_inline void note(void *record)
{
	last = (__u64)record;
	if (!first)
		first = last;
}

static __always_inline void note_dynptr(struct bpf_dynptr *ptr)
{
	void *record = bpf_dynptr_data(ptr, 0, RECORD);

	if (record)
		note(record);
}

SEC("syscall")
__description("a record that was reserved is discarded")
__discards
int record(void *ctx)
{
	void *record;

	begin_records();
	record = bpf_ringbuf_reserve(&ring, RECORD, 0);
	if (!record)
		return 0;
	note(record);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("syscall")
__description("several records are discarded")
__discards
int records(void *ctx)
{
	void *a, *b;

	begin_records();
	a = bpf_ringbuf_reserve(&ring, RECORD, 0);
	if (!a)
		return 0;
	note(a);
	b = bpf_ringbuf_reserve(&ring, RECORD, 0);
	if (!b) {
		bpf_ringbuf_discard(a, 0);
		return 0;
	}
	note(b);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_submit(a, 0);
	bpf_ringbuf_submit(b, 0);
	return 0;
}

SEC("syscall")
__description("a record that was submitted stays so, the next one is discarded")
__submits
int record_submitted(void *ctx)
{
	void *record;

	begin_records();
	record = bpf_ringbuf_reserve(&ring, RECORD, 0);
	if (!record)
		return 0;
	note(record);
	bpf_ringbuf_submit(record, 0);
	record = bpf_ringbuf_reserve(&ring, RECORD, 0);
	if (!record)
		return 0;
	note(record);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("syscall")
__description("a record that could not be reserved is not discarded")
__unwinds("")
int record_failed(void *ctx)
{
	begin();
	bpf_ringbuf_reserve(&ring, TOO_MUCH, 0);
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
__description("the record behind a dynptr is discarded")
__discards
int dynptr(void *ctx)
{
	struct bpf_dynptr ptr;

	begin_records();
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &ptr);
	note_dynptr(&ptr);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_submit_dynptr(&ptr, 0);
	return 0;
}

SEC("syscall")
__description("records behind two dynptrs are discarded")
__discards
int dynptrs(void *ctx)
{
	struct bpf_dynptr a, b;

	begin_records();
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &a);
	note_dynptr(&a);
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &b);
	note_dynptr(&b);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_submit_dynptr(&a, 0);
	bpf_ringbuf_submit_dynptr(&b, 0);
	return 0;
}

SEC("syscall")
__description("a dynptr of a record that could not be reserved is nothing to discard")
__unwinds("")
int dynptr_failed(void *ctx)
{
	struct bpf_dynptr ptr;

	begin();
	bpf_ringbuf_reserve_dynptr(&ring, TOO_MUCH, 0, &ptr);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_discard_dynptr(&ptr, 0);
	return 0;
}

SEC("syscall")
__description("the record of a dynptr that was submitted stays so")
__submits
int dynptr_submitted(void *ctx)
{
	struct bpf_dynptr a, b;

	begin_records();
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &a);
	note_dynptr(&a);
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &b);
	note_dynptr(&b);
	bpf_ringbuf_submit_dynptr(&a, 0);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_submit_dynptr(&b, 0);
	return 0;
}

SEC("syscall")
__description("a record with two dynptrs is discarded once")
__discards
int dynptr_clone(void *ctx)
{
	struct bpf_dynptr ptr, clone;

	begin_records();
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &ptr);
	note_dynptr(&ptr);
	bpf_dynptr_clone(&ptr, &clone);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_submit_dynptr(&ptr, 0);
	return 0;
}

SEC("syscall")
__description("a record that was submitted by the other of two dynptrs stays so")
__submits
int dynptr_clone_submitted(void *ctx)
{
	struct bpf_dynptr ptr, clone;

	begin_records();
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &ptr);
	note_dynptr(&ptr);
	bpf_dynptr_clone(&ptr, &clone);
	bpf_ringbuf_submit_dynptr(&clone, 0);
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &ptr);
	note_dynptr(&ptr);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_discard_dynptr(&ptr, 0);
	return 0;
}

char elsewhere[32];

SEC("syscall")
__description("a record whose first dynptr the program has overwritten is discarded")
__discards
int dynptr_clone_overwritten(void *ctx)
{
	struct bpf_dynptr ptr, clone;

	begin_records();
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &ptr);
	note_dynptr(&ptr);
	bpf_dynptr_clone(&ptr, &clone);
	bpf_dynptr_from_mem(elsewhere, sizeof(elsewhere), 0, &ptr);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_discard_dynptr(&clone, 0);
	return 0;
}

static __noinline int throw_with_dynptr(int cookie)
{
	struct bpf_dynptr ptr;

	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &ptr);
	note_dynptr(&ptr);
	if (one)
		bpf_throw(cookie);
	bpf_ringbuf_discard_dynptr(&ptr, 0);
	return cookie;
}

SEC("syscall")
__description("records of a function and of its caller are discarded")
__discards
int dynptr_callee(void *ctx)
{
	struct bpf_dynptr ptr;
	int ret;

	begin_records();
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, &ptr);
	note_dynptr(&ptr);
	ret = throw_with_dynptr(COOKIE);
	bpf_ringbuf_discard_dynptr(&ptr, 0);
	return ret;
}

static __noinline int reserve(struct bpf_dynptr *ptr)
{
	bpf_ringbuf_reserve_dynptr(&ring, RECORD, 0, ptr);
	return one;
}

SEC("syscall")
__description("records that one instruction of a callee reserved, for two dynptrs, are discarded")
__discards
int dynptr_callee_reserves(void *ctx)
{
	struct bpf_dynptr a, b;

	begin_records();
	reserve(&a);
	note_dynptr(&a);
	reserve(&b);
	note_dynptr(&b);
	if (one)
		bpf_throw(COOKIE);
	bpf_ringbuf_discard_dynptr(&a, 0);
	bpf_ringbuf_discard_dynptr(&b, 0);
	return 0;
}

/* For tests/unwind.rs, which reads the ring: one record is thrown away, the next one arrives. */
SEC("syscall") __exception_cb(caught_discarded)
int thrown_away(void *ctx)
{
	__u32 *record;

	begin_records();
	record = bpf_ringbuf_reserve(&ring, RECORD, 0);
	if (!record)
		return 0;
	note(record);
	*record = 1;
	bpf_throw(COOKIE);
	return 0;
}

SEC("syscall")
int delivered(void *ctx)
{
	__u32 *record = bpf_ringbuf_reserve(&ring, RECORD, 0);

	if (!record)
		return 1;
	*record = 2;
	bpf_ringbuf_submit(record, 0);
	return 0;
}
