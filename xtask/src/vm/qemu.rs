//! QEMU: found on the path, or unpacked from Debian into the cache, and the command line of a
//! virtual machine without any device but two serial ports.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::{Apt, unpack_all},
    version::Series,
};
use crate::{command, install::Policy, progress::step};

/// The program, and Debian's package with it.
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// Memory of one machine in MiB. The initramfs is in it twice while it is unpacked.
pub(crate) const MEMORY: u64 = 1024;
/// Processors of one machine: two, so that what races can race.
const CPUS: &str = "2";
/// Directories with libraries in Debian's packages.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
/// Directories with firmware in Debian's packages.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// How processors are had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Accelerator {
    /// Emulated; works everywhere
    #[default]
    Tcg,
    /// Real, by /dev/kvm; hangs on some machines that are virtual themselves
    Kvm,
}

/// A QEMU that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// Where it has been unpacked, if it is not the system's.
    tree: Option<PathBuf>,
}

impl Qemu {
    /// Finds one; without, fetches Debian's into the cache, from where it runs as it is. It is not
    /// installed, for where QEMU's other tools are, of another version, apt would have to remove them.
    pub(crate) fn find_or_fetch(apt: &Apt, cache: &Path, policy: Policy) -> Result<Self> {
        if let Some(program) = command::find(PROGRAM) {
            return Ok(Self { program, tree: None });
        }
        let tree = cache.join("qemu");
        let program = tree.join("usr/bin").join(PROGRAM);
        if !program.is_file() {
            if policy == Policy::NoInstall {
                bail!("no {PROGRAM}: run `apt-get install {PACKAGE}`, or leave out --no-install");
            }
            let scratch = cache.join("qemu.partial");
            step("fetching QEMU", || {
                apt.download_with_needs(PACKAGE, &scratch)?;
                unpack_all(&scratch, &scratch.join("tree"))?;
                fs::rename(scratch.join("tree"), &tree).context("cannot keep QEMU")?;
                Ok(fs::remove_dir_all(&scratch)?)
            })?;
        }
        Ok(Self { program, tree: Some(tree) })
    }

    /// What it calls itself.
    pub(crate) fn version(&self) -> Result<String> {
        let said = command::stdout(self.command().arg("--version"))?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    /// A machine: the kernel's console goes to a file, events to standard output.
    pub(crate) fn boot(&self, machine: &Machine<'_>) -> Command {
        let mut command = self.command();
        // Emulated processors take turns on one thread. With a thread each (`thread=multi`), one may
        // still run what another has patched away, and the kernel patches itself all the time: it dies
        // of an `int3` that is not there any more.
        let (accelerator, cpu) = match machine.accelerator {
            Accelerator::Tcg => ("tcg,thread=single", cpu(machine.series)),
            Accelerator::Kvm => ("kvm", "host"),
        };
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-machine", "pc", "-accel", accelerator, "-cpu", cpu])
            .args(["-smp", CPUS, "-m", &MEMORY.to_string()])
            .arg("-serial")
            .arg(with("file:", machine.console))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(machine.kernel)
            .arg("-initrd")
            .arg(machine.initramfs)
            // A panic reboots, which here is the end.
            .args(["-append", "console=ttyS0 rdinit=/init panic=-1 loglevel=4"]);
        command
    }

    fn command(&self) -> Command {
        // A machine must not outlive an xtask that is killed.
        let mut command = match command::find("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.env_remove("LD_LIBRARY_PATH");
        if let Some(tree) = &self.tree {
            let libraries = env::join_paths(LIBRARIES.map(|dir| tree.join(dir)));
            command.env("LD_LIBRARY_PATH", libraries.unwrap_or_default());
            for firmware in FIRMWARE {
                command.arg("-L").arg(tree.join(firmware));
            }
        }
        command
    }
}

/// What a virtual machine is made of.
pub(crate) struct Machine<'a> {
    pub(crate) series: Series,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// Where the kernel's console goes.
    pub(crate) console: &'a Path,
    pub(crate) accelerator: Accelerator,
}

/// The processor that QEMU 7.2 emulates without fault for a kernel: with the default one Linux 6.12
/// panics now and then (a double fault after cmpxchg16b), without that instruction 7.2 hangs.
fn cpu(series: Series) -> &'static str {
    if series < Series(7, 0) { "qemu64,-cx16" } else { "qemu64" }
}

fn with(prefix: &str, path: &Path) -> OsString {
    let mut word = OsString::from(prefix);
    word.push(path);
    word
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_emulated_processor_follows_the_kernel() {
        assert_eq!(cpu(Series(6, 12)), "qemu64,-cx16");
        assert_eq!(cpu(Series(7, 3)), "qemu64");
    }

    #[test]
    fn an_unpacked_qemu_brings_its_libraries_and_firmware() {
        let qemu = Qemu { program: "/c/qemu".into(), tree: Some("/c".into()) };
        let command = qemu.command();
        let libraries = command.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH").unwrap().1;
        assert_eq!(libraries.unwrap(), "/c/usr/lib/x86_64-linux-gnu:/c/lib/x86_64-linux-gnu");
        let arguments: Vec<_> = command.get_args().collect();
        assert!(
            arguments.ends_with(
                &["-L", "/c/usr/share/qemu", "-L", "/c/usr/share/seabios"].map(OsStr::new)
            )
        );
    }
}
