//! What is built once stays built once. `cargo xtask`, what it builds and the tests are separate commands, and cargo
//! compiles a crate anew for every set of features and every profile (docs/guide/building.md).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::Finding;
use crate::{command, workspace::Workspace};

/// Where features are asked for that tests alone need.
const XTASK: &str = "xtask/Cargo.toml";
/// Where members have their profiles.
const ROOT: &str = "Cargo.toml";

/// Packages as `cargo tree` names them, and the features of each; two sets where what runs in the
/// compiler is built with others.
type Packages<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Asks cargo what it would build without tests, and with them.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let tree = |edges: &str| {
        let mut cargo = command::cargo();
        cargo.current_dir(workspace.root()).args(["tree", "--workspace", "--prefix", "none"]);
        command::stdout(cargo.args(["--format", "{p}\t{f}\t", "--edges", edges]))
    };
    let (without, with) = (tree("normal,build")?, tree("normal,build,dev")?);
    let (without, with) = (packages(&without), packages(&with));
    let manifest = fs::read_to_string(workspace.root().join(ROOT))
        .with_context(|| format!("cannot read {ROOT}"))?;
    let mut found = built_twice(&without, &with);
    found.extend(forgotten(&with, &manifest));
    Ok(found)
}

/// Behind the second tab there may be a mark that what follows has been shown before.
fn packages(tree: &str) -> Packages<'_> {
    let mut packages = Packages::new();
    for line in tree.lines() {
        let mut parts = line.split('\t');
        if let (Some(package), Some(features)) = (parts.next(), parts.next()) {
            packages.entry(package).or_default().insert(features);
        }
    }
    packages
}

/// Packages that tests want with other features.
fn built_twice(without: &Packages<'_>, with: &Packages<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (package, sets) in without {
        let wanted = with.get(package).cloned().unwrap_or_default();
        if sets.is_subset(&wanted) {
            continue;
        }
        let features = |sets: &BTreeSet<&str>| -> BTreeSet<String> {
            sets.iter().flat_map(|set| set.split(',')).map(str::to_owned).collect()
        };
        let more: Vec<String> = features(&wanted).difference(&features(sets)).cloned().collect();
        let message = format!(
            "{package} would be built again for tests, which add the features [{}] or ask for \
             something that adds them: xtask has to ask for it as well",
            more.join(", ")
        );
        found.push(Finding::error(Path::new(XTASK), None, message));
    }
    found
}

/// Members without a profile: they would be optimised like dependencies, and without lines in
/// backtraces.
fn forgotten(packages: &Packages<'_>, manifest: &str) -> Vec<Finding> {
    let section = manifest.split_once("\n[profile.dev.package]\n").map_or("", |(_, rest)| rest);
    let named: Vec<&str> = section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .collect();
    let members = packages.keys().filter(|package| package.contains(" (/"));
    members
        .filter_map(|package| package.split(' ').next())
        .filter(|name| !named.contains(name))
        .map(|name| {
            let message = format!("{name} is missing under [profile.dev.package]");
            Finding::error(Path::new(ROOT), None, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: &str = "xtask v0.1.0 (/r/xtask)\t\t\ntokio v1.0.0\trt,test-util,time\t\n\
                        syn v2.0.0\tfull\t (*)\nsyn v2.0.0\tfull,visit\t\n";

    fn messages(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn what_tests_want_with_more_features_is_found_with_these() {
        let without = "tokio v1.0.0\trt,time\t\nsyn v2.0.0\tfull\t\n";
        let found = messages(built_twice(&packages(without), &packages(WITH)));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("tokio v1.0.0 "), "{found:?}");
        assert!(found[0].contains("[test-util]"), "{found:?}");
    }

    #[test]
    fn what_only_tests_use_is_no_finding() {
        let without = "xtask v0.1.0 (/r/xtask)\t\t\nsyn v2.0.0\tfull,visit\t\n";
        assert_eq!(built_twice(&packages(without), &packages(WITH)), []);
    }

    #[test]
    fn a_member_needs_a_profile_and_a_dependency_needs_none() {
        let manifest = |name: &str| {
            format!("[profile.dev]\na = 1\n\n[profile.dev.package]\n{name} = {{ a = 1 }}\n[x]\n")
        };
        assert_eq!(forgotten(&packages(WITH), &manifest("xtask")), []);
        let found = messages(forgotten(&packages(WITH), &manifest("task")));
        assert_eq!(found, ["xtask is missing under [profile.dev.package]"]);
    }
}
