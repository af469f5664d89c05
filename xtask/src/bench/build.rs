//! The agent as it would be installed: optimised, with its programs.

use anyhow::{Context as _, Result};

use crate::{build_ebpf::Builder, command, install::Policy, progress::step, workspace::Workspace};

/// Builds the programs, the agent and the tool that runs programs inside pods, and makes rigs use
/// them.
pub(super) fn build(workspace: &Workspace, policy: Policy) -> Result<()> {
    Builder::prepare(workspace, policy)?.build(false)?;
    step("building the optimised agent (some minutes the first time)", || {
        let mut cargo = command::cargo();
        cargo.current_dir(workspace.root());
        cargo.args(["build", "--quiet", "--release", "--bins"]);
        cargo.args(["--package", "undermesh", "--package", "undermesh-tests"]);
        command::run(&mut cargo)
    })
    .context("the agent does not build")?;
    undermesh_tests::use_binaries_of(workspace.root().join("target/release"))
}
