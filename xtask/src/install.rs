//! What this repository needs from the system beyond a Rust toolchain and a C compiler: one
//! table, how each entry is found, and how it is installed. Nothing is removed or upgraded that is
//! there already; with `--no-install` a missing tool is a sentence with the command to type.

mod python;
mod unpacked;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, machine::Machine, progress::step, workspace::Workspace};
pub(crate) use python::python_package;
pub(crate) use unpacked::debian_package;

/// The bpf-linker that builds the programs; its default features are ours.
pub(crate) const BPF_LINKER_VERSION: &str = "0.10.3";

/// The LLVM whose bitcode that bpf-linker reads.
pub(crate) const LLVM_MAJOR: u32 = 22;

/// What a tool is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The agent itself, where nothing else of this list is needed.
    Agent,
    /// Debian's compiler, cargo and library sources, one matched set, to build the programs.
    DebianToolchain,
    /// Tests in network namespaces.
    Netns,
    /// The demo.
    Demo,
    /// Kernels in virtual machines.
    Vm,
    /// Benchmarks.
    Bench,
    /// Benchmarks of whole meshes.
    Mesh,
    /// Profiles of benchmarks.
    Profile,
    /// Fuzz targets.
    Fuzz,
    /// Container images.
    Image,
}

/// Whether missing things may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Install them, saying so.
    Install,
    /// Only say what is missing.
    NoInstall,
}

impl Policy {
    /// The meaning of a `--no-install` flag.
    pub(crate) fn from_flag(no_install: bool) -> Self {
        if no_install { Self::NoInstall } else { Self::Install }
    }
}

/// How to tell that a tool is there.
enum Detect {
    Command(&'static str),
    File(&'static str),
}

/// One line of the table.
struct Tool {
    package: &'static str,
    detect: Detect,
    purpose: &'static str,
    needs: &'static [Need],
}

static TOOLS: [Tool; 23] = [
    Tool {
        package: "rustc-web",
        detect: Detect::File("/usr/bin/rustc"),
        purpose: "compiles the eBPF programs",
        needs: &[Need::DebianToolchain],
    },
    Tool {
        package: "cargo-web",
        detect: Detect::File("/usr/bin/cargo"),
        purpose: "builds the eBPF programs' crates",
        needs: &[Need::DebianToolchain],
    },
    Tool {
        package: "rust-web-src",
        detect: Detect::File("/usr/lib/rustlib/src/rust/library/core/src/lib.rs"),
        purpose: "the sources of `core`, which has to be built for eBPF",
        needs: &[Need::DebianToolchain],
    },
    Tool {
        package: "iproute2",
        detect: Detect::Command("ip"),
        purpose: "creates network namespaces",
        needs: &[Need::Netns, Need::Demo, Need::Vm, Need::Bench],
    },
    Tool {
        package: "curl",
        detect: Detect::Command("curl"),
        purpose: "is the demo's and the tests' client",
        needs: &[Need::Netns, Need::Demo],
    },
    Tool {
        package: "python3",
        detect: Detect::Command("python3"),
        purpose: "is the demo's and the tests' web server",
        needs: &[Need::Netns, Need::Demo],
    },
    Tool {
        package: "bpftool",
        detect: Detect::Command("bpftool"),
        purpose: "attaches the programs that tests find in their way, and says what maps occupy",
        needs: &[Need::Netns, Need::Bench],
    },
    Tool {
        package: "nginx-light",
        detect: Detect::Command("nginx"),
        purpose: "is the benchmarks' web server",
        needs: &[Need::Bench],
    },
    Tool {
        package: "wrk",
        detect: Detect::Command("wrk"),
        purpose: "makes the benchmarks' requests",
        needs: &[Need::Bench],
    },
    Tool {
        package: "iperf3",
        detect: Detect::Command("iperf3"),
        purpose: "measures throughput",
        needs: &[Need::Bench],
    },
    Tool {
        package: "nghttp2-client",
        detect: Detect::Command("h2load"),
        purpose: "makes the benchmarks' HTTP/2 requests",
        needs: &[Need::Mesh],
    },
    Tool {
        package: "nghttp2-server",
        detect: Detect::Command("nghttpd"),
        purpose: "answers the benchmarks' calls",
        needs: &[Need::Mesh],
    },
    Tool {
        package: "iptables",
        detect: Detect::Command("iptables"),
        purpose: "redirects to the sidecars that Undermesh is compared with",
        needs: &[Need::Mesh],
    },
    Tool {
        package: "util-linux",
        detect: Detect::Command("setpriv"),
        purpose: "runs the sidecars in a group of their own",
        needs: &[Need::Mesh],
    },
    Tool {
        package: "python3-pip",
        detect: Detect::Command("pip3"),
        purpose: "installs the sidecars",
        needs: &[Need::Mesh],
    },
    Tool {
        package: "linux-perf",
        detect: Detect::Command("perf"),
        purpose: "samples what runs",
        needs: &[Need::Profile],
    },
    Tool {
        package: "xz-utils",
        detect: Detect::Command("xz"),
        purpose: "unpacks kernel modules",
        needs: &[Need::Vm],
    },
    Tool {
        package: "debian-archive-keyring",
        detect: Detect::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        purpose: "holds the keys that Debian's kernels are signed with",
        needs: &[Need::Vm],
    },
    Tool {
        package: "g++",
        detect: Detect::Command("c++"),
        purpose: "compiles libFuzzer",
        needs: &[Need::Fuzz],
    },
    Tool {
        package: "make",
        detect: Detect::Command("make"),
        purpose: "builds the agent's allocator",
        needs: &[Need::Agent, Need::Demo, Need::Vm, Need::Bench, Need::Image],
    },
    Tool {
        package: "buildah",
        detect: Detect::Command("buildah"),
        purpose: "builds container images without a daemon",
        needs: &[Need::Image],
    },
    Tool {
        package: "faketime",
        detect: Detect::Command("faketime"),
        purpose: "lets an hour pass in seconds for agents under test",
        needs: &[Need::Netns],
    },
    Tool {
        package: "chromium",
        detect: Detect::File("/usr/bin/chromium"),
        purpose: "is the tests' browser",
        needs: &[Need::Netns],
    },
];

/// Makes sure that everything in the table that is needed for `need` is there.
pub(crate) fn ensure(need: Need, policy: Policy) -> Result<()> {
    let absent = missing(need);
    if absent.is_empty() {
        return Ok(());
    }
    if policy == Policy::NoInstall {
        bail!("{}", sentence(&absent));
    }
    apt_install(&absent)?;
    let absent = missing(need);
    if !absent.is_empty() {
        bail!("installed, but still not found: {}", packages(&absent));
    }
    Ok(())
}

fn needed(need: Need) -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| tool.needs.contains(&need)).collect()
}

fn missing(need: Need) -> Vec<&'static Tool> {
    let tools = needed(need).into_iter();
    tools.filter(|tool| !tool.detect.found()).collect()
}

/// Installs Debian's matched compiler set even if parts of it are there (an older one may be).
pub(crate) fn debian_toolchain() -> Result<()> {
    apt_install(&needed(Need::DebianToolchain))
}

/// The command that would install what `need` asks for, for a sentence.
pub(crate) fn advice(need: Need) -> String {
    apt_line(&needed(need))
}

/// Whether this system has apt.
pub(crate) fn has_apt() -> bool {
    command::find("apt-get").is_some()
}

/// The command that installs the right bpf-linker by hand.
pub(crate) fn bpf_linker_advice() -> String {
    format!("cargo install bpf-linker --version {BPF_LINKER_VERSION} --locked")
}

/// Builds `name` from crates.io and returns its executable; quick when that is there already. It
/// goes into `target/tools`, not into the user's home, where another version may be in use.
pub(crate) fn crates_io_tool(
    workspace: &Workspace,
    name: &str,
    version: &str,
    purpose: &str,
) -> Result<PathBuf> {
    let tools = workspace.tools();
    let what = format!(
        "installing {name} {version} ({purpose}) into {}",
        workspace.relative(&tools).display()
    );
    let mut cargo = command::cargo();
    cargo
        // Not the workspace's: its configuration is no business of this build.
        .current_dir("/")
        .args(["install", name, "--locked", "--version", version, "--root"])
        .arg(&tools)
        .arg("--target-dir")
        .arg(tools.join("build"));
    step(&what, || command::stdout(&mut cargo)).with_context(|| {
        format!("cannot build {name}: check the network and that a C compiler is there")
    })?;
    Ok(tools.join("bin").join(name))
}

/// The same, but only where that is wanted, and at once where it is there.
pub(crate) fn pinned_tool(
    workspace: &Workspace,
    name: &str,
    version: &str,
    purpose: &str,
    policy: Policy,
) -> Result<PathBuf> {
    let done = workspace.tools().join(format!("{name}-{version}"));
    if !done.is_file() {
        if policy == Policy::NoInstall {
            bail!(
                "missing: {name} {version} of crates.io ({purpose}); leave out --no-install to have it \
                 built into {}",
                workspace.relative(&workspace.tools()).display()
            );
        }
        crates_io_tool(workspace, name, version, purpose)?;
        // Asking cargo each time would take seconds, and the network.
        fs::write(&done, version)?;
    }
    Ok(workspace.tools().join("bin").join(name))
}

impl Detect {
    fn found(&self) -> bool {
        match self {
            Self::Command(name) => command::find(name).is_some(),
            Self::File(path) => Path::new(path).is_file(),
        }
    }
}

fn sentence(missing: &[&Tool]) -> String {
    let tools: Vec<String> =
        missing.iter().map(|tool| format!("{} ({})", tool.package, tool.purpose)).collect();
    format!(
        "missing: {}; run `{}` as root, or leave out --no-install",
        tools.join(", "),
        apt_line(missing)
    )
}

fn apt_line(tools: &[&Tool]) -> String {
    format!("apt-get install {}", packages(tools))
}

fn packages(tools: &[&Tool]) -> String {
    let names: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    names.join(" ")
}

fn apt_install(tools: &[&Tool]) -> Result<()> {
    if !has_apt() {
        bail!(
            "{}; this system has no apt-get, so install them with its own package manager",
            sentence(tools)
        );
    }
    let Some(prefix) = privilege() else {
        bail!("{}; installing needs root, and `sudo -n` is refused here", sentence(tools));
    };
    for tool in tools {
        eprintln!("needed: {} ({})", tool.package, tool.purpose);
    }
    step("apt-get update", || {
        command::stdout(apt(prefix).arg("update"))
            .context("cannot refresh the package lists: check the network and sources.list")
    })?;
    step(&apt_line(tools), || {
        command::stdout(
            apt(prefix)
                // --no-remove: what the user has installed stays.
                .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
                .args(tools.iter().map(|tool| tool.package)),
        )
        .with_context(|| format!("cannot install; try `{}` by hand", apt_line(tools)))
    })?;
    Ok(())
}

/// What has to stand before a command for it to run as root; `None` when nothing can.
fn privilege() -> Option<&'static [&'static str]> {
    if Machine::read().is_root() {
        return Some(&[]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).output();
    sudo.is_ok_and(|output| output.status.success()).then_some(&["sudo", "-n"])
}

fn apt(prefix: &[&str]) -> Command {
    // `env` sets the variable behind sudo too, which clears the environment.
    let mut words =
        prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    let mut command = Command::new(words.next().unwrap_or("env"));
    command.args(words);
    // cargo's own libraries must not be what apt's helpers load.
    command.env_remove("LD_LIBRARY_PATH");
    command.env("PATH", path_with_sbin());
    command
}

fn path_with_sbin() -> String {
    let path = env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_every_tool_its_purpose_and_one_command() {
        let tools: [&Tool; 2] = [&TOOLS[3], &TOOLS[4]];
        assert_eq!(
            sentence(&tools),
            "missing: iproute2 (creates network namespaces), curl (is the demo's and the tests' \
             client); run `apt-get install iproute2 curl` as root, or leave out --no-install"
        );
    }

    #[test]
    fn the_debian_set_is_installed_whole() {
        assert_eq!(
            advice(Need::DebianToolchain),
            "apt-get install rustc-web cargo-web rust-web-src"
        );
    }

    #[test]
    fn a_tool_is_found_by_its_command_or_its_file() {
        assert!(Detect::Command("sh").found());
        assert!(Detect::File("/proc/self/status").found());
        assert!(!Detect::Command("no-such-command-anywhere").found());
        assert!(!Detect::File("/no/such/file").found());
    }
}
