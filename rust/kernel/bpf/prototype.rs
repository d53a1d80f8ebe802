// SPDX-License-Identifier: GPL-2.0

//! The prototype of a kfunc as text, from which the build makes its BTF.
//!
//! The text is the C prototype of the kfunc, laid down in the section `.BTF_kfuncs`. There
//! `resolve_btfids` finds it, and adds the function to the BTF of the module or of vmlinux. The
//! top of `tools/bpf/resolve_btfids/main.c` describes the format.
//!
//! Everything here runs in the compiler.

/// Returns the length of the pieces put together.
pub const fn len(pieces: &[&str]) -> usize {
    let mut len = 0;
    let mut i = 0;

    while i < pieces.len() {
        len += pieces[i].len();
        i += 1;
    }
    len
}

/// Puts the pieces together; `N` is their [`len`].
pub const fn concat<const N: usize>(pieces: &[&str]) -> [u8; N] {
    let mut text = [0; N];
    let mut at = 0;
    let mut i = 0;

    while i < pieces.len() {
        let piece = pieces[i].as_bytes();
        let mut j = 0;

        while j < piece.len() {
            text[at] = piece[j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    text
}

/// Returns whether two names are the same.
pub const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;

    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}
