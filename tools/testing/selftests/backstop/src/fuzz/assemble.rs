// SPDX-License-Identifier: GPL-2.0
//! A small assembler: BPF instructions with labels, functions, kfuncs and maps by name.

use std::collections::HashMap;

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys as sys;

/// A register.
pub type Reg = u8;
pub const FP: Reg = 10;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Label(usize);

/// The prototype of a function, as far as the verifier minds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FunctionType {
    Main,
    /// Main, with an exception callback.
    MainCaught,
    Static,
    Global,
    ExceptionCallback,
}

#[derive(Clone, Copy)]
pub enum Condition {
    Equal,
    NotEqual,
    NotLess,
    /// Bits are set.
    Set,
}

enum Op {
    Plain(Insn),
    Jump(Insn, Label),
    /// Of a function.
    Call(Label),
    Kfunc(&'static str),
    /// The address of a function, a map, or what is in a map.
    Function(Reg, Label),
    Map(Reg, &'static str),
    Value(Reg, &'static str, u32),
}

impl Op {
    fn len(&self) -> usize {
        match self {
            Self::Function(..) | Self::Map(..) | Self::Value(..) => 2,
            _ => 1,
        }
    }
}

/// struct bpf_insn
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Insn {
    code: u32,
    dst: Reg,
    src: u32,
    off: i16,
    imm: i32,
}

impl Insn {
    fn new(code: u32, dst: Reg, src: u32, off: i16, imm: i32) -> Self {
        Self {
            code,
            dst,
            src,
            off,
            imm,
        }
    }

    /// As it lies in memory.
    fn word(self) -> u64 {
        u64::from(self.code as u8)
            | (u64::from(self.dst & 15) << 8)
            | (u64::from(self.src & 15) << 12)
            | (u64::from(self.off as u16) << 16)
            | (u64::from(self.imm as u32) << 32)
    }
}

/// What names mean on this machine.
pub trait Names {
    /// BTF id, and the place of its module in the array of descriptors.
    fn kfunc(&self, name: &str) -> Result<(i32, i16)>;
    fn map(&self, name: &str) -> Result<i32>;
    fn function_type(&self, of: FunctionType) -> u32;
    /// The BTF id of a type of the program.
    fn local_type(&self, name: &str) -> Result<i32>;
}

/// What the kernel loads.
pub struct Linked {
    pub insns: Vec<u64>,
    /// struct bpf_func_info: the first instruction and the type of each function.
    pub functions: Vec<[u32; 2]>,
}

#[derive(Default)]
pub struct Assembler {
    ops: Vec<Op>,
    /// The op that each label stands before.
    labels: Vec<Option<usize>>,
    functions: Vec<(Label, FunctionType)>,
    /// Immediates that are the ids of types.
    types: Vec<(usize, &'static str)>,
}

impl Assembler {
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.ops.len());
    }

    pub fn begin(&mut self, function: Label, of: FunctionType) {
        self.place(function);
        self.functions.push((function, of));
    }

    fn plain(&mut self, code: u32, dst: Reg, src: Reg, off: i16, imm: i32) {
        let insn = Insn::new(code, dst, u32::from(src), off, imm);
        self.ops.push(Op::Plain(insn));
    }

    pub fn copy(&mut self, dst: Reg, src: Reg) {
        self.plain(sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_X, dst, src, 0, 0);
    }

    pub fn set(&mut self, dst: Reg, value: i32) {
        self.plain(sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_K, dst, 0, 0, value);
    }

    /// The id of a type of the program.
    pub fn set_type(&mut self, dst: Reg, name: &'static str) {
        self.types.push((self.ops.len(), name));
        self.set(dst, 0);
    }

    pub fn add(&mut self, dst: Reg, value: i32) {
        self.plain(sys::BPF_ALU64 | sys::BPF_ADD | sys::BPF_K, dst, 0, 0, value);
    }

    pub fn add_register(&mut self, dst: Reg, src: Reg) {
        self.plain(sys::BPF_ALU64 | sys::BPF_ADD | sys::BPF_X, dst, src, 0, 0);
    }

    pub fn multiply(&mut self, dst: Reg, value: i32) {
        self.plain(sys::BPF_ALU64 | sys::BPF_MUL | sys::BPF_K, dst, 0, 0, value);
    }

    pub fn load(&mut self, dst: Reg, src: Reg, off: i16) {
        self.plain(sys::BPF_LDX | sys::BPF_MEM | sys::BPF_DW, dst, src, off, 0);
    }

    pub fn load_word(&mut self, dst: Reg, src: Reg, off: i16) {
        self.plain(sys::BPF_LDX | sys::BPF_MEM | sys::BPF_W, dst, src, off, 0);
    }

    pub fn store(&mut self, dst: Reg, off: i16, src: Reg) {
        self.plain(sys::BPF_STX | sys::BPF_MEM | sys::BPF_DW, dst, src, off, 0);
    }

    pub fn store_word(&mut self, dst: Reg, off: i16, src: Reg) {
        self.plain(sys::BPF_STX | sys::BPF_MEM | sys::BPF_W, dst, src, off, 0);
    }

    pub fn store_value(&mut self, dst: Reg, off: i16, value: i32) {
        self.plain(sys::BPF_ST | sys::BPF_MEM | sys::BPF_DW, dst, 0, off, value);
    }

    pub fn jump(&mut self, to: Label) {
        let insn = Insn::new(sys::BPF_JMP | sys::BPF_JA, 0, 0, 0, 0);
        self.ops.push(Op::Jump(insn, to));
    }

    pub fn jump_if(&mut self, dst: Reg, condition: Condition, value: i32, to: Label) {
        let op = match condition {
            Condition::Equal => sys::BPF_JEQ,
            Condition::NotEqual => sys::BPF_JNE,
            Condition::NotLess => sys::BPF_JGE,
            Condition::Set => sys::BPF_JSET,
        };
        let insn = Insn::new(sys::BPF_JMP | op | sys::BPF_K, dst, 0, 0, value);
        self.ops.push(Op::Jump(insn, to));
    }

    /// Goes there once the loop has made as many rounds as it may.
    pub fn may_goto(&mut self, to: Label) {
        let insn = Insn::new(sys::BPF_JMP | sys::BPF_JCOND, 0, sys::BPF_MAY_GOTO, 0, 0);
        self.ops.push(Op::Jump(insn, to));
    }

    pub fn helper(&mut self, id: u32) {
        self.plain(sys::BPF_JMP | sys::BPF_CALL, 0, 0, 0, id as i32);
    }

    pub fn kfunc(&mut self, name: &'static str) {
        self.ops.push(Op::Kfunc(name));
    }

    pub fn call(&mut self, function: Label) {
        self.ops.push(Op::Call(function));
    }

    pub fn function(&mut self, dst: Reg, function: Label) {
        self.ops.push(Op::Function(dst, function));
    }

    pub fn map(&mut self, dst: Reg, name: &'static str) {
        self.ops.push(Op::Map(dst, name));
    }

    pub fn value(&mut self, dst: Reg, map: &'static str, off: u32) {
        self.ops.push(Op::Value(dst, map, off));
    }

    pub fn exit(&mut self) {
        self.plain(sys::BPF_JMP | sys::BPF_EXIT, 0, 0, 0, 0);
    }

    pub fn link(&self, names: &impl Names) -> Result<Linked> {
        let mut at = Vec::with_capacity(self.ops.len() + 1);
        let mut len = 0;
        for op in &self.ops {
            at.push(len);
            len += op.len();
        }
        at.push(len);
        let target = |label: Label| {
            let op = self.labels[label.0].context("a label without a place")?;
            Ok::<_, anyhow::Error>(at[op] as i32)
        };
        let types: HashMap<_, _> = self.types.iter().copied().collect();

        let mut insns = Vec::with_capacity(len);
        for (index, op) in self.ops.iter().enumerate() {
            let next = insns.len() as i32 + 1;
            match *op {
                Op::Plain(mut insn) => {
                    if let Some(name) = types.get(&index) {
                        insn.imm = names.local_type(name)?;
                    }
                    insns.push(insn.word());
                }
                Op::Jump(mut insn, to) => {
                    insn.off = i16::try_from(target(to)? - next).context("a jump too far")?;
                    insns.push(insn.word());
                }
                Op::Call(to) => {
                    let code = sys::BPF_JMP | sys::BPF_CALL;
                    let offset = target(to)? - next;
                    insns.push(Insn::new(code, 0, sys::BPF_PSEUDO_CALL, 0, offset).word());
                }
                Op::Kfunc(name) => {
                    let (id, module) = names.kfunc(name)?;
                    let code = sys::BPF_JMP | sys::BPF_CALL;
                    let src = sys::BPF_PSEUDO_KFUNC_CALL;
                    insns.push(Insn::new(code, 0, src, module, id).word());
                }
                Op::Function(dst, to) => {
                    let offset = target(to)? - next;
                    insns.extend(address(dst, sys::BPF_PSEUDO_FUNC, offset, 0));
                }
                Op::Map(dst, name) => {
                    insns.extend(address(dst, sys::BPF_PSEUDO_MAP_FD, names.map(name)?, 0));
                }
                Op::Value(dst, name, off) => {
                    let fd = names.map(name)?;
                    insns.extend(address(dst, sys::BPF_PSEUDO_MAP_VALUE, fd, off as i32));
                }
            }
        }
        let functions = self
            .functions
            .iter()
            .map(|&(label, of)| Ok([target(label)? as u32, names.function_type(of)]));
        Ok(Linked {
            insns,
            functions: functions.collect::<Result<_>>()?,
        })
    }
}

/// The two instructions that load 64 bits.
fn address(dst: Reg, src: u32, low: i32, high: i32) -> [u64; 2] {
    let code = sys::BPF_LD | sys::BPF_IMM | sys::BPF_DW;
    [
        Insn::new(code, dst, src, 0, low).word(),
        Insn::new(0, 0, 0, 0, high).word(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Names for Nothing {
        fn kfunc(&self, _: &str) -> Result<(i32, i16)> {
            Ok((0x55, 1))
        }

        fn map(&self, _: &str) -> Result<i32> {
            Ok(7)
        }

        fn function_type(&self, of: FunctionType) -> u32 {
            of as u32
        }

        fn local_type(&self, _: &str) -> Result<i32> {
            Ok(9)
        }
    }

    #[test]
    fn instructions_are_encoded() {
        let mut asm = Assembler::default();
        let (main, callee, end) = (asm.label(), asm.label(), asm.label());
        asm.begin(main, FunctionType::Main);
        asm.load(2, 1, -8);
        asm.jump_if(2, Condition::Equal, 3, end);
        asm.value(1, "map", 4);
        asm.call(callee);
        asm.place(end);
        asm.exit();
        asm.begin(callee, FunctionType::Static);
        let (again, over) = (asm.label(), asm.label());
        asm.place(again);
        asm.may_goto(over);
        asm.jump(again);
        asm.place(over);
        asm.set_type(1, "type");
        asm.kfunc("kfunc");
        asm.exit();
        let linked = asm.link(&Nothing).unwrap();
        assert_eq!(
            linked.insns,
            [
                0x0000_0000_fff8_1279,
                0x0000_0003_0003_0215,
                0x0000_0007_0000_2118,
                0x0000_0004_0000_0000,
                0x0000_0001_0000_1085,
                0x0000_0000_0000_0095,
                0x0000_0000_0001_00e5,
                0x0000_0000_fffe_0005,
                0x0000_0009_0000_01b7,
                0x0000_0055_0001_2085,
                0x0000_0000_0000_0095,
            ]
        );
        assert_eq!(linked.functions, [[0, 0], [6, 2]]);
        let mut open = Assembler::default();
        let nowhere = open.label();
        open.jump(nowhere);
        assert!(open.link(&Nothing).is_err());
    }
}
