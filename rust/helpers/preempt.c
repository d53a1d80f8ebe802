// SPDX-License-Identifier: GPL-2.0

#include <linux/preempt.h>

__rust_helper bool rust_helper_in_nmi(void)
{
	return in_nmi();
}

__rust_helper bool rust_helper_in_hardirq(void)
{
	return in_hardirq();
}

__rust_helper bool rust_helper_in_serving_softirq(void)
{
	return in_serving_softirq();
}
