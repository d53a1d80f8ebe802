// SPDX-License-Identifier: GPL-2.0
//! A directory that stands for something of the kernel's, which is gone with it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

pub struct Directory {
    pub path: PathBuf,
}

impl Directory {
    pub fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            println!("{} is still there: {error}", self.path.display());
        }
    }
}
