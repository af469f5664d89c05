//! Which compiler builds the programs. Building `core` for eBPF needs its sources, of exactly the
//! compiler's version, and an LLVM that bpf-linker can read. Two kinds of machine have that: one
//! with a nightly and `rust-src`, and a Debian with rustc-web, cargo-web and rust-web-src.

use std::{env, fmt, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    command,
    install::{self, LLVM_MAJOR, Need, Policy},
    progress::step,
};

/// The nightly that is installed where Debian's packages are not to be had.
const PINNED_NIGHTLY: &str = "nightly-2026-05-20";

/// A compiler with its cargo and the sources of `core`.
#[derive(Debug)]
pub(crate) struct Toolchain {
    name: String,
    version: Version,
    /// The compiler itself, not rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Directories that may hold the LLVM which `rustc` uses.
    pub(crate) library_directories: Vec<PathBuf>,
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    release: String,
    llvm: String,
}

impl Toolchain {
    /// The first usable compiler of this machine; when there is none, what can be installed.
    pub(crate) fn find_or_install(policy: Policy) -> Result<Self> {
        let rejected = match Self::find() {
            Ok(toolchain) => return Ok(toolchain),
            Err(rejected) => rejected,
        };
        if policy == Policy::NoInstall {
            bail!("{}", advice(&rejected));
        }
        let mut failures = Vec::new();
        for install in [install_debian_set, install_nightly] {
            match install().and_then(|()| Self::find().map_err(|rejected| anyhow!(rejected))) {
                Ok(toolchain) => return Ok(toolchain),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!("{}\n  {}", advice(&rejected), failures.join("\n  "));
    }

    /// Nightlies first: someone put their `rust-src` there on purpose. The error lists why each
    /// candidate was passed over.
    fn find() -> Result<Self, String> {
        let mut rejected = Vec::new();
        for candidate in nightlies().into_iter().chain([debian()]) {
            match candidate.check() {
                Ok(toolchain) => return Ok(toolchain),
                Err(error) => rejected.push(format!("{error:#}")),
            }
        }
        Err(rejected.join("; "))
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { release, llvm } = &self.version;
        write!(f, "{} (rustc {release}, LLVM {llvm})", self.name)
    }
}

/// A place where a compiler may be.
struct Candidate {
    name: String,
    /// The directory above `bin` and `lib`.
    prefix: PathBuf,
    library_directories: Vec<PathBuf>,
}

impl Candidate {
    fn check(self) -> Result<Toolchain> {
        let name = &self.name;
        let rustc = self.prefix.join("bin/rustc");
        let cargo = self.prefix.join("bin/cargo");
        let sources = self.prefix.join("lib/rustlib/src/rust");
        if !rustc.is_file() || !cargo.is_file() {
            bail!("{name} is not installed");
        }
        if !sources.join("library/core/src/lib.rs").is_file() {
            bail!("{name} has no rust-src");
        }
        let text = command::stdout(Command::new(&rustc).arg("-vV").env_remove("LD_LIBRARY_PATH"))?;
        let version = Version::parse(&text)
            .with_context(|| format!("{name} does not say its version in `rustc -vV`"))?;
        version.check_llvm(name)?;
        // rustup ships sources with the compiler; Debian's come separately and carry a version.
        if let Ok(source) = fs::read_to_string(sources.join("src/version")) {
            version.check_sources(name, source.trim())?;
        }
        Ok(Toolchain {
            name: self.name,
            version,
            rustc,
            cargo,
            library_directories: self.library_directories,
        })
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
        Some(Self {
            release: field("release: ")?.to_owned(),
            llvm: field("LLVM version: ")?.to_owned(),
        })
    }

    fn check_llvm(&self, name: &str) -> Result<()> {
        let major = self.llvm.split('.').next().unwrap_or_default();
        if major.parse() != Ok(LLVM_MAJOR) {
            bail!(
                "{name} uses LLVM {}, and bpf-linker {} reads only LLVM {LLVM_MAJOR}",
                self.llvm,
                install::BPF_LINKER_VERSION,
            );
        }
        Ok(())
    }

    fn check_sources(&self, name: &str, sources: &str) -> Result<()> {
        if sources != self.release {
            bail!("{name} is rustc {} but its library sources are of {sources}", self.release);
        }
        Ok(())
    }
}

/// The nightlies that rustup has on this machine, read from its directory: asking rustup takes
/// longer than a fresh build does.
fn nightlies() -> Vec<Candidate> {
    let home = env::var_os("RUSTUP_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".rustup"),
        PathBuf::from,
    );
    let mut names: Vec<String> = fs::read_dir(home.join("toolchains"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("nightly"))
        .collect();
    names.sort();
    let candidate = |name: String| {
        let prefix = home.join("toolchains").join(&name);
        Candidate { library_directories: vec![prefix.join("lib")], prefix, name }
    };
    names.into_iter().map(candidate).collect()
}

fn debian() -> Candidate {
    let architecture = env::consts::ARCH;
    Candidate {
        name: "Debian's rustc-web".to_owned(),
        prefix: PathBuf::from("/usr"),
        library_directories: vec![
            PathBuf::from(format!("/usr/lib/{architecture}-linux-gnu")),
            PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}/lib")),
        ],
    }
}

fn advice(rejected: &str) -> String {
    let debian = install::advice(Need::DebianToolchain);
    let nightly = nightly_command().join(" ");
    format!(
        "no compiler for the eBPF programs ({rejected}); run `{debian}` as root on Debian 12, or \
         `{nightly}` anywhere"
    )
}

fn install_debian_set() -> Result<()> {
    if !install::has_apt() {
        bail!("Debian's compiler needs apt-get, which this system does not have");
    }
    install::debian_toolchain()
}

fn install_nightly() -> Result<()> {
    let words = nightly_command();
    let rustup = command::find(words[0]).context("a nightly needs rustup, which is not here")?;
    step(&format!("{} (builds the eBPF programs)", words.join(" ")), || {
        command::stdout(Command::new(&rustup).args(&words[1..]))
    })?;
    Ok(())
}

fn nightly_command() -> [&'static str; 8] {
    [
        "rustup",
        "toolchain",
        "install",
        PINNED_NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ]
}

#[cfg(test)]
mod tests;
