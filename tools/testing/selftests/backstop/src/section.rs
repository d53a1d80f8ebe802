// SPDX-License-Identifier: GPL-2.0
//! The variables of a section of a loaded object, which are the only value of a map.

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object as LoadedObject};

use crate::loaded::map;

const KEY: [u8; 4] = 0u32.to_ne_bytes();

pub struct Section {
    map: MapHandle,
}

impl Section {
    pub fn of(object: &LoadedObject, name: &str) -> Result<Self> {
        Ok(Self {
            map: map(object, name)?,
        })
    }

    pub fn read(&self) -> Result<Vec<u8>> {
        let value = self.map.lookup(&KEY, MapFlags::ANY)?;
        value.context("the section has no value")
    }

    /// Those of a section that consists of so many.
    pub fn words<const N: usize>(&self) -> Result<[u64; N]> {
        let bytes = self.read()?;
        let words = bytes
            .chunks(8)
            .map(|word| word.try_into().map(u64::from_ne_bytes));
        let words: Option<Vec<_>> = words.map(Result::ok).collect();
        words
            .and_then(|words| words.try_into().ok())
            .with_context(|| format!("{} bytes, not {N} words", bytes.len()))
    }

    /// Sets all of it: what comes behind these bytes is 0.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut value = vec![0; self.map.value_size() as usize];
        value
            .get_mut(..bytes.len())
            .context("more than the section has")?
            .copy_from_slice(bytes);
        Ok(self.map.update(&KEY, &value, MapFlags::ANY)?)
    }
}
