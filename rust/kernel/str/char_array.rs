// SPDX-License-Identifier: GPL-2.0

//! Strings in fixed arrays of C structures.

use crate::{
    fmt::{
        self,
        Write, //
    },
    prelude::*, //
};
use core::ptr;

/// A copy of a `char` array of a C structure that holds a string.
///
/// It allocates nothing and works in any context. The string may lack its NUL; then it ends with
/// the array. When shown, everything but printable ASCII is escaped.
#[derive(Clone, Copy)]
pub struct CharArray<const N: usize>([u8; N]);

impl<const N: usize> CharArray<N> {
    /// Copies the array, byte by byte, as others may write it meanwhile.
    ///
    /// # Safety
    ///
    /// `array` is valid for reads.
    pub unsafe fn read(array: *const [c_char; N]) -> Self {
        let mut bytes = [0; N];

        for (i, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: By the safety requirements, as `i < N`.
            *byte = unsafe { ptr::read_volatile(array.cast::<u8>().add(i)) };
        }
        Self(bytes)
    }

    /// Returns an iterator over the bytes of the string.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().copied().take_while(|byte| *byte != 0)
    }
}

impl<const N: usize> PartialEq<CStr> for CharArray<N> {
    fn eq(&self, other: &CStr) -> bool {
        self.bytes().eq(other.to_bytes().iter().copied())
    }
}

impl<const N: usize> PartialEq<&CStr> for CharArray<N> {
    fn eq(&self, other: &&CStr) -> bool {
        *self == **other
    }
}

impl<const N: usize> fmt::Display for CharArray<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.bytes() {
            match byte {
                0x20..=0x7e => f.write_char(char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}
