// SPDX-License-Identifier: GPL-2.0
/* What an operator ends, see tests/operator.rs: a run that takes hours, and what cannot be ended. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

char LICENSE[] SEC("license") = "GPL";

/* As many rounds as an iterator makes. */
#define ROUNDS (8 << 20)

/* Shared with user space. */
struct runs {
	__u64 brief;	/* runs are to end at once */
	__u64 begun;	/* runs */
	__u64 finished;
};

struct runs runs SEC(".data.runs");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

/* Holds a record meanwhile. Its deadline is the longest that there is. */
SEC("syscall")
__attribute__((btf_decl_tag("deadline_us:10000000")))
int endless(void *ctx)
{
	volatile __u64 rounds = 0;
	__u64 *record;
	int i, j;

	__sync_fetch_and_add(&runs.begun, 1);
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record)
		return 1;
	if (!runs.brief) {
		bpf_for(i, 0, ROUNDS) {
			bpf_for(j, 0, ROUNDS)
				rounds++;
		}
	}
	bpf_ringbuf_discard(record, 0);
	__sync_fetch_and_add(&runs.finished, 1);
	return 0;
}

SEC("syscall")
int straight(void *ctx)
{
	return 0;
}

const volatile __u32 no_rounds;

/* The verifier knows that the loop is never entered, the compiler does not. */
SEC("syscall")
int dead_loop(void *ctx)
{
	volatile __u64 rounds = 0;
	__u32 i;

	for (i = 0; i < no_rounds; i++)
		rounds++;
	return 0;
}

/* Its jump backwards is reached, and never jumps. */
SEC("syscall")
__naked int dead_jump(void)
{
	asm volatile("call %[random];"
		     "r0 &= 7;"
		     "goto 1f;"
		     "0: r0 += 1;"
		     "1: if r0 > 7 goto 0b;"
		     "r0 = 0;"
		     "exit;"
		     :
		     : [random] "i"(bpf_get_prandom_u32)
		     : __clobber_all);
}

/* Far more calls than may be made without a checkpoint, but for one all of them dead. */
SEC("syscall")
__naked int dead_calls(void)
{
	asm volatile("call %[random];"
		     "r0 &= 7;"
		     "if r0 <= 7 goto 0f;"
		     ".rept 4096;"
		     "call %[random];"
		     ".endr;"
		     "0: r0 = 0;"
		     "exit;"
		     :
		     : [random] "i"(bpf_get_prandom_u32)
		     : __clobber_all);
}

struct timed {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct timed);
} timers SEC(".maps");

static int fires(void *map, __u32 *key, struct timed *timed)
{
	return 0;
}

/* A callback that nothing waits for makes no run longer. */
SEC("syscall")
int later(void *ctx)
{
	struct timed *timed;
	__u32 key = 0;

	timed = bpf_map_lookup_elem(&timers, &key);
	if (!timed)
		return 1;
	bpf_timer_init(&timed->timer, &timers, 0);
	bpf_timer_set_callback(&timed->timer, fires);
	return 0;
}
