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

    /// The value of a configuration symbol, without its quotes.
    fn symbol(&self, name: &str) -> Option<&str> {
        self.config
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
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
