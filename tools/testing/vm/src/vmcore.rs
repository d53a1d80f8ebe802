//! Reads what proves a crash dump: the release in its vmcoreinfo, and the log of the crashed kernel.
//!
//! The format is the compressed one that makedumpfile writes: a header, then at the second block a
//! sub-header that says where vmcoreinfo lies.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host;

#[derive(Debug)]
pub struct Dump {
    pub release: String,
    pub dmesg: String,
}

const SIGNATURE: &[u8] = b"KDUMP   ";
const BLOCK_SIZE: u64 = 428;
const INFO_OFFSET: u64 = 32;
const INFO_SIZE: u64 = 40;
/// No vmcoreinfo is larger than this.
const INFO_LIMIT: u64 = 1 << 20;

pub fn read(path: &Path) -> Result<Dump> {
    let file = File::open(path).context("cannot open")?;
    let info = vmcoreinfo(&file)?;
    let release = info
        .lines()
        .find_map(|line| line.strip_prefix("OSRELEASE="));
    Ok(Dump {
        release: release.context("no OSRELEASE in vmcoreinfo")?.to_owned(),
        dmesg: dmesg(path)?,
    })
}

fn vmcoreinfo(file: &File) -> Result<String> {
    let mut signature = [0; SIGNATURE.len()];
    file.read_exact_at(&mut signature, 0).context("no header")?;
    ensure!(signature == SIGNATURE, "not a compressed kdump file");
    let mut block = [0; 4];
    file.read_exact_at(&mut block, BLOCK_SIZE)
        .context("no header")?;
    let block = u64::from(u32::from_le_bytes(block));
    let field = |offset| -> Result<u64> {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, block + offset)
            .context("no sub-header")?;
        Ok(u64::from_le_bytes(bytes))
    };
    let size = field(INFO_SIZE)?;
    ensure!(
        (1..=INFO_LIMIT).contains(&size),
        "vmcoreinfo of {size} bytes"
    );
    let mut info = vec![0; usize::try_from(size)?];
    file.read_exact_at(&mut info, field(INFO_OFFSET)?)
        .context("no vmcoreinfo")?;
    Ok(String::from_utf8_lossy(&info).into_owned())
}

/// The log, taken from the dump and left beside it.
fn dmesg(path: &Path) -> Result<String> {
    let log = path.with_file_name("dmesg");
    let mut makedumpfile = Command::new("makedumpfile");
    makedumpfile
        .args(["-f", "--message-level", "4", "--dump-dmesg"])
        .args([path, &log]);
    host::output(&mut makedumpfile).context("cannot read the log")?;
    let log = std::fs::read(&log).context("makedumpfile wrote no log")?;
    Ok(String::from_utf8_lossy(&log).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(info: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(SIGNATURE, 0).unwrap();
        file.write_all_at(&4096u32.to_le_bytes(), BLOCK_SIZE)
            .unwrap();
        file.write_all_at(&8192u64.to_le_bytes(), 4096 + INFO_OFFSET)
            .unwrap();
        file.write_all_at(&(info.len() as u64).to_le_bytes(), 4096 + INFO_SIZE)
            .unwrap();
        file.write_all_at(info, 8192).unwrap();
        file
    }

    #[test]
    fn vmcoreinfo_is_found() {
        let info = "OSRELEASE=7.3.4-backstop\nPAGESIZE=4096\n";
        assert_eq!(vmcoreinfo(&dump(info.as_bytes())).unwrap(), info);
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(vmcoreinfo(&file).is_err());
        file.write_all_at(b"\x7fELF____", 0).unwrap();
        assert!(
            vmcoreinfo(&file)
                .unwrap_err()
                .to_string()
                .contains("not a compressed")
        );
        assert!(vmcoreinfo(&dump(b"")).is_err());
    }
}
