/* SPDX-License-Identifier: GPL-2.0 */
/* A program that is a row of what --bench measures. Include after vmlinux.h. */
#ifndef _BACKSTOP_ROW_H
#define _BACKSTOP_ROW_H

#include <bpf/bpf_helpers.h>

/* The row's name, and how often the program runs for it. */
#define ROW(name, repeat)							\
	SEC("xdp")								\
	__attribute__((btf_decl_tag("row:" #repeat ":" name)))

/* A module that has to be there when the program is loaded, where the kernel has it. */
#define __needs(name)	__attribute__((btf_decl_tag("needs:" #name)))

#endif /* _BACKSTOP_ROW_H */
