/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a test program is expected to do, said beside it in declaration tags.
 *
 * A function with a section and a __description is a test. Its name is
 * DIRECTORY/FUNCTION. What is not said here has its default:
 *
 * __description(text)	what the test shows, one line; makes the function a test
 *
 * Loading
 * __success		the program loads (default)
 * __failure(errno)	the load fails with this errno, by name
 * __msg(pattern)	with __failure, text of the loader's and verifier's log;
 *			several are looked for in order
 * __without_cap(cap)	loaded without this capability, by name
 * __module(name)	loaded while this module is there
 * __without_module(name)	loaded while this module is not there
 * __with(program)	loaded along with this one, in the same object
 *
 * Running
 * __event(name)	what makes the program run, see events.rs:
 *			  syscall  the test's own getpgid() (default)
 *			  timer    the test sleeps
 *			  fork     the test forks and waits for the child
 *			  iter     the test reads the iterator
 *			  printk   the test writes to the kernel log, and the
 *				   console's own thread prints it
 *			  nmi      the host injects a non-maskable interrupt
 *			  test_run BPF_PROG_TEST_RUN, with a packet where one is due
 *			  none     the program is only loaded
 * __retval(n)		what record() was given, or a test run returned
 * __released(labels)	the objects of module bpf_unwind_test that a run lets
 *			go of; with it, the program runs twice
 * __expires		each run is ended for its deadline, 10 ms after it at most,
 *			and the program's stream says so
 * __in_order		they are let go of in this order
 * __untraced		the verifier is asked for its messages, not for a trace as well
 * __long			skipped on a kernel that checks itself, where it takes minutes
 * __calls(n, functions)	a run calls these functions of the kernel so often, all of
 *			"one|another" together; with it, the program runs twice
 *
 * Around it
 * __console(pattern)	a console line; several are looked for in order
 * __attributed(kfunc, context, why)
 *			the console line with which a destructive kfunc names
 *			its caller, before anything else happens
 * __not_console(pattern)
 *			no such console line
 * __ends(how)		the machine ends: panic, reset, power_off, halt,
 *			crash_dump. Without it the program returns
 * __append(words)	kernel command line of the machine
 * __crash_kernel	the machine has a crash kernel loaded
 * __stop_commands(how)	/sbin/reboot and its like are
 *			  marked   replaced by scripts that say so on the console
 *			  missing  removed
 *			  failing  scripts that fail
 *			  hanging  scripts that never end
 * __module_params(text)	the module is loaded again with these parameters
 * __quiet		the console's log level is 1
 *
 * Patterns are literal text, except for regular expressions in {{ }}.
 */
#ifndef _BACKSTOP_EXPECT_H
#define _BACKSTOP_EXPECT_H

#define __expect_string(x) #x
#define __expect_number(x) __expect_string(x)
/* The number keeps tags that are equal apart, and several in order. */
#define __expect(text)								\
	__attribute__((btf_decl_tag("comment:backstop:"				\
				    __expect_number(__COUNTER__) ":" text)))

#define __description(text)	__expect("description=" text)
#define __success		__expect("success")
#define __failure(errno)	__expect("failure=" #errno)
#define __msg(pattern)		__expect("msg=" pattern)
#define __without_cap(cap)	__expect("without_cap=" #cap)
#define __module(name)		__expect("module=" #name)
#define __without_module(name)	__expect("without_module=" #name)
#define __with(program)		__expect("with=" #program)
#define __event(name)		__expect("event=" #name)
#define __retval(n)		__expect("retval=" __expect_number(n))
#define __released(labels)	__expect("released=" labels)
#define __expires		__expect("expires")
#define __in_order		__expect("in_order")
#define __untraced		__expect("untraced")
#define __long			__expect("long")
#define __calls(n, functions)	__expect("calls=" #n "," functions)
#define __console(pattern)	__expect("console=" pattern)
#define __not_console(pattern)	__expect("not_console=" pattern)
#define __attributed(kfunc, context, why)					\
	__expect("attributed=" #kfunc "," #context "," why)
#define __ends(how)		__expect("ends=" #how)
#define __append(words)		__expect("append=" words)
#define __crash_kernel		__expect("crash_kernel")
#define __module_params(text)	__expect("module_params=" text)
#define __quiet			__expect("quiet")
#define __stop_commands(how)	__expect("stop_commands=" #how)

#endif /* _BACKSTOP_EXPECT_H */
