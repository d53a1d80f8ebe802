// SPDX-License-Identifier: GPL-2.0
/* Each kind of argument and result that a kfunc in Rust can have, called from BPF. */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#include "expect.h"
#include "kfunc.h"

char LICENSE[] SEC("license") = "GPL";

#define __rust_kfunc __kfunc_of(bpf_rust_kfunc_test)

__u64 bpf_rust_noop(__u64 value) __rust_kfunc;
__s64 bpf_rust_add(__u8 a, __s8 b, __u16 c, __s32 d, __s64 e) __rust_kfunc;
bool bpf_rust_not(bool value) __rust_kfunc;
__u32 bpf_rust_strlen(const char *string__str) __rust_kfunc;
__u32 bpf_rust_sum(const void *bytes, __u32 len__sz) __rust_kfunc;
int bpf_rust_caller(void *name, __u32 len__sz) __rust_kfunc;
__u32 bpf_rust_caller_id(void) __rust_kfunc;
__s32 bpf_rust_pid(struct task_struct *task) __rust_kfunc;
__s32 bpf_rust_pid_nullable(struct task_struct *task__nullable) __rust_kfunc;
void bpf_rust_destructive(void) __rust_kfunc;

SEC("xdp")
__description("a kfunc in Rust is called from XDP") __event(test_run) __retval(2)
int noop_xdp(struct xdp_md *ctx)
{
	return bpf_rust_noop(XDP_PASS);
}

SEC("syscall")
__description("integers of each size arrive with their sign") __event(test_run) __retval(1)
int integers(void *ctx)
{
	return bpf_rust_add(200, -100, 60000, -70000, 1LL << 40) == (1LL << 40) - 9900;
}

/* A program may leave anything in the bits above the type, a compiler may rely on them. */
SEC("syscall")
__description("integers are cut to their size") __event(test_run) __retval(1)
int integers_cut(void *ctx)
{
	__s64 sum;

	asm volatile("r1 = 0xfedcba98765432c8 ll;"	/* 200 */
		     "r2 = 0x012345678765439c ll;"	/* -100 */
		     "r3 = 0xfedcba987654ea60 ll;"	/* 60000 */
		     "r4 = 0x01234567fffeee90 ll;"	/* -70000 */
		     "r5 = 0x10000000000 ll;"		/* 1 << 40 */
		     "call %[add];"
		     "%[sum] = r0;"
		     : [sum] "=r"(sum)
		     : [add] "i"(bpf_rust_add)
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory");
	return sum == (1LL << 40) - 9900;
}

SEC("syscall")
__description("a truth value is one of two") __event(test_run) __retval(1)
int truth(void *ctx)
{
	return !bpf_rust_not(true) && bpf_rust_not(false);
}

SEC("syscall")
__description("a truth value that is neither is taken for true")
__event(test_run) __retval(1)
int truth_cut(void *ctx)
{
	__u64 wrong;

	asm volatile("r1 = 2;"
		     "call %[not];"
		     "%[wrong] = r0;"
		     : [wrong] "=r"(wrong)
		     : [not] "i"(bpf_rust_not)
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory");
	/* The kernel's ABI leaves the bits above the byte undefined. */
	return !(wrong & 0xff);
}

SEC("syscall")
__description("a constant string arrives whole") __event(test_run) __retval(12)
int string(void *ctx)
{
	return bpf_rust_strlen("twelve chars");
}

SEC("syscall")
__description("memory is read") __event(test_run) __retval(256)
int memory(void *ctx)
{
	unsigned char bytes[4] = { 1, 2, 3, 250 };

	return bpf_rust_sum(bytes, sizeof(bytes));
}

SEC("syscall")
__description("memory is written, and the caller is known by name")
__event(test_run) __retval(1)
int caller(void *ctx)
{
	char name[16] = {};

	return bpf_rust_caller(name, sizeof(name)) == 0 &&
	       !bpf_strncmp(name, sizeof(name), "caller");
}

SEC("syscall")
__description("an error in Rust is a negative number in BPF") __event(test_run) __retval(-28)
int error(void *ctx)
{
	char name[8] = {};

	return bpf_rust_caller(name, sizeof(name));
}

SEC("syscall")
__description("the caller is known by its id") __event(test_run) __retval(1)
int caller_id(void *ctx)
{
	return bpf_rust_caller_id() > 0;
}

SEC("syscall")
__description("a pointer to a kernel object arrives") __event(test_run) __retval(1)
int pointer(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return bpf_rust_pid(task) == task->pid;
}

/* -3: ESRCH */
SEC("syscall")
__description("a pointer that may be NULL is None") __event(test_run) __retval(-3)
int pointer_null(void *ctx)
{
	return bpf_rust_pid_nullable(NULL);
}

SEC("syscall")
__description("a pointer that may be NULL is Some") __event(test_run) __retval(1)
int pointer_some(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return bpf_rust_pid_nullable(task) == task->pid;
}

SEC("syscall")
__description("NULL is refused where Rust has no Option")
__event(none) __failure(EACCES) __msg("Possibly NULL pointer passed to trusted")
int refuse_null(void *ctx)
{
	return bpf_rust_pid(NULL);
}

SEC("syscall")
__description("memory that the program does not have is refused")
__event(none) __failure(EINVAL) __msg("invalid read from stack")
int refuse_size(void *ctx)
{
	unsigned char bytes[4] = {};

	return bpf_rust_sum(bytes, 64);
}

SEC("syscall")
__description("a string that can change is refused")
__event(none) __failure(EINVAL) __msg("bpf_rust_strlen")
int refuse_string(void *ctx)
{
	char local[8] = "local";

	return bpf_rust_strlen(local);
}

SEC("tc")
__description("a hook for which the set is not registered is refused")
__event(none) __failure(EACCES) __msg("calling kernel function bpf_rust_noop is not allowed")
int refuse_hook(struct __sk_buff *skb)
{
	return bpf_rust_noop(0);
}

SEC("syscall")
__description("a kfunc marked destructive needs CAP_SYS_BOOT")
__event(none) __without_cap(SYS_BOOT) __failure(EACCES)
__msg("destructive kfunc calls require CAP_SYS_BOOT capability")
int refuse_destructive(void *ctx)
{
	bpf_rust_destructive();
	return 0;
}

SEC("syscall")
__description("a kfunc marked destructive is called with CAP_SYS_BOOT")
__event(test_run) __retval(0)
int destructive(void *ctx)
{
	bpf_rust_destructive();
	return 0;
}
