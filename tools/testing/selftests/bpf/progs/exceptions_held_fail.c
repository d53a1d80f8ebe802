// SPDX-License-Identifier: GPL-2.0
/* The programs of exceptions_held.h, which are refused without bpf_unwind. */
#define PROG(name) reject_##name
#define __refused(msg) __failure __msg(msg)
#include "exceptions_held.h"
