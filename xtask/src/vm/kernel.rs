//! A kernel in the cache: its image and the few modules that the tests need, out of packages that
//! are downloaded, unpacked and thrown away.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    apt::{Apt, unpack_all},
    catalog::{Catalog, Choice, Package},
};
use crate::progress::step;

/// What pods, nodes and wires are made of, and what lists sockets; in the order in which they need
/// one another.
const MODULES: [&str; 7] = ["llc", "stp", "bridge", "veth", "dummy", "inet_diag", "tcp_diag"];
/// Packages of a series that are tried; a mirror's index may name some that it has no longer.
const TRIES: usize = 4;
/// The file that says that a kernel in the cache is whole.
const WHOLE: &str = "modules.list";
const IMAGE: &str = "vmlinuz";

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What has been asked for.
    pub(crate) choice: Choice,
    /// What it is.
    pub(crate) package: Package,
    directory: PathBuf,
}

impl Kernel {
    /// Finds the best kernel of a choice, in the cache or in Debian's archive.
    pub(crate) fn fetch(
        choice: Choice,
        catalog: &Catalog,
        apt: &Apt,
        cache: &Path,
    ) -> Result<Self> {
        let candidates = catalog.candidates(choice);
        let Some(best) = candidates.first() else {
            bail!("Debian's archive has no kernel {choice} now");
        };
        let kernel = |package: &Package| {
            let directory = directory(cache, package);
            Self { choice, package: package.clone(), directory }
        };
        let cached = |package: &&&Package| kernel(package).is_cached();
        // Signed or not, the same version is the same kernel.
        let same = candidates.iter().filter(|it| it.version == best.version).find(cached);
        if let Some(package) = same {
            return Ok(kernel(package));
        }
        let mut problems = Vec::new();
        for package in &candidates {
            let kernel = kernel(package);
            if kernel.is_cached() {
                return Ok(kernel);
            }
            if problems.len() < TRIES {
                match kernel.download(apt) {
                    Ok(()) => return Ok(kernel),
                    Err(error) => {
                        eprintln!("{} cannot be had; trying the next best", package.name);
                        problems.push(format!("{error:#}"));
                    }
                }
            }
        }
        bail!("no kernel {choice} can be had: {}", problems.join("; "))
    }

    /// Whether the cache has it.
    fn is_cached(&self) -> bool {
        self.directory.join(WHOLE).is_file()
    }

    /// Its image.
    pub(crate) fn image(&self) -> PathBuf {
        self.directory.join(IMAGE)
    }

    /// Files of its modules, in order.
    pub(crate) fn modules(&self) -> Result<Vec<PathBuf>> {
        let list = fs::read_to_string(self.directory.join(WHOLE))?;
        Ok(list.lines().map(|name| self.directory.join(name)).collect())
    }

    fn download(&self, apt: &Apt) -> Result<()> {
        let scratch = self.directory.with_extension("partial");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        let version = self.package.version.as_str();
        let result = step(&format!("fetching Linux {version}"), || {
            apt.download(&self.package.downloads(), &scratch)?;
            let tree = scratch.join("tree");
            unpack_all(&scratch, &tree)?;
            self.keep(&tree, &scratch.join("kernel"))?;
            fs::rename(scratch.join("kernel"), &self.directory)?;
            Ok(())
        });
        // Also after a failure: half a kernel is of no use.
        let removed = fs::remove_dir_all(&scratch);
        result.and_then(|()| Ok(removed?))
    }

    /// Copies what is needed out of an unpacked package.
    fn keep(&self, tree: &Path, into: &Path) -> Result<()> {
        fs::create_dir_all(into)?;
        let files = files(tree)?;
        let image = files
            .iter()
            .find(|path| file_name(path).starts_with("vmlinuz"))
            .with_context(|| format!("{} holds no vmlinuz", self.package.name))?;
        fs::copy(image, into.join(IMAGE))?;
        let built_in: String = files
            .iter()
            .filter(|path| file_name(path) == "modules.builtin")
            .filter_map(|path| fs::read_to_string(path).ok())
            .collect();
        let mut list = String::new();
        for module in MODULES {
            let name = format!("{module}.ko");
            let file = files.iter().find(|path| {
                file_name(path)
                    .strip_prefix(&name)
                    .is_some_and(|end| ["", ".xz", ".zst"].contains(&end))
            });
            match file {
                Some(file) => {
                    uncompress(file, &into.join(&name))?;
                    list.push_str(&name);
                    list.push('\n');
                }
                None => ensure!(
                    built_in.lines().any(|line| line.ends_with(&format!("/{name}"))),
                    "{} has no module {module}",
                    self.package.name
                ),
            }
        }
        // Last, for it says that everything is there.
        Ok(fs::write(into.join(WHOLE), list)?)
    }
}

/// Where the cache has a package's kernel.
fn directory(cache: &Path, package: &Package) -> PathBuf {
    cache.join("kernels").join(package.label())
}

/// Whether the cache has a package's kernel.
pub(crate) fn is_cached(cache: &Path, package: &Package) -> bool {
    directory(cache, package).join(WHOLE).is_file()
}

/// The kernel could unpack its modules itself, but not all of them can, and none quickly here.
fn uncompress(file: &Path, to: &Path) -> Result<()> {
    let program = match file.extension().and_then(|it| it.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(fs::copy(file, to).map(drop)?),
    };
    let output = Command::new(program).arg("-dc").arg(file).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} cannot unpack {}", file.display());
    Ok(fs::write(to, output.stdout)?)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// All files of a tree.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        // Not what a link leads to: it may lead out of the tree.
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
