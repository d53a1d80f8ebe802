/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM bpf

#if !defined(_TRACE_BPF_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_BPF_H

#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/tracepoint.h>

/*
 * A program has thrown, and what it held up to the next boundary has been
 * released. Fires again, with @resumed set, for the part behind a callback or
 * behind the trampoline of a traced function.
 */
TRACE_EVENT(bpf_prog_throw,

	TP_PROTO(const struct bpf_prog *prog, u64 cookie, unsigned long ip,
		 u32 frames, u32 released, bool resumed),

	TP_ARGS(prog, cookie, ip, frames, released, resumed),

	TP_STRUCT__entry(
		__field(u32, prog_id)
		__array(u8, prog_tag, BPF_TAG_SIZE)
		__string(prog_name, prog->aux->name)
		__field(u64, cookie)
		__field(unsigned long, ip)
		__field(u32, frames)
		__field(u32, released)
		__field(bool, resumed)
	),

	TP_fast_assign(
		__entry->prog_id = prog->aux->id;
		memcpy(__entry->prog_tag, prog->tag, BPF_TAG_SIZE);
		__assign_str(prog_name);
		__entry->cookie = cookie;
		__entry->ip = ip;
		__entry->frames = frames;
		__entry->released = released;
		__entry->resumed = resumed;
	),

	TP_printk("prog_id=%u prog_tag=%s prog_name=%s cookie=0x%llx ip=%pS frames=%u released=%u resumed=%d",
		  __entry->prog_id,
		  __print_hex_str(__entry->prog_tag, BPF_TAG_SIZE),
		  __get_str(prog_name), __entry->cookie, (void *)__entry->ip,
		  __entry->frames, __entry->released, __entry->resumed)
);

/*
 * The run of a program has been ended: it had taken @spent ns and its deadline was
 * @deadline ns, or 0 if it was stopped. @resumed is as for bpf_prog_throw.
 */
TRACE_EVENT(bpf_prog_terminate,

	TP_PROTO(const struct bpf_prog *prog, u64 deadline, u64 spent, unsigned long ip,
		 u32 frames, u32 released, bool resumed),

	TP_ARGS(prog, deadline, spent, ip, frames, released, resumed),

	TP_STRUCT__entry(
		__field(u32, prog_id)
		__array(u8, prog_tag, BPF_TAG_SIZE)
		__string(prog_name, prog->aux->name)
		__field(u64, deadline)
		__field(u64, spent)
		__field(unsigned long, ip)
		__field(u32, frames)
		__field(u32, released)
		__field(bool, resumed)
	),

	TP_fast_assign(
		__entry->prog_id = prog->aux->id;
		memcpy(__entry->prog_tag, prog->tag, BPF_TAG_SIZE);
		__assign_str(prog_name);
		__entry->deadline = deadline;
		__entry->spent = spent;
		__entry->ip = ip;
		__entry->frames = frames;
		__entry->released = released;
		__entry->resumed = resumed;
	),

	TP_printk("prog_id=%u prog_tag=%s prog_name=%s deadline=%llu spent=%llu ip=%pS frames=%u released=%u resumed=%d",
		  __entry->prog_id,
		  __print_hex_str(__entry->prog_tag, BPF_TAG_SIZE),
		  __get_str(prog_name), __entry->deadline, __entry->spent,
		  (void *)__entry->ip, __entry->frames, __entry->released,
		  __entry->resumed)
);

#endif

/* This part must be outside protection */
#include <trace/define_trace.h>
