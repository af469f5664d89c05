//! What a virtual machine boots into: the binaries that the tests of the namespace ring run on this
//! machine, the same files, with the libraries that they are linked with. Nothing is compiled for it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use undermesh_tests::vm::{MODULES, PLAN, PROGRAMS, Plan};

use super::{cpio::Archive, kernel::Kernel};
use crate::command;

const LOADERS_CACHE: &str = "/etc/ld.so.cache";

/// Programs by their name in the machine.
pub(crate) type Programs = Vec<(String, PathBuf)>;

/// What every machine gets, whatever its kernel: files by their path in it.
#[derive(Debug)]
pub(crate) struct Userland(Vec<(PathBuf, Vec<u8>)>);

impl Userland {
    /// Collects programs and their libraries; `init` is the one that the kernel starts.
    pub(crate) fn collect(init: &Path, programs: &Programs, scratch: &Path) -> Result<Self> {
        let mut files = vec![(PathBuf::from("/init"), stripped(init, scratch)?)];
        let mut libraries = linked_with(init)?;
        for (name, program) in programs {
            files.push((Path::new(PROGRAMS).join(name), stripped(program, scratch)?));
            libraries.extend(linked_with(program)?);
        }
        for library in libraries {
            let content = fs::read(&library)
                .with_context(|| format!("cannot read the library {}", library.display()))?;
            files.push((library, content));
        }
        // Where the loader looks for libraries that are not in the usual directories.
        if let Ok(content) = fs::read(LOADERS_CACHE) {
            files.push((LOADERS_CACHE.into(), content));
        }
        Ok(Self(files))
    }

    /// Writes the initramfs for one kernel.
    pub(crate) fn write(&self, kernel: &Kernel, tests: &Plan, to: &Path) -> Result<()> {
        let file = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
        let mut archive = Archive::new(BufWriter::new(file));
        for (path, content) in &self.0 {
            archive.file(path, content)?;
        }
        let mut plan = tests.clone();
        for module in kernel.modules()? {
            let name = module.file_name().unwrap_or_default();
            archive.file(&Path::new(MODULES).join(name), &fs::read(&module)?)?;
            plan.modules.push(name.to_string_lossy().into_owned());
        }
        archive.directory(Path::new("/dev"))?;
        archive.file(Path::new(PLAN), &serde_json::to_vec(&plan)?)?;
        Ok(archive.finish()?)
    }
}

/// A program without debug information, which is most of it; as it is where nothing can strip it.
fn stripped(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let to = scratch.join("stripped");
    let strip = Command::new("strip").arg("--strip-debug").arg("-o").arg(&to).arg(program).output();
    let from = if strip.is_ok_and(|it| it.status.success()) { &to } else { program };
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    // The next one would overwrite it; the last one is of no use either.
    let _ = fs::remove_file(&to);
    Ok(content)
}

fn linked_with(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new("ldd");
    // Not cargo's libraries, which are not where the machine will look.
    ldd.env_remove("LD_LIBRARY_PATH").arg(program);
    Ok(libraries(&command::stdout(&mut ldd)?))
}

/// Reads `ldd`: `libc.so.6 => /lib/libc.so.6 (0x7f)`, and the loader as `/lib64/ld.so (0x7f)`.
fn libraries(ldd: &str) -> BTreeSet<PathBuf> {
    ldd.lines()
        .filter_map(|line| {
            let place = line.split_once("=> ").map_or(line, |(_, place)| place).trim();
            let path = place.split_once(" (").map_or(place, |(path, _)| path);
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_read_and_the_kernels_own_is_not() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f1051aba000)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f105053e000)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f1051abc000)\n";
        let expected =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(ldd), BTreeSet::from(expected));
    }

    #[test]
    fn a_static_program_needs_none() {
        assert_eq!(libraries("\tstatically linked\n"), BTreeSet::new());
    }
}
