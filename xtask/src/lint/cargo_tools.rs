//! The checks that other programs make. What they have to say goes straight to the terminal; the
//! finding only says which one failed and how to repair it.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::Finding;
use crate::{command, install, workspace::Workspace};

/// The cargo-deny that `lint --deny` installs.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// rustfmt over the workspace and over the programs, which are no member of it.
pub(super) fn fmt(workspace: &Workspace) -> Result<Vec<Finding>> {
    let programs = workspace.ebpf_package().join("Cargo.toml");
    let mut members = command::cargo();
    members.args(["fmt", "--all", "--check"]);
    let mut outside = command::cargo();
    outside.args(["fmt", "--check", "--manifest-path"]).arg(&programs);
    let mut findings = verdict(workspace, members, "not formatted: run `cargo fmt --all`");
    let repair = format!(
        "not formatted: run `cargo fmt --manifest-path {}`",
        workspace.relative(&programs).display()
    );
    findings.extend(verdict(workspace, outside, &repair));
    Ok(findings)
}

/// clippy over every target of the workspace.
pub(super) fn clippy(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut cargo = command::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    Ok(verdict(workspace, cargo, "clippy complains; its messages are above"))
}

/// cargo-deny as `deny.toml` says, with its database of advisories from the network.
pub(super) fn deny(workspace: &Workspace) -> Result<Vec<Finding>> {
    let path = match command::find("cargo-deny") {
        Some(path) => path,
        None => {
            let purpose = "checks dependencies";
            install::crates_io_tool(workspace, "cargo-deny", CARGO_DENY_VERSION, purpose)?
        }
    };
    let check = |what: &[&str]| {
        let mut command = Command::new(&path);
        command.arg("check").args(what);
        command
    };
    let rules = check(&["licenses", "bans", "sources"]);
    let mut findings = verdict(workspace, rules, "dependencies break a rule of deny.toml");
    let advisories = check(&["advisories"]);
    let message = "advisories apply, or their database cannot be fetched";
    findings.extend(verdict(workspace, advisories, message));
    Ok(findings)
}

fn verdict(workspace: &Workspace, mut command: Command, message: &str) -> Vec<Finding> {
    command.current_dir(workspace.root());
    match command::run(&mut command) {
        Ok(()) => Vec::new(),
        Err(error) => vec![Finding::error(Path::new("."), None, format!("{message} ({error:#})"))],
    }
}
