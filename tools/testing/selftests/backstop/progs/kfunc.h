/* SPDX-License-Identifier: GPL-2.0 */
/* Kfuncs of modules. The loader reads the tag to name the module when it is not loaded. */
#ifndef _BACKSTOP_KFUNC_H
#define _BACKSTOP_KFUNC_H

#include <bpf/bpf_helpers.h>

#define __kfunc_of(module)	__ksym __attribute__((btf_decl_tag("module:" #module)))

#endif /* _BACKSTOP_KFUNC_H */
