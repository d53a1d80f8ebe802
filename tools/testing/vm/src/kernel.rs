//! What a kernel build directory says of itself: image, release, configuration, modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

pub struct Kernel {
    dir: PathBuf,
    /// The bootable image, beneath `dir`.
    pub image: PathBuf,
    pub release: String,
    config: String,
}

impl Kernel {
    pub fn open(dir: &Path) -> Result<Self> {
        let image = dir.join("arch/x86/boot/bzImage");
        ensure!(
            image.is_file(),
            "{} is missing: build the kernel first (make kernel)",
            image.display()
        );
        let read = |path: &str| {
            let path = dir.join(path);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            dir: dir.to_owned(),
            image,
            release: read("include/config/kernel.release")?.trim().to_owned(),
            config: read(".config")?,
        })
    }

    /// The kernel with its debug information.
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// The value of a configuration symbol, without its quotes.
    fn symbol(&self, name: &str) -> Option<&str> {
        self.config
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    }

    /// Whether it checks itself, as debug.config has it: it is slower, and needs more memory.
    pub fn is_debug(&self) -> bool {
        self.symbol("CONFIG_KASAN") == Some("y")
    }

    /// Memory of a guest.
    pub fn memory_mib(&self) -> u32 {
        if self.is_debug() { 1536 } else { 512 }
    }

    /// What every guest of this kernel is told: here, not to stop reporting after the first mistake.
    pub fn append(&self) -> &'static str {
        if self.is_debug() {
            "kasan_multi_shot"
        } else {
            ""
        }
    }

    /// What sets memory aside for this kernel as a crash kernel, and has free pages be zeroes, which the
    /// dump leaves out: makedumpfile takes free pages of 7.3 for slabs.
    pub fn crash_append(&self) -> &'static str {
        match self.is_debug() {
            true => "crashkernel=512M init_on_free=1",
            false => "crashkernel=128M init_on_free=1",
        }
    }

    /// One line each of what a result depends on.
    pub fn facts(&self) -> Vec<String> {
        let digest = format!("{:x}", Sha256::digest(&self.config));
        let symbol = |name| self.symbol(name).unwrap_or("unknown");
        let pahole = match self.symbol("CONFIG_PAHOLE_VERSION").map(str::parse::<u32>) {
            Some(Ok(version)) => format!("{}.{}", version / 100, version % 100),
            _ => "unknown".to_owned(),
        };
        vec![
            format!("kernel: {}", self.release),
            format!("config: sha256 {}", &digest[..16]),
            format!("compiler: {}", symbol("CONFIG_CC_VERSION_TEXT")),
            format!("rustc: {}", symbol("CONFIG_RUSTC_VERSION_TEXT")),
            format!("pahole: {pahole}"),
        ]
    }

    /// The modules built beneath `under`, in the order they are to be loaded.
    pub fn modules(&self, under: &str) -> Vec<PathBuf> {
        fs::read_to_string(self.dir.join("modules.order"))
            .unwrap_or_default()
            .lines()
            .filter(|object| object.starts_with(under))
            .map(|object| self.dir.join(object).with_extension("ko"))
            .filter(|module| module.is_file())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("arch/x86/boot/bzImage", ""),
            ("include/config/kernel.release", "7.3.4-backstop\n"),
            (
                ".config",
                "CONFIG_CC_VERSION_TEXT=\"clang 19\"\nCONFIG_PAHOLE_VERSION=130\n",
            ),
            (
                "modules.order",
                "kernel/bpf/b.o\nkernel/bpf/a.o\ndrivers/c.o\nkernel/bpf/gone.o\n",
            ),
            ("kernel/bpf/a.ko", ""),
            ("kernel/bpf/b.ko", ""),
            ("drivers/c.ko", ""),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn facts_come_from_the_build() {
        let dir = build();
        let facts = Kernel::open(dir.path()).unwrap().facts();
        assert_eq!(facts[0], "kernel: 7.3.4-backstop");
        assert_eq!(facts[2], "compiler: clang 19");
        assert_eq!(facts[4], "pahole: 1.30");
    }

    #[test]
    fn a_kernel_that_checks_itself_gets_more_memory() {
        let dir = build();
        assert!(!Kernel::open(dir.path()).unwrap().is_debug());
        fs::write(dir.path().join(".config"), "CONFIG_KASAN=y\n").unwrap();
        let kernel = Kernel::open(dir.path()).unwrap();
        assert!(kernel.is_debug() && kernel.memory_mib() > 512);
    }

    #[test]
    fn modules_keep_the_order_of_the_build() {
        let dir = build();
        let modules = Kernel::open(dir.path()).unwrap().modules("kernel/bpf/");
        let names: Vec<_> = modules
            .iter()
            .map(|path| path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["b.ko", "a.ko"]);
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = Kernel::open(Path::new("/nowhere")).err().unwrap();
        assert!(error.to_string().contains("/nowhere/arch/x86/boot/bzImage"));
    }
}
