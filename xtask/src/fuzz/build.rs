//! Builds the executable. The instrumentation that libFuzzer needs is a pass of LLVM that every stable
//! compiler has; a nightly would only be needed for sanitizers, and what is fuzzed here is safe Rust.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use super::targets::Target;
use crate::{command, progress::step, workspace::Workspace};

const PACKAGE: &str = "undermesh-fuzz";
/// See the workspace's `Cargo.toml`.
const PROFILE: &str = "fuzz";
/// A counter on every edge, a table of where they are, and comparisons that the fuzzer may learn from.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Branches that are folded together cannot be told apart.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// The executable.
pub(super) struct Fuzzer {
    path: PathBuf,
}

/// Builds all targets into one executable.
pub(super) fn build(workspace: &Workspace) -> Result<Fuzzer> {
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let directory = workspace.fuzzing();
    step("building the fuzz targets", || {
        let mut cargo = command::cargo();
        // With a target named, build scripts and macros are not instrumented.
        cargo
            .current_dir(workspace.root())
            .args(["build", "--package", PACKAGE, "--features", "libfuzzer"])
            .args(["--profile", PROFILE, "--target", &triple, "--target-dir"])
            .arg(&directory)
            .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
        command::stdout(&mut cargo)
    })
    .context("cannot build the fuzz targets: is there a C++ compiler?")?;
    Ok(Fuzzer { path: directory.join(triple).join(PROFILE).join(PACKAGE) })
}

impl Fuzzer {
    /// The executable, for a target.
    pub(super) fn command(&self, target: &Target) -> Command {
        let mut command = Command::new(&self.path);
        command.env("FUZZ_TARGET", &target.name);
        command
    }

    /// Writes the dictionary and the seeds of a target.
    pub(super) fn prepare(&self, target: &Target, directory: &Path) -> Result<()> {
        command::stdout(self.command(target).env("FUZZ_PREPARE", directory)).map(drop)
    }

    /// Runs a target with one input, with its output on the terminal.
    pub(super) fn replay(&self, target: &Target, file: &Path) -> Result<ExitCode> {
        let status = self.command(target).arg(file).status();
        let status = status.with_context(|| format!("cannot start {}", self.path.display()))?;
        let verdict = if status.success() { "nothing is wrong with it" } else { "a finding" };
        println!("{} with {}: {verdict}", target.name, file.display());
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
