// SPDX-License-Identifier: GPL-2.0
/*
 * The kfunc of rust_kfunc_test.rs that does nothing, in C, to compare what a
 * call costs.
 */

#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/module.h>

__bpf_kfunc_start_defs();

/* Returns @value. */
__bpf_kfunc u64 bpf_c_noop(u64 value)
{
	return value;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(c_kfunc_test_ids)
BTF_ID_FLAGS(func, bpf_c_noop)
BTF_KFUNCS_END(c_kfunc_test_ids)

static const struct btf_kfunc_id_set c_kfunc_test_set = {
	.owner = THIS_MODULE,
	.set = &c_kfunc_test_ids,
};

static int __init c_kfunc_test_init(void)
{
	static const enum bpf_prog_type types[] = {
		BPF_PROG_TYPE_XDP,
		BPF_PROG_TYPE_TRACING,
		BPF_PROG_TYPE_SYSCALL,
	};
	int err = 0;

	for (int i = 0; i < ARRAY_SIZE(types) && !err; i++)
		err = register_btf_kfunc_id_set(types[i], &c_kfunc_test_set);
	return err;
}

static void __exit c_kfunc_test_exit(void)
{
}

module_init(c_kfunc_test_init);
module_exit(c_kfunc_test_exit);

MODULE_DESCRIPTION("A kfunc in C, to compare with one in Rust");
MODULE_LICENSE("GPL");
