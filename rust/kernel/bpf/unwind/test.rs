// SPDX-License-Identifier: GPL-2.0

//! Tests of unwinding, on stacks made by hand.

#[macros::kunit_tests(rust_bpf_unwind)]
mod tests {
    use super::super::*;
    use crate::{
        alloc::flags::GFP_KERNEL,
        bindings,
        interrupt::local_interrupt_disable,
        prelude::*, //
    };
    use core::mem::size_of;

    /// Functions of the program, by their numbers.
    const MAIN: usize = 0;
    const SUBPROG: usize = 1;
    const INNER: usize = 2;
    const CALLBACK: usize = 3;
    const TIMER: usize = 4;
    const FUNCTIONS: usize = 5;

    const COOKIE: u64 = 0xc00c1e;
    const STOP: u64 = 1;
    /// Addresses outside of the program.
    const KERNEL: usize = 0x100;

    /// Bytes of each frame: slots, what is pending, and saved registers, downwards.
    const AREA: usize = 8 * 8;
    const PENDING: usize = AREA + 16;
    const SAVED: usize = PENDING + 5 * 8;

    fn code(function: usize) -> usize {
        0x1000 + 0x100 * function
    }

    /// An address behind a call in a function.
    fn inside(function: usize) -> usize {
        code(function) + 0x40
    }

    /// A program that has slots of its own in each boundary.
    struct Fake {
        functions: KBox<[bindings::bpf_unwind_func; FUNCTIONS]>,
        /// `struct bpf_unwind_table` with its slots.
        _table: KVec<u64>,
        aux: KBox<bindings::bpf_prog_aux>,
    }

    /// # Safety
    ///
    /// Anybody may call it: it is unsafe only by its type.
    unsafe extern "C" fn exception_callback(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
        0
    }

    impl Fake {
        fn new() -> Result<Self> {
            let mut functions = KBox::new(
                [bindings::bpf_unwind_func::default(); FUNCTIONS],
                GFP_KERNEL,
            )?;

            for (i, function) in functions.iter_mut().enumerate() {
                function.start = code(i);
                function.end = code(i + 1);
                function.boundary = match i {
                    MAIN => bindings::bpf_unwind_boundary_BPF_UNWIND_MAIN as u8,
                    CALLBACK => bindings::bpf_unwind_boundary_BPF_UNWIND_CALLBACK as u8,
                    TIMER => bindings::bpf_unwind_boundary_BPF_UNWIND_ASYNC as u8,
                    _ => bindings::bpf_unwind_boundary_BPF_UNWIND_NO_BOUNDARY as u8,
                };
                function.saved = SAVED as u16;
                function.saved_regs = 0b11111;
                function.area = AREA as u16;
                function.pending = PENDING as u16;
                function.slots = 0b1011;
                function.stop = STOP;
            }

            let words = size_of::<bindings::bpf_unwind_table>() / 8;
            let slots = 4 * size_of::<bindings::bpf_unwind_slot>() / 8;
            let mut table = KVec::from_elem(0u64, words + slots, GFP_KERNEL)?;
            let raw = table.as_mut_ptr().cast::<bindings::bpf_unwind_table>();
            // SAFETY: There is room for the table and four slots.
            unsafe {
                (*raw).nr_funcs = FUNCTIONS as u32;
                (*raw).nr_slots = 4;
                (*raw).funcs = functions.as_mut_ptr();
                let slots = (&raw mut (*raw).slots).cast::<bindings::bpf_unwind_slot>();
                for i in 0..4 {
                    (*slots.add(i)).kind = bindings::bpf_unwind_kind_BPF_UNWIND_PREEMPT;
                    (*slots.add(i)).insn_idx = i as i32;
                    (*slots.add(i)).name = c"slot".as_char_ptr();
                }
            }

            let mut aux =
                KBox::<bindings::bpf_prog_aux>::init(pin_init::init_zeroed(), GFP_KERNEL)?;
            aux.unwind = raw;
            aux.bpf_exception_cb = Some(exception_callback);
            Ok(Self {
                functions,
                _table: table,
                aux,
            })
        }

        fn throw(&mut self, stack: &Stack, ip: usize) -> bindings::bpf_unwind_regs {
            bindings::bpf_unwind_regs {
                cookie: COOKIE,
                aux: &raw mut *self.aux,
                ip: ip as u64,
                sp: stack.sp() as u64,
                bp: stack.fp as u64,
                ..Default::default()
            }
        }
    }

    /// A stack, which grows downwards. It must not be moved once there is something on it.
    struct Stack {
        words: [usize; 128],
        top: usize,
        fp: usize,
    }

    impl Stack {
        fn new() -> Self {
            Self {
                words: [0; 128],
                top: 128,
                fp: 0xf9,
            }
        }

        fn sp(&self) -> usize {
            self.words.as_ptr() as usize + 8 * self.top
        }

        fn push(&mut self, word: usize) {
            self.top -= 1;
            self.words[self.top] = word;
        }

        fn at(&mut self, address: usize) -> &mut usize {
            let i = (address - self.words.as_ptr() as usize) / 8;
            &mut self.words[i]
        }

        /// Enters a function that returns to `ip`; returns its frame pointer.
        fn enter(&mut self, ip: usize) -> usize {
            self.push(ip);
            self.push(self.fp);
            self.fp = self.sp();
            self.top -= SAVED / 8;
            // r15, r14, r13, rbx, r12
            for i in 0..5 {
                self.words[self.top + i] = self.fp + i;
            }
            self.fp
        }

        /// Enters the trampoline of a function that is called from `ip`.
        fn trace(&mut self, ip: usize, skip: Option<usize>) -> usize {
            self.push(ip);
            if let Some(skip) = skip {
                self.push(skip);
            }
            self.push(self.fp);
            self.fp = self.sp();
            self.top -= 4;
            self.fp
        }

        fn set_slot(&mut self, fp: usize, i: usize, content: usize) {
            *self.at(fp - AREA + 8 * i) = content;
        }

        fn slot(&mut self, fp: usize, i: usize) -> usize {
            *self.at(fp - AREA + 8 * i)
        }
    }

    fn saved_registers(fp: usize) -> [u64; 5] {
        // rbx, r12, r13, r14, r15
        [fp + 3, fp + 4, fp + 2, fp + 1, fp].map(|word| word as u64)
    }

    /// Walks, and goes on with `mark`. Returns the frames and what was held.
    fn unwind(
        regs: &mut bindings::bpf_unwind_regs,
        mark: bool,
    ) -> Option<(u32, KVec<(u32, usize)>)> {
        // SAFETY: The registers are those of a program with a table.
        let throw = unsafe { Throw::from_raw(regs) };
        let walk = {
            // On no stack of the task, the kernel's unwinder looks at those of the CPU.
            let _guard = local_interrupt_disable();

            throw.walk()?
        };
        let mut held = KVec::new();

        for (i, slot, content) in walk.take_held(throw.table()) {
            assert_eq!(slot.acquired_by(), Some(i));
            let _ = held.push((i, content), GFP_KERNEL);
        }
        let frames = walk.frames();
        throw.go_on(walk, mark);
        Some((frames, held))
    }

    #[test]
    fn main_finishes_in_the_exception_callback() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let main = stack.enter(KERNEL);
        let mut regs = fake.throw(&stack, inside(MAIN));

        let (frames, held) = unwind(&mut regs, false).ok_or(EINVAL)?;
        assert_eq!(frames, 1);
        assert!(held.is_empty());
        assert_eq!(regs.ip, exception_callback as usize as u64);
        assert_eq!(regs.bp, main as u64);
        assert_eq!(regs.sp, (main - SAVED) as u64);
        assert_eq!(regs.args, [COOKIE, regs.sp, regs.bp]);
        Ok(())
    }

    #[test]
    fn held_is_taken_from_the_boundary_in_order() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let main = stack.enter(KERNEL);
        let subprog = stack.enter(inside(MAIN));
        let inner = stack.enter(inside(SUBPROG));

        stack.set_slot(main, 3, 33);
        stack.set_slot(main, 0, 11);
        // Not one of its slots, though there is something in it.
        stack.set_slot(main, 2, 22);
        stack.set_slot(subprog, 0, 44);
        stack.set_slot(inner, 0, 55);
        let mut regs = fake.throw(&stack, inside(INNER));

        let (frames, held) = unwind(&mut regs, false).ok_or(EINVAL)?;
        assert_eq!(frames, 3);
        assert_eq!(held.as_slice(), &[(0, 11), (3, 33)]);
        assert_eq!(stack.slot(main, 0), 0);
        assert_eq!(stack.slot(main, 3), 0);
        assert_eq!(stack.slot(main, 2), 22);
        assert_eq!(stack.slot(subprog, 0), 44);
        assert_eq!(stack.slot(inner, 0), 55);
        assert_eq!(regs.bp, main as u64);
        Ok(())
    }

    #[test]
    fn call_may_be_the_last_instruction() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let main = stack.enter(KERNEL);
        stack.enter(code(MAIN + 1));
        // Behind the end of the subprogram, where the next begins.
        let mut regs = fake.throw(&stack, code(SUBPROG + 1));

        let (frames, _) = unwind(&mut regs, false).ok_or(EINVAL)?;
        assert_eq!(frames, 2);
        assert_eq!(regs.bp, main as u64);
        Ok(())
    }

    #[test]
    fn code_ends_where_it_ends() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let _ = stack.enter(KERNEL);

        for ip in [0, 1, code(0), code(FUNCTIONS) + 1, usize::MAX] {
            let mut regs = fake.throw(&stack, ip);
            assert!(unwind(&mut regs, false).is_none());
        }
        Ok(())
    }

    #[test]
    fn callback_ends_and_leaves_the_throw_pending() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let main = stack.enter(KERNEL);
        // As an inlined bpf_loop() calls it.
        let subprog = stack.enter(inside(MAIN));
        let caller_sp = stack.sp();
        let callback = stack.enter(inside(SUBPROG));
        let _ = stack.enter(inside(CALLBACK));

        stack.set_slot(main, 0, 11);
        stack.set_slot(callback, 1, 22);
        let mut regs = fake.throw(&stack, inside(INNER));

        let (frames, held) = unwind(&mut regs, true).ok_or(EINVAL)?;
        assert_eq!(frames, 2);
        assert_eq!(held.as_slice(), &[(1, 22)]);
        assert_eq!(stack.slot(main, 0), 11);
        assert_eq!(regs.ip, inside(SUBPROG) as u64);
        assert_eq!(regs.sp, caller_sp as u64);
        assert_eq!(regs.bp, subprog as u64);
        assert_eq!(regs.ret, STOP);
        assert_eq!(regs.saved, saved_registers(callback));
        assert!(*stack.at(subprog - PENDING) != 0);
        assert_eq!(*stack.at(subprog - PENDING + 8), COOKIE as usize);

        // The caller finds it, and throws again.
        stack.fp = subprog;
        let mut regs = fake.throw(&stack, inside(SUBPROG));
        regs.ret = bindings::BPF_THROW_AGAIN.into();
        // SAFETY: The registers are those of a program with a table.
        assert_eq!(unsafe { Throw::from_raw(&mut regs) }.goes_on(), Some(true));
        let (frames, held) = unwind(&mut regs, false).ok_or(EINVAL)?;
        assert_eq!(frames, 2);
        assert_eq!(held.as_slice(), &[(0, 11)]);
        Ok(())
    }

    #[test]
    fn callback_of_a_helper() -> Result {
        extern "C" {
            fn bpf_call_release();
            fn bpf_throw_stub();
        }

        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        // Where ORC finds a function that has pushed nothing, called by what is no code of BPF but
        // code of the kernel, which ORC requires.
        let helper = bpf_call_release as usize;
        fake.functions[TIMER].start = bpf_throw_stub as usize;
        fake.functions[TIMER].end = bpf_throw_stub as usize + 16;
        fake.functions[TIMER].boundary = 0;

        let _ = stack.enter(KERNEL);
        let caller = stack.enter(inside(MAIN));
        stack.push(bpf_throw_stub as usize + 8);
        let helper_sp = stack.sp();
        let callback = stack.enter(helper);
        stack.set_slot(callback, 0, 11);
        let mut regs = fake.throw(&stack, inside(CALLBACK));

        let (_, held) = unwind(&mut regs, false).ok_or(EINVAL)?;
        assert_eq!(held.as_slice(), &[(0, 11)]);
        assert_eq!(regs.ip, helper as u64);
        assert_eq!(regs.sp, helper_sp as u64);
        assert_eq!(regs.bp, caller as u64);
        assert!(*stack.at(caller - PENDING) != 0);
        Ok(())
    }

    #[test]
    fn callback_without_a_caller_is_left_alone() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let callback = stack.enter(KERNEL);
        stack.set_slot(callback, 0, 11);
        let mut regs = fake.throw(&stack, inside(CALLBACK));

        assert!(unwind(&mut regs, false).is_none());
        assert_eq!(stack.slot(callback, 0), 11);
        assert_eq!(regs.ip, inside(CALLBACK) as u64);
        Ok(())
    }

    #[test]
    fn timer_ends() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let kernel_sp = stack.sp();
        let timer = stack.enter(KERNEL);
        let _ = stack.enter(inside(TIMER));
        stack.set_slot(timer, 0, 11);
        let mut regs = fake.throw(&stack, inside(INNER));

        let (frames, held) = unwind(&mut regs, false).ok_or(EINVAL)?;
        assert_eq!(frames, 2);
        assert_eq!(held.as_slice(), &[(0, 11)]);
        assert_eq!((regs.ip, regs.ret), (KERNEL as u64, STOP));
        assert_eq!(regs.sp, kernel_sp as u64);
        assert_eq!(regs.bp, 0xf9);
        assert_eq!(regs.saved, saved_registers(timer));
        Ok(())
    }

    /// A traced function ends; its trampoline returns to where the throw goes on.
    fn check_traced(skip: Option<usize>) -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let main = stack.enter(KERNEL);
        stack.set_slot(main, 0, 11);
        stack.push(0);
        stack.top += 1;
        let caller_sp = stack.sp();
        let trampoline = stack.trace(inside(MAIN), skip);
        let trampoline_sp = stack.sp();
        let _ = stack.enter(KERNEL);
        let _ = stack.enter(inside(SUBPROG));
        let mut regs = fake.throw(&stack, inside(INNER));

        // What is on the stack of the traced function would be overwritten by its trampoline.
        let (frames, held) = unwind(&mut regs, true).ok_or(EINVAL)?;
        assert_eq!(frames, 2);
        assert_eq!(held.as_slice(), &[(0, 11)]);
        assert_eq!(
            *stack.at(caller_sp - 8),
            bindings::bpf_throw_resume as usize
        );
        assert_eq!((regs.ip, regs.ret), (KERNEL as u64, 0));
        assert_eq!(regs.sp, trampoline_sp as u64);
        assert_eq!(regs.bp, trampoline as u64);
        // r12, r13, r14: what bpf_throw_resume() throws with; r15: what it tells.
        assert_eq!(
            regs.saved[1..4],
            [COOKIE, &raw mut *fake.aux as u64, inside(MAIN) as u64]
        );

        let state = regs.saved[4];
        stack.fp = main;
        let mut regs = fake.throw(&stack, inside(MAIN));
        regs.ret = state;
        // SAFETY: The registers are those of a program with a table.
        assert_eq!(unsafe { Throw::from_raw(&mut regs) }.goes_on(), Some(true));
        let (frames, held) = unwind(&mut regs, false).ok_or(EINVAL)?;
        assert_eq!(frames, 1);
        assert!(held.is_empty());
        assert_eq!(regs.bp, main as u64);
        Ok(())
    }

    #[test]
    fn traced_function_ends_in_its_trampoline() -> Result {
        check_traced(Some(code(SUBPROG) + 9))
    }

    #[test]
    fn traced_function_that_has_jumped_to_its_trampoline() -> Result {
        check_traced(None)
    }

    #[test]
    fn what_an_exception_callback_calls_is_left_alone() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        fake.functions[SUBPROG].boundary = bindings::bpf_unwind_boundary_BPF_UNWIND_EXCEPTION as u8;
        let _ = stack.enter(KERNEL);
        // What its caller has in the register for frames looks like that of a trampoline.
        let _ = stack.trace(inside(MAIN), None);
        let _ = stack.enter(KERNEL);
        let _ = stack.enter(inside(SUBPROG));

        let mut regs = fake.throw(&stack, inside(INNER));
        assert!(unwind(&mut regs, false).is_none());
        Ok(())
    }

    #[test]
    fn no_boundary_without_a_trampoline_is_left_alone() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        // Its caller's frame pointer is no address.
        let _ = stack.enter(KERNEL);
        let mut regs = fake.throw(&stack, inside(SUBPROG));
        assert!(unwind(&mut regs, false).is_none());

        // Its caller has a frame, but what that returns to is not in the program.
        let outside = stack.enter(KERNEL);
        let _ = stack.enter(KERNEL);
        let mut regs = fake.throw(&stack, inside(SUBPROG));
        assert!(unwind(&mut regs, false).is_none());
        assert_eq!(*stack.at(outside + 8), KERNEL);
        Ok(())
    }

    #[test]
    fn first_part_goes_on_from_nothing() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let main = stack.enter(KERNEL);
        // Left there by a throw that ended here before.
        *stack.at(main - PENDING) = 5;
        *stack.at(main - PENDING + 8) = COOKIE as usize;
        let mut regs = fake.throw(&stack, inside(MAIN));

        // SAFETY: The registers are those of a program with a table.
        assert_eq!(unsafe { Throw::from_raw(&mut regs) }.goes_on(), None);
        Ok(())
    }

    #[test]
    fn private_stack_has_the_slots() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let main = stack.enter(KERNEL);
        // SAFETY: Any size may be asked for.
        let private = unsafe { bindings::pcpu_alloc_noprof(AREA, 8, false, bindings::GFP_KERNEL) };
        if private.is_null() {
            return Err(ENOMEM);
        }
        fake.functions[MAIN].private_stack = private.wrapping_byte_add(AREA);
        stack.set_slot(main, 0, 11);
        // SAFETY: Safe while this does not migrate.
        unsafe { bindings::migrate_disable() };
        // SAFETY: There is room for `AREA` bytes.
        unsafe { *bindings::this_cpu_ptr(private).cast::<usize>() = 22 };

        let mut regs = fake.throw(&stack, inside(MAIN));
        let held = unwind(&mut regs, false);

        // SAFETY: Disabled above, allocated above.
        unsafe {
            bindings::migrate_enable();
            bindings::free_percpu(private);
        }
        assert_eq!(held.ok_or(EINVAL)?.1.as_slice(), &[(0, 22)]);
        assert_eq!(stack.slot(main, 0), 11);
        assert_eq!(regs.bp, main as u64);
        Ok(())
    }

    #[test]
    fn giving_up_calls_bpf_throw() -> Result {
        let (mut fake, mut stack) = (Fake::new()?, Stack::new());
        let _ = stack.enter(KERNEL);
        let mut regs = fake.throw(&stack, 0);

        // SAFETY: The registers are those of a program with a table.
        unsafe { Throw::from_raw(&mut regs) }.give_up();
        assert_eq!(regs.sp, (stack.sp() - 8) as u64);
        assert_eq!(regs.bp, stack.fp as u64);
        assert_eq!(regs.args[0], COOKIE);
        Ok(())
    }
}
