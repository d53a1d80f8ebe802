/* SPDX-License-Identifier: GPL-2.0 */
/* The integers that libbpf's headers want, without the kernel's headers. */
#ifndef BACKSTOP_TYPES_H
#define BACKSTOP_TYPES_H

typedef unsigned char __u8;
typedef signed short __s16;
typedef unsigned short __u16;
typedef signed int __s32;
typedef unsigned int __u32;
typedef signed long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#endif
