//! Makes initramfs archives: busybox, programs with the libraries they need, modules, scripts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cpio::newc::{Builder, ModeFileType, trailer};

enum Entry {
    Directory,
    File { mode: u32, content: Vec<u8> },
    Symlink(String),
}

/// An archive in the making. Paths are absolute, parents come by themselves.
#[derive(Default)]
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// Busybox with all its applets, and the scripts every guest needs.
    pub fn base() -> Result<Self> {
        let mut archive = Self::default();
        for dir in ["/dev", "/proc", "/sys", "/tmp", "/run", "/root"] {
            archive.directory(dir);
        }
        let busybox = which("busybox")?;
        archive.file("/bin/busybox", 0o755, read(&busybox)?);
        let applets = Command::new(&busybox).arg("--list-full").output();
        let applets = applets.context("busybox does not run")?.stdout;
        for applet in String::from_utf8_lossy(&applets).lines() {
            let path = format!("/{applet}");
            if path != "/bin/busybox" {
                archive.symlink(&path, "/bin/busybox");
            }
        }
        archive.script("/init", include_str!("../guest/init"));
        archive.script("/sbin/capture", include_str!("../guest/capture"));
        archive.file("/etc/modules", 0o644, Vec::new());
        Ok(archive)
    }

    /// What the crash kernel needs: busybox and makedumpfile.
    pub fn crash() -> Result<Self> {
        let mut archive = Self::base()?;
        archive.program("/usr/bin/makedumpfile", &which("makedumpfile")?)?;
        Ok(archive)
    }

    /// What a guest that can run tests and load a crash kernel needs.
    pub fn guest() -> Result<Self> {
        let mut archive = Self::base()?;
        archive.program("/sbin/kexec", &which("kexec")?)?;
        archive.script(
            "/sbin/load-crash-kernel",
            include_str!("../guest/load-crash-kernel"),
        );
        Ok(archive)
    }

    pub fn directory(&mut self, path: &str) {
        self.insert(path, Entry::Directory);
    }

    pub fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, Entry::Symlink(target.to_owned()));
    }

    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.insert(path, Entry::File { mode, content });
    }

    pub fn script(&mut self, path: &str, text: &str) {
        self.file(path, 0o755, text.into());
    }

    /// An executable file, and at their own paths the shared libraries it names.
    pub fn program(&mut self, path: &str, source: &Path) -> Result<()> {
        self.file(path, 0o755, read(source)?);
        self.libraries(source)
    }

    /// The shared libraries that a program names, at their own paths.
    pub fn libraries(&mut self, program: &Path) -> Result<()> {
        for library in libraries(program)? {
            self.file(&library, 0o755, read(Path::new(&library))?);
        }
        Ok(())
    }

    /// Modules, loaded by /init in this order.
    pub fn modules(&mut self, modules: &[impl AsRef<Path>]) -> Result<()> {
        let paths = self.idle_modules(modules)?;
        let list = paths
            .iter()
            .flat_map(|path| [path, "\n"])
            .collect::<String>();
        self.file("/etc/modules", 0o644, list.into());
        Ok(())
    }

    /// Modules that lie in /lib/modules until somebody loads them. Returns their paths.
    pub fn idle_modules(&mut self, modules: &[impl AsRef<Path>]) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for module in modules {
            let module = module.as_ref();
            let name = module.file_name().context("a module without a name")?;
            let path = format!("/lib/modules/{}", name.to_string_lossy());
            self.file(&path, 0o644, read(module)?);
            paths.push(path);
        }
        Ok(paths)
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        let mut parent = path;
        while let Some((above, _)) = parent.rsplit_once('/') {
            if above.is_empty() {
                break;
            }
            self.entries
                .entry(above.to_owned())
                .or_insert(Entry::Directory);
            parent = above;
        }
        self.entries.insert(path.to_owned(), entry);
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        self.write(BufWriter::new(file))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn write(&self, mut out: impl Write) -> Result<()> {
        // A map sorts a directory before what it holds, as the kernel needs it.
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            let (kind, mode, content): (_, _, &[u8]) = match entry {
                Entry::Directory => (ModeFileType::Directory, 0o755, &[]),
                Entry::File { mode, content } => (ModeFileType::Regular, *mode, content),
                Entry::Symlink(target) => (ModeFileType::Symlink, 0o777, target.as_bytes()),
            };
            let size = content
                .len()
                .try_into()
                .context("a file of 4 GiB or more")?;
            let mut writer = Builder::new(path.trim_start_matches('/'))
                .ino(inode)
                .mode(mode)
                .set_mode_file_type(kind)
                .write(&mut out, size);
            writer.write_all(content)?;
            writer.finish()?;
        }
        trailer(&mut out)?;
        Ok(out.flush()?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Where a program of the tool root lies.
fn which(program: &str) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is not in PATH: run this with scripts/enter"))
}

/// The shared libraries a program is linked with, the dynamic loader among them.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("ldd does not run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = text.lines().find(|line| line.ends_with("=> not found")) {
        bail!("{} needs {}", program.display(), missing.trim());
    }
    Ok(parse_ldd(&text))
}

fn parse_ldd(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
            let path = path.split_once(" (").map_or(path, |(path, _)| path);
            path.starts_with('/').then(|| path.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    /// Names, modes and contents of an archive, as a reader of the format sees them.
    fn unpack(archive: &Initramfs) -> Vec<(String, u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        let (mut found, mut rest) = (Vec::new(), bytes.as_slice());
        loop {
            let reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            rest = reader.to_writer(&mut content).unwrap();
            found.push((name, mode, content));
        }
    }

    #[test]
    fn parents_come_first_and_by_themselves() {
        let mut archive = Initramfs::default();
        archive.file("/usr/lib/a/x", 0o644, b"content".to_vec());
        archive.symlink("/usr/lib-y", "lib/a/x");
        let entries = unpack(&archive);
        let names: Vec<_> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(
            names,
            ["usr", "usr/lib", "usr/lib-y", "usr/lib/a", "usr/lib/a/x"]
        );
        assert_eq!(entries[0].1, 0o040755);
        assert_eq!(entries[2].1, 0o120777);
        assert_eq!(entries[4].1, 0o100644);
        assert_eq!(entries[4].2, b"content");
    }

    #[test]
    fn modules_are_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let modules = ["b.ko", "a.ko"].map(|name| dir.path().join(name));
        for module in &modules {
            fs::write(module, "elf").unwrap();
        }
        let mut archive = Initramfs::default();
        archive.modules(&modules).unwrap();
        let list = unpack(&archive)
            .into_iter()
            .find(|entry| entry.0 == "etc/modules");
        assert_eq!(list.unwrap().2, b"/lib/modules/b.ko\n/lib/modules/a.ko\n");
    }

    #[test]
    fn ldd_output() {
        let text = "\tlinux-vdso.so.1 (0x00007faf246c1000)\n\
                    \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007faf24462000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007faf246c3000)\n";
        assert_eq!(
            parse_ldd(text),
            [
                "/lib/x86_64-linux-gnu/libz.so.1",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert!(parse_ldd("\tnot a dynamic executable\n").is_empty());
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }
}
