// SPDX-License-Identifier: GPL-2.0

#include <linux/smp.h>

__rust_helper void rust_helper_smp_send_stop(void)
{
	smp_send_stop();
}
