//! Stands in for bpftool where veristat calls it, as 'bpftool prog dump jited id ID': prints for each
//! function of the program where it lies and its code, both in hexadecimal.

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const BPF_PROG_GET_FD_BY_ID: i64 = 13;
const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;

/// The beginning of `struct bpf_prog_info`, up to what is read here.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind_id_tag: [u32; 4],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    uid_map_ids: [u32; 2],
    map_ids: u64,
    name: [u8; 16],
    ifindex_flags: [u32; 2],
    netns: [u64; 2],
    nr_jited_ksyms: u32,
    nr_jited_func_lens: u32,
    jited_ksyms: u64,
    jited_func_lens: u64,
}

/// `union bpf_attr` of the two commands.
#[repr(C)]
union Attr {
    id: [u32; 4],
    info: (u32, u32, u64),
}

fn bpf(command: i64, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: `attr` is valid for its size, and what it points to for the sizes that it names.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<Attr>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}

fn fill(program: &OwnedFd, info: &mut ProgInfo) -> io::Result<()> {
    let size = size_of::<ProgInfo>() as u32;
    let fd = program.as_raw_fd() as u32;
    let mut attr = Attr {
        info: (fd, size, &raw mut *info as u64),
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

fn main() -> Result<(), Box<dyn Error>> {
    let id = env::args().next_back().ok_or("no id")?.parse()?;
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut Attr { id: [id, 0, 0, 0] })?;
    // SAFETY: the kernel has just opened it, for nobody else.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };

    let mut info = ProgInfo::default();
    fill(&program, &mut info)?;
    let mut code = vec![0_u8; info.jited_prog_len as usize];
    let mut addresses = vec![0_u64; info.nr_jited_ksyms as usize];
    let mut lengths = vec![0_u32; info.nr_jited_func_lens as usize];
    info = ProgInfo {
        jited_prog_len: info.jited_prog_len,
        jited_prog_insns: code.as_mut_ptr() as u64,
        nr_jited_ksyms: info.nr_jited_ksyms,
        jited_ksyms: addresses.as_mut_ptr() as u64,
        nr_jited_func_lens: info.nr_jited_func_lens,
        jited_func_lens: lengths.as_mut_ptr() as u64,
        ..ProgInfo::default()
    };
    fill(&program, &mut info)?;

    let mut rest = &code[..];
    for (address, length) in addresses.iter().zip(lengths) {
        let (function, behind) = rest.split_at_checked(length as usize).ok_or("no code")?;
        rest = behind;
        let mut line = format!("{address:x} ");
        function
            .iter()
            .try_for_each(|byte| write!(line, "{byte:02x}"))?;
        println!("{line}");
    }
    Ok(())
}
