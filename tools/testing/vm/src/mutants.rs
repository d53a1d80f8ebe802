//! `vm mutants`: makes mistakes in the module that unwinds programs, each in a copy of its sources, and
//! shows which tests notice.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::{StreamExt, stream};
use glob::Pattern as Glob;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::Command;

use crate::kernel::Kernel;
use crate::plan::{self, Test};
use crate::test;
use crate::{Common, TestProgram};

const MODULE: &str = "bpf_unwind.ko";
/// What a mistake may be in, beneath the kernel's build directory: the module, and the crate that most
/// of its code is from.
const SOURCES: [&str; 3] = ["kernel/bpf/unwind.rs", "kernel/bpf/unwind", "rust/kernel"];

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Only mutants whose names match this glob
    #[arg(long, value_name = "GLOB", default_value = "", env = "T")]
    filter: String,
    /// The mutants
    #[arg(
        long,
        value_name = "FILE",
        default_value = "tools/testing/vm/mutants.toml"
    )]
    list: PathBuf,
    /// Builds the module from a copy of the sources
    #[arg(long, value_name = "FILE", default_value = "scripts/mutant")]
    builder: PathBuf,
    #[command(flatten)]
    program: TestProgram,
    /// Mutants at a time
    #[arg(long, short, value_name = "N", default_value_t = 2)]
    jobs: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// A mistake, see mutants.toml.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    breaks: String,
    file: PathBuf,
    find: String,
    replace: String,
    tests: Vec<String>,
}

impl Mutant {
    /// The source with the mistake.
    fn apply(&self, source: &str) -> Result<String> {
        let count = source.matches(&self.find).count();
        ensure!(
            count == 1,
            "'{}': what it finds is in {} {count} times",
            self.breaks,
            self.file.display()
        );
        Ok(source.replacen(&self.find, &self.replace, 1))
    }
}

/// Reads those whose names match `filter`, or all if that is empty.
fn read_list(path: &Path, filter: &str) -> Result<Vec<Mutant>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let List { mutant: mut all } =
        toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    if !filter.is_empty() {
        let glob = Glob::new(filter).with_context(|| format!("'{filter}' is no glob"))?;
        all.retain(|mutant| glob.matches(&mutant.breaks));
        ensure!(!all.is_empty(), "no mutant matches '{filter}'");
    }
    Ok(all)
}

pub async fn main(options: Options) -> Result<u8> {
    let mutants = read_list(&options.list, &options.filter)?;
    let all = plan::list(&options.program.path)?;
    let globs = mutants.iter().flat_map(|mutant| &mutant.tests).cloned();
    let tests = plan::filter(all.clone(), &globs.collect::<Vec<_>>())?;
    let lab = Lab {
        kernel: Kernel::open(&options.common.kernel)?,
        dir: scratch(&options.common)?,
        options: &options,
    };

    // A mutant is killed by tests that pass without it.
    let original = lab.original().await?;
    let failed = lab.failures(&original, &tests).await?;
    ensure!(
        failed.is_empty(),
        "without any mistake {} fail",
        failed.join(", ")
    );

    let mut killed = 0;
    let results = mutants
        .iter()
        .map(|mutant| lab.kill(mutant, &original, &all));
    let mut results = stream::iter(results).buffered(options.jobs);
    while let Some(result) = results.next().await {
        let killing = result?;
        killed += usize::from(killing.is_killed());
        writeln!(io::stdout(), "{}", killing.row())?;
    }
    println!("# {killed} killed, {} not", mutants.len() - killed);
    Ok(u8::from(killed != mutants.len()))
}

/// What became of a mutant.
struct Killing<'a> {
    mutant: &'a Mutant,
    tests: usize,
    /// Those that fail, or why its module does not build, which says nothing of the tests.
    failed: Result<Vec<String>>,
}

impl Killing<'_> {
    fn is_killed(&self) -> bool {
        self.failed.as_ref().is_ok_and(|failed| !failed.is_empty())
    }

    fn row(&self) -> String {
        let fate = match self.failed.as_deref() {
            Ok([]) => format!("SURVIVED {} tests", self.tests),
            Ok(failed @ [first, ..]) => {
                format!(
                    "killed by {} of {} tests: {first}",
                    failed.len(),
                    self.tests
                )
            }
            Err(error) => format!("NOT MADE: {error:#}"),
        };
        format!("{:68} {fate}", self.mutant.breaks)
    }
}

fn scratch(common: &Common) -> Result<TempDir> {
    fs::create_dir_all(&common.log_dir)
        .with_context(|| format!("cannot make {}", common.log_dir.display()))?;
    Ok(tempfile::Builder::new()
        .prefix("mutants-")
        .tempdir_in(&common.log_dir)?)
}

struct Lab<'a> {
    options: &'a Options,
    kernel: Kernel,
    dir: TempDir,
}

impl Lab<'_> {
    /// Copies the sources and builds the module from them as they are.
    async fn original(&self) -> Result<PathBuf> {
        let dir = self.dir.path().join("original");
        for source in SOURCES {
            let to = dir.join(source);
            let parent = to.parent().context("a source without a folder")?;
            fs::create_dir_all(parent)?;
            copy(&self.options.common.kernel.join(source), &to).await?;
        }
        self.build(&dir).await?;
        Ok(dir)
    }

    async fn kill<'a>(
        &self,
        mutant: &'a Mutant,
        original: &Path,
        all: &[Test],
    ) -> Result<Killing<'a>> {
        let tests = plan::filter(all.to_owned(), &mutant.tests)?;
        let dir = tempfile::Builder::new().tempdir_in(self.dir.path())?;
        let dir = dir.path().join("mutant");
        copy(original, &dir).await?;
        let path = dir.join(&mutant.file);
        let source = fs::read_to_string(&path)
            .with_context(|| format!("no mistake can be in {}", mutant.file.display()))?;
        fs::write(&path, mutant.apply(&source)?)?;
        let failed = match self.build(&dir).await {
            Ok(()) => Ok(self.failures(&dir, &tests).await?),
            Err(error) => Err(error),
        };
        Ok(Killing {
            mutant,
            tests: tests.len(),
            failed,
        })
    }

    async fn build(&self, dir: &Path) -> Result<()> {
        let output = Command::new(&self.options.builder)
            .arg(fs::canonicalize(dir)?)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("starting {}", self.options.builder.display()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let tail: Vec<_> = text.lines().rev().take(30).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            bail!("the module does not build:\n{}", tail.join("\n"));
        }
        Ok(())
    }

    /// The tests that fail with the module of this directory.
    async fn failures(&self, dir: &Path, tests: &[Test]) -> Result<Vec<String>> {
        let modules = self.kernel.modules(test::MODULES).into_iter();
        let modules: Vec<_> = modules
            .map(|module| match module.ends_with(MODULE) {
                true => dir.join(MODULE),
                false => module,
            })
            .collect();
        // What the module gets at by its address must be there.
        let mut tests = tests.to_owned();
        for test in &mut tests {
            test.append = format!("{} nokaslr", test.append).trim_start().to_owned();
        }
        test::failures(
            &self.options.common,
            &dir.join("logs"),
            &self.kernel,
            &modules,
            &self.options.program.path,
            &tests,
        )
        .await
    }
}

/// Copies a file or a directory with its times, by which the builder sees what has changed.
async fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .await?;
    ensure!(
        status.success(),
        "cannot copy {} to {}",
        from.display(),
        to.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn mutant(find: &str) -> Mutant {
        Mutant {
            breaks: "it".into(),
            file: "file".into(),
            find: find.into(),
            replace: "x".into(),
            tests: Vec::new(),
        }
    }

    #[test]
    fn a_mistake_is_made_once() {
        assert_eq!(mutant("b").apply("abc").unwrap(), "axc");
        assert!(mutant("d").apply("abc").is_err());
        assert!(mutant("a").apply("aa").is_err());
    }

    #[test]
    fn the_list_can_be_read() {
        let all = read_list(Path::new("mutants.toml"), "").unwrap();
        assert!(all.iter().all(|mutant| !mutant.tests.is_empty()));
        assert!(all.iter().all(|mutant| mutant.find != mutant.replace));
        assert!(read_list(Path::new("mutants.toml"), "no such").is_err());
    }

    #[test]
    fn every_mistake_can_be_made() {
        for mutant in read_list(Path::new("mutants.toml"), "").unwrap() {
            let source = Path::new("../../..").join(&mutant.file);
            let made = mutant.apply(&fs::read_to_string(source).unwrap());
            assert!(made.is_ok(), "'{}': {made:?}", mutant.breaks);
        }
    }

    #[test]
    fn a_row_says_what_became_of_it() {
        let mutant = mutant("a");
        let killing = |failed| Killing {
            mutant: &mutant,
            tests: 3,
            failed,
        };
        let killed = killing(Ok(vec!["s/a".into(), "s/b".into()]));
        assert!(killed.is_killed());
        assert!(killed.row().ends_with(" killed by 2 of 3 tests: s/a"));
        let survived = killing(Ok(Vec::new()));
        assert!(!survived.is_killed());
        assert!(survived.row().ends_with(" SURVIVED 3 tests"));
        let not_made = killing(Err(anyhow!("no").context("the module does not build")));
        assert!(!not_made.is_killed());
        assert!(
            not_made
                .row()
                .ends_with(" NOT MADE: the module does not build: no")
        );
    }
}
