/* SPDX-License-Identifier: GPL-2.0 */
/* A program that is a row of what --bench measures. Include after vmlinux.h. */
#ifndef _BACKSTOP_ROW_H
#define _BACKSTOP_ROW_H

#include <bpf/bpf_helpers.h>

/* The row's name, and how often the program runs for it. */
#define ROW(name, repeat)							\
	SEC("xdp")								\
	__attribute__((btf_decl_tag("row:" #repeat ":" name)))

#endif /* _BACKSTOP_ROW_H */
