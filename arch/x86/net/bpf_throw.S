/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where a BPF program throws: captures its registers, has the frame-release
 * hook let go of what the program holds, and goes on where the hook says.
 */
#include <linux/cfi_types.h>
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/alternative.h>
#include <asm/asm-offsets.h>
#include <asm/cpufeatures.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>

	.code64
	.section .text, "ax"

/*
 * Go to the code at \reg, which need not be the target of any other jump: it may
 * lack ENDBR, so a return it is. The call before keeps the return stack balanced.
 */
.macro RETURN_TO reg:req
	ANNOTATE_INTRA_FUNCTION_CALL
	call	.Lreturn_\@
	int3
.Lreturn_\@:
	movq	\reg, (%rsp)
	UNWIND_HINT_FUNC
	ALTERNATIVE __stringify(RET), \
		    __stringify(ANNOTATE_UNRET_SAFE; ret; int3), \
		    X86_FEATURE_CALL_DEPTH
.endm

/*
 * Note where the function that has called is, for struct bpf_unwind_regs at the
 * stack pointer with \above bytes between it and the return address. The cookie
 * is in rdi, \aux and what the hook is told in ret in registers. Clobbers rdx.
 */
.macro CAPTURE aux:req above=0
	movq	%rdi, BPF_UNWIND_REGS_cookie(%rsp)
	movq	\aux, BPF_UNWIND_REGS_aux(%rsp)
	movq	BPF_UNWIND_REGS_SIZE + \above(%rsp), %rdx
	movq	%rdx, BPF_UNWIND_REGS_ip(%rsp)
	leaq	BPF_UNWIND_REGS_SIZE + \above + 8(%rsp), %rdx
	movq	%rdx, BPF_UNWIND_REGS_sp(%rsp)
	movq	%rbp, BPF_UNWIND_REGS_bp(%rsp)
	movq	%rax, BPF_UNWIND_REGS_ret(%rsp)
.endm

/* Go on where the registers at the stack pointer say. */
.macro GO_ON
	movq	BPF_UNWIND_REGS_args + 0(%rsp), %rdi
	movq	BPF_UNWIND_REGS_args + 8(%rsp), %rsi
	movq	BPF_UNWIND_REGS_args + 16(%rsp), %rdx
	movq	BPF_UNWIND_REGS_ret(%rsp), %rax
	movq	BPF_UNWIND_REGS_saved + 0(%rsp), %rbx
	movq	BPF_UNWIND_REGS_saved + 8(%rsp), %r12
	movq	BPF_UNWIND_REGS_saved + 16(%rsp), %r13
	movq	BPF_UNWIND_REGS_saved + 24(%rsp), %r14
	movq	BPF_UNWIND_REGS_saved + 32(%rsp), %r15
	movq	BPF_UNWIND_REGS_ip(%rsp), %r11

	/* Between two frames. */
	UNWIND_HINT_UNDEFINED
	movq	BPF_UNWIND_REGS_bp(%rsp), %rbp
	movq	BPF_UNWIND_REGS_sp(%rsp), %rsp
	RETURN_TO %r11
.endm

/* void bpf_throw_stub(u64 cookie, struct bpf_prog_aux *aux), called by BPF programs. */
SYM_CODE_START(bpf_throw_stub)
	UNWIND_HINT_FUNC
	ANNOTATE_NOENDBR
	/* BPF_THROW_AGAIN marks what goes on behind a callback. */
	movl	%esi, %eax
	andl	$BPF_THROW_AGAIN, %eax
	xorq	%rax, %rsi

.Lthrow:
	subq	$BPF_UNWIND_REGS_SIZE, %rsp
	CAPTURE %rsi

	movq	%rsp, %rdi
	CALL_DEPTH_ACCOUNT
	call	bpf_unwind_frames
	GO_ON
SYM_CODE_END(bpf_throw_stub)

/*
 * What a trampoline returns to instead of its caller while the function that it
 * traces is unwound: throws again, there.
 *
 * r12: cookie, r13: aux, r14: address in the caller, r15: what the hook is told in ret
 */
SYM_CODE_START(bpf_throw_resume)
	UNWIND_HINT_UNDEFINED
	ANNOTATE_NOENDBR
	pushq	%r14
	UNWIND_HINT_FUNC
	movq	%r12, %rdi
	movq	%r13, %rsi
	movq	%r15, %rax
	jmp	.Lthrow
SYM_CODE_END(bpf_throw_resume)

/* Registers that calls do not preserve and that may be in use at a checkpoint. */
#define CHECKPOINT_REGS	(8 * 8)

/*
 * Called at a checkpoint, with the program's struct bpf_prog_aux in r11, and
 * BPF_THROW_AGAIN or'ed to it behind a callback, where the cookie is in rdi.
 * Asks whether the run goes on; if so, returns with all other registers as they
 * were.
 */
SYM_CODE_START(bpf_checkpoint_stub)
	UNWIND_HINT_FUNC
	ANNOTATE_NOENDBR
	subq	$(BPF_UNWIND_REGS_SIZE + CHECKPOINT_REGS), %rsp
	movq	%rax, BPF_UNWIND_REGS_SIZE + 0(%rsp)
	movq	%rdi, BPF_UNWIND_REGS_SIZE + 8(%rsp)
	movq	%rsi, BPF_UNWIND_REGS_SIZE + 16(%rsp)
	movq	%rdx, BPF_UNWIND_REGS_SIZE + 24(%rsp)
	movq	%rcx, BPF_UNWIND_REGS_SIZE + 32(%rsp)
	movq	%r8, BPF_UNWIND_REGS_SIZE + 40(%rsp)
	movq	%r9, BPF_UNWIND_REGS_SIZE + 48(%rsp)
	movq	%r10, BPF_UNWIND_REGS_SIZE + 56(%rsp)

	movl	%r11d, %eax
	andl	$BPF_THROW_AGAIN, %eax
	xorq	%rax, %r11
	CAPTURE %r11, CHECKPOINT_REGS
	movq	%rbx, BPF_UNWIND_REGS_saved + 0(%rsp)
	movq	%r12, BPF_UNWIND_REGS_saved + 8(%rsp)
	movq	%r13, BPF_UNWIND_REGS_saved + 16(%rsp)
	movq	%r14, BPF_UNWIND_REGS_saved + 24(%rsp)
	movq	%r15, BPF_UNWIND_REGS_saved + 32(%rsp)

	movq	%rsp, %rdi
	CALL_DEPTH_ACCOUNT
	call	bpf_checkpoint
	testb	%al, %al
	jnz	.Lended

	movq	BPF_UNWIND_REGS_SIZE + 0(%rsp), %rax
	movq	BPF_UNWIND_REGS_SIZE + 8(%rsp), %rdi
	movq	BPF_UNWIND_REGS_SIZE + 16(%rsp), %rsi
	movq	BPF_UNWIND_REGS_SIZE + 24(%rsp), %rdx
	movq	BPF_UNWIND_REGS_SIZE + 32(%rsp), %rcx
	movq	BPF_UNWIND_REGS_SIZE + 40(%rsp), %r8
	movq	BPF_UNWIND_REGS_SIZE + 48(%rsp), %r9
	movq	BPF_UNWIND_REGS_SIZE + 56(%rsp), %r10
	addq	$(BPF_UNWIND_REGS_SIZE + CHECKPOINT_REGS), %rsp
	RET

.Lended:
	GO_ON
SYM_CODE_END(bpf_checkpoint_stub)

/*
 * void bpf_call_release(void (*release)(void *object), void *object)
 *
 * Calls a kfunc whose prototype is known to nobody and which may be sealed
 * against indirect calls, as the call instruction of a program does.
 */
SYM_TYPED_FUNC_START(bpf_call_release)
	movq	%rdi, %r11
	movq	%rsi, %rdi
	RETURN_TO %r11
SYM_FUNC_END(bpf_call_release)
