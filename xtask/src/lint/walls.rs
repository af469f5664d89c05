//! The walls between crates, compared with `cargo metadata`. The tables below are the architecture
//! page's, in a form that a program can check.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Finding;
use crate::{command, workspace::Workspace};

/// What each crate may use of the others, outside its tests. A crate that is not listed may use
/// any: the binary, the tests and xtask tie everything together.
const MEMBERS: [(&str, &[&str]); 8] = [
    ("undermesh-model", &[]),
    ("undermesh-ebpf-common", &[]),
    ("undermesh-telemetry", &["undermesh-model"]),
    ("undermesh-control", &["undermesh-model"]),
    ("undermesh-snapshot", &["undermesh-model", "undermesh-ebpf-common"]),
    ("undermesh-identity", &["undermesh-model", "undermesh-telemetry"]),
    (
        "undermesh-proxy",
        &["undermesh-model", "undermesh-snapshot", "undermesh-identity", "undermesh-telemetry"],
    ),
    ("undermesh-datapath", &["undermesh-model", "undermesh-snapshot", "undermesh-ebpf-common"]),
];

/// Crates that only some may use, tests included, and why. A trailing `*` stands for any ending.
const RESERVED: [(&str, &[&str], &str); 5] = [
    ("kube*", &["undermesh-control"], "Kubernetes stays behind the model"),
    ("k8s-openapi", &["undermesh-control"], "Kubernetes stays behind the model"),
    (
        "aya*",
        // Optional there, behind the feature `user`, for `unsafe impl Pod`.
        &["undermesh-datapath", "undermesh-ebpf-common"],
        "only the data path talks to the kernel's BPF",
    ),
    ("libc", &["undermesh-datapath"], "raw system calls stay in the data path"),
    (
        "anyhow",
        &["undermesh", "undermesh-tests", "xtask"],
        "a library's errors are types that its callers can tell apart",
    ),
];

/// The whole list of what the model may use, tests aside.
const MODEL: (&str, &[&str]) = ("undermesh-model", &["ipnet", "serde", "thiserror", "zeroize"]);

/// The feature that makes the map types loadable, and the one crate that may ask for it.
const LOADABLE: (&str, &str, &str) = ("undermesh-ebpf-common", "user", "undermesh-datapath");

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for an ordinary one, else `dev` or `build`.
    kind: Option<String>,
    features: Vec<String>,
}

impl Dependency {
    fn is_for_tests(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

/// Asks cargo who depends on whom, and reads the members' manifests.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let text = command::stdout(command::cargo().current_dir(workspace.root()).args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?;
    let mut metadata: Metadata =
        serde_json::from_str(&text).context("cannot read what `cargo metadata` says")?;
    let mut findings = Vec::new();
    for package in &mut metadata.packages {
        let manifest = std::fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("cannot read {}", package.manifest_path.display()))?;
        package.manifest_path = workspace.relative(&package.manifest_path).to_path_buf();
        findings.extend(opts_into_lints(package, &manifest));
    }
    findings.extend(breaches(&metadata));
    Ok(findings)
}

/// A lint of the workspace holds only for members that ask for it.
fn opts_into_lints(package: &Package, manifest: &str) -> Option<Finding> {
    let lines: Vec<&str> = manifest.lines().map(str::trim).collect();
    let opted_in = lines.windows(2).any(|pair| pair == ["[lints]", "workspace = true"]);
    let message = "add `[lints]` with `workspace = true`";
    (!opted_in).then(|| Finding::error(&package.manifest_path, None, message))
}

fn breaches(metadata: &Metadata) -> Vec<Finding> {
    let members: Vec<&str> =
        metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            let reason = inner_wall(package, dependency, &members)
                .or_else(|| reserved(package, dependency))
                .or_else(|| model(package, dependency))
                .or_else(|| loadable(package, dependency));
            if let Some(reason) = reason {
                let message =
                    format!("{} must not use {}: {reason}", package.name, dependency.name);
                findings.push(Finding::error(&package.manifest_path, None, message));
            }
        }
    }
    findings
}

fn inner_wall(package: &Package, dependency: &Dependency, members: &[&str]) -> Option<String> {
    let (_, allowed) = MEMBERS.iter().find(|(name, _)| *name == package.name)?;
    let is_member = members.contains(&dependency.name.as_str());
    let is_fine =
        !is_member || dependency.is_for_tests() || allowed.contains(&dependency.name.as_str());
    (!is_fine).then(|| match allowed {
        [] => "it stands alone among the workspace's crates".to_owned(),
        _ => format!("of the workspace's crates it may use {}", allowed.join(", ")),
    })
}

fn reserved(package: &Package, dependency: &Dependency) -> Option<String> {
    let (_, users, reason) =
        RESERVED.iter().find(|(pattern, _, _)| matches(pattern, &dependency.name))?;
    let is_fine = users.contains(&package.name.as_str());
    (!is_fine).then(|| format!("{reason} (only {} may)", users.join(", ")))
}

fn model(package: &Package, dependency: &Dependency) -> Option<String> {
    let (name, allowed) = MODEL;
    let is_fine = package.name != name
        || dependency.is_for_tests()
        || allowed.contains(&dependency.name.as_str());
    (!is_fine).then(|| format!("nouns need nothing but {}", allowed.join(", ")))
}

fn loadable(package: &Package, dependency: &Dependency) -> Option<String> {
    let (name, feature, user) = LOADABLE;
    let asks = dependency.name == name && dependency.features.iter().any(|it| it == feature);
    (asks && package.name != user).then(|| format!("its feature `{feature}` is for {user} only"))
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests;
