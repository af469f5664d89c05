//! What an initramfs does not have by itself: file systems, modules, a loopback interface.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::ErrorKind,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    system::finit_module,
};
use undermesh_tests::vm::MODULES;

/// File systems by type and place, in order.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

/// Mounts what every test takes for granted.
pub(crate) fn mount_everything() -> Result<()> {
    for (kind, place) in MOUNTS {
        match fs::create_dir(place) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {place}"));
            }
            _ => {}
        }
        match mount(kind, place, kind, MountFlags::empty(), None::<&CStr>) {
            // The kernel has mounted /dev by itself.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot mount {kind} at {place}"));
            }
        }
    }
    Ok(())
}

/// Gives the kernel its modules, in the order in which they need one another.
pub(crate) fn load_modules(names: &[String]) -> Result<()> {
    names.iter().try_for_each(|name| {
        let path = Path::new(MODULES).join(name);
        let file = File::open(&path).with_context(|| format!("no module {}", path.display()))?;
        match finit_module(file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("the kernel refuses {name}")),
        }
    })
}

/// Raises the loopback interface of the machine's own namespace.
pub(crate) fn raise_loopback() -> Result<()> {
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    ensure!(status.context("cannot run ip")?.success(), "ip cannot raise the loopback interface");
    Ok(())
}

/// What `uname -r` says.
pub(crate) fn kernel_release() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    Ok(fs::read_to_string(path).with_context(|| format!("no {path}"))?.trim().to_owned())
}
