//! `build-ebpf`: toolchain -> linker -> cargo -> listing. The programs are a package of their own,
//! outside the workspace; `undermesh-datapath` embeds the object that this leaves behind.

mod linker;
mod object;
mod toolchain;

use std::{
    env,
    ffi::OsString,
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{command, install::Policy, workspace::Workspace};
use linker::Linker;
use toolchain::Toolchain;

/// Options of `build-ebpf`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
    /// Show every compiler command
    #[arg(long, short)]
    verbose: bool,
}

/// Builds the programs and prints what is in the object.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let builder = Builder::prepare(workspace, Policy::from_flag(args.no_install))?;
    builder.build(args.verbose)?;
    println!("toolchain  {}, {}", builder.toolchain, builder.linker);
    print!("{}", builder.listing()?);
    Ok(ExitCode::SUCCESS)
}

/// Everything that building the programs needs, found or installed.
pub(crate) struct Builder<'a> {
    workspace: &'a Workspace,
    toolchain: Toolchain,
    linker: Linker,
}

impl<'a> Builder<'a> {
    /// Finds, or by `policy` installs, a compiler and bpf-linker. An error says what is missing.
    pub(crate) fn prepare(workspace: &'a Workspace, policy: Policy) -> Result<Self> {
        Ok(Self {
            workspace,
            toolchain: Toolchain::find_or_install(policy)?,
            linker: Linker::find_or_install(workspace, policy)?,
        })
    }

    /// Builds the object at `Workspace::ebpf_object`; quick when it is fresh.
    pub(crate) fn build(&self, verbose: bool) -> Result<()> {
        let library = linker::isolate_llvm(self.workspace, &self.toolchain)?;
        let package = self.workspace.ebpf_package();
        let mut cargo = Command::new(&self.toolchain.cargo);
        forget_outer_cargo(&mut cargo);
        cargo
            .current_dir(&package)
            .env("RUSTC", &self.toolchain.rustc)
            // Both kinds of compiler take it; a stable one needs it for build-std.
            .env("RUSTC_BOOTSTRAP", "1")
            // In pieces, as an incremental build has them, functions are not inlined that the verifier needs to be.
            .env("CARGO_INCREMENTAL", "0")
            .env("LD_LIBRARY_PATH", library)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags())
            .args(["build", "--release", "--locked", "-Zbuild-std=core"])
            .args(["--target", "bpfel-unknown-none", "--target-dir"])
            .arg(package.join("target"));
        if verbose {
            cargo.arg("--verbose");
        }
        command::run(&mut cargo).context("the eBPF programs do not build")
    }

    /// Flags are separated by 0x1f, so that a path may hold spaces.
    fn rustflags(&self) -> OsString {
        let mut flags = OsString::from(format!(
            "--cfg=bpf_target_arch=\"{}\"\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}-Clinker=",
            env::consts::ARCH
        ));
        flags.push(&self.linker.path);
        flags
    }

    fn listing(&self) -> Result<String> {
        let path = self.workspace.ebpf_object();
        let bytes = fs::read(&path)
            .with_context(|| format!("cannot read the object {}", path.display()))?;
        let listing = object::Listing::parse(&bytes)
            .with_context(|| format!("{} is not an eBPF object", path.display()))?;
        Ok(format!(
            "object     {}, {} KiB\n{listing}",
            self.workspace.relative(&path).display(),
            bytes.len().div_ceil(1024),
        ))
    }
}

/// The outer cargo and rustup chose a toolchain for user space through the environment; the
/// programs are built by another one.
fn forget_outer_cargo(command: &mut Command) {
    for name in [
        "CARGO",
        "CARGO_BUILD_RUSTC",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
}
