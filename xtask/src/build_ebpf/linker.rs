//! bpf-linker, and the LLVM that it opens when it runs. It takes the first file named `libLLVM*`
//! that it meets on `LD_LIBRARY_PATH`, whatever its version; a machine with several would get a
//! random one. So it is given a directory that holds nothing but the compiler's own.

use std::{
    env, fmt, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::toolchain::Toolchain;
use crate::{
    command,
    install::{self, BPF_LINKER_VERSION, LLVM_MAJOR, Policy},
    workspace::Workspace,
};

/// A bpf-linker of the version we build with.
#[derive(Debug)]
pub(crate) struct Linker {
    /// The absolute path of the executable.
    pub(crate) path: PathBuf,
}

impl Linker {
    /// Ours from `target/tools`, or the user's own if it is of the right version.
    pub(crate) fn find_or_install(workspace: &Workspace, policy: Policy) -> Result<Self> {
        let mut reason = "bpf-linker is missing".to_owned();
        for path in places(workspace) {
            match version(&path) {
                Some(found) if found == BPF_LINKER_VERSION => return Ok(Self { path }),
                Some(found) => {
                    reason = format!("{} is version {found}", path.display());
                }
                None => {}
            }
        }
        if policy == Policy::NoInstall {
            bail!(
                "the eBPF programs are linked by bpf-linker {BPF_LINKER_VERSION}, and {reason}; \
                 run `{}`, or leave out --no-install",
                install::bpf_linker_advice()
            );
        }
        let purpose = "links the eBPF programs";
        let path = install::crates_io_tool(workspace, "bpf-linker", BPF_LINKER_VERSION, purpose)?;
        Ok(Self { path })
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bpf-linker {BPF_LINKER_VERSION}")
    }
}

/// A directory with one link, to the LLVM of `toolchain`; written anew only when it is wrong.
pub(crate) fn isolate_llvm(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf> {
    let library = toolchain
        .library_directories
        .iter()
        .find_map(|directory| llvm_library(directory))
        .with_context(|| {
            format!(
                "{toolchain} has no shared libLLVM {} in {:?}, which bpf-linker needs",
                LLVM_MAJOR, toolchain.library_directories
            )
        })?;
    let directory = workspace.tools().join("llvm");
    link_only(&directory, &library)
        .with_context(|| format!("cannot prepare {}", directory.display()))?;
    Ok(directory)
}

/// The file in `directory` that is the shared LLVM of our major version, if there is one. Its name
/// is `libLLVM.so.22.1`, `libLLVM-22.so` or, from rustup, either with a suffix.
fn llvm_library(directory: &Path) -> Option<PathBuf> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_llvm_library(name))
        .collect();
    names.sort();
    names.pop().map(|name| directory.join(name))
}

fn is_llvm_library(name: &str) -> bool {
    let Some(version) = name.strip_prefix("libLLVM-").or_else(|| name.strip_prefix("libLLVM.so."))
    else {
        return false;
    };
    version.split(['.', '-']).next().and_then(|word| word.parse().ok()) == Some(LLVM_MAJOR)
}

fn link_only(directory: &Path, library: &Path) -> Result<()> {
    let name = library.file_name().context("a library without a name")?;
    let link = directory.join(name);
    let entries = fs::read_dir(directory).map_or(0, Iterator::count);
    if entries == 1 && fs::read_link(&link).is_ok_and(|target| target == library) {
        return Ok(());
    }
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    symlink(library, &link)?;
    Ok(())
}

fn places(workspace: &Workspace) -> Vec<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let candidates = [
        Some(workspace.tools().join("bin/bpf-linker")),
        command::find("bpf-linker"),
        Some(cargo_home.join("bin/bpf-linker")),
    ];
    candidates.into_iter().flatten().filter(|path| path.is_file()).collect()
}

fn version(path: &Path) -> Option<String> {
    let text = command::stdout(Command::new(path).arg("--version")).ok()?;
    let version = text.trim().strip_prefix("bpf-linker ")?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_holds_only_the_chosen_library_even_after_the_choice_changes() {
        let base = env::temp_dir().join(format!("undermesh-xtask-llvm-{}", std::process::id()));
        let directory = base.join("llvm");
        link_only(&directory, Path::new("/lib/libLLVM-14.so")).unwrap();
        link_only(&directory, Path::new("/lib/libLLVM.so.22.1")).unwrap();
        link_only(&directory, Path::new("/lib/libLLVM.so.22.1")).unwrap();
        let names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["libLLVM.so.22.1"]);
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn only_our_major_version_of_llvm_is_taken_for_the_compilers_own() {
        for name in [
            "libLLVM-22.so",
            "libLLVM.so.22.1",
            "libLLVM.so.22.1-rust-1.97.0-nightly",
            "libLLVM-22-rust-1.97.0-nightly.so",
        ] {
            assert!(is_llvm_library(name), "{name}");
        }
        for name in ["libLLVM-14.so.1", "libLLVM.so.19.1", "libLLVM-C.so", "libLLVMCore.a"] {
            assert!(!is_llvm_library(name), "{name}");
        }
    }

    #[test]
    fn something_that_is_not_bpf_linker_has_no_version() {
        assert_eq!(version(Path::new("/bin/true")), None);
    }
}
