//! The walls, tried on made-up metadata.

use super::*;

/// Findings for members given as `name: dependency[/kind][+feature] ...`.
fn findings(members: &[&str]) -> Vec<String> {
    let packages = members.iter().map(|line| package(line)).collect();
    breaches(&Metadata { packages }).iter().map(|finding| finding.message.clone()).collect()
}

fn package(line: &str) -> Package {
    let (name, dependencies) = line.split_once(':').unwrap();
    Package {
        name: name.to_owned(),
        manifest_path: PathBuf::from(format!("{name}/Cargo.toml")),
        dependencies: dependencies.split_whitespace().map(dependency).collect(),
    }
}

fn dependency(word: &str) -> Dependency {
    let (word, feature) = word.split_once('+').unwrap_or((word, ""));
    let (name, kind) = word.split_once('/').unwrap_or((word, ""));
    Dependency {
        name: name.to_owned(),
        kind: (!kind.is_empty()).then(|| kind.to_owned()),
        features: vec![feature.to_owned()],
    }
}

#[test]
fn what_the_architecture_allows_passes() {
    let found = findings(&[
        "undermesh-model: ipnet serde thiserror zeroize proptest/dev",
        "undermesh-ebpf-common: aya zerocopy",
        "undermesh-snapshot: undermesh-model undermesh-ebpf-common",
        "undermesh-datapath: undermesh-snapshot undermesh-ebpf-common+user aya aya-log libc",
        "undermesh-control: undermesh-model kube kube-runtime k8s-openapi",
        "undermesh: undermesh-datapath undermesh-control undermesh-snapshot anyhow",
    ]);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_proxy_must_not_use_the_data_path() {
    let found = findings(&["undermesh-proxy: undermesh-datapath", "undermesh-datapath:"]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("undermesh-proxy must not use undermesh-datapath: "), "{found:?}");
}

#[test]
fn a_test_may_use_another_member_but_never_a_reserved_crate() {
    let found =
        findings(&["undermesh-proxy: undermesh-control/dev kube-client/dev", "undermesh-control:"]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("kube-client"), "{found:?}");
}

#[test]
fn only_control_uses_kubernetes_and_only_the_data_path_uses_aya_and_libc() {
    let found = findings(&["undermesh-proxy: kube k8s-openapi aya libc"]);
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn anyhow_stays_out_of_libraries() {
    let found =
        findings(&["undermesh-identity: anyhow", "xtask: anyhow", "undermesh-tests: anyhow"]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("undermesh-identity must not use anyhow"), "{found:?}");
}

#[test]
fn the_model_uses_nothing_heavy() {
    let found = findings(&["undermesh-model: tokio"]);
    assert!(found[0].contains("nouns need nothing but ipnet"), "{found:?}");
}

#[test]
fn only_the_data_path_makes_map_types_loadable() {
    let found =
        findings(&["undermesh-snapshot: undermesh-ebpf-common+user", "undermesh-ebpf-common:"]);
    assert!(found[0].contains("feature `user`"), "{found:?}");
}

#[test]
fn a_member_without_the_workspace_lints_is_reported() {
    let member = package("undermesh-model:");
    assert_eq!(opts_into_lints(&member, "[package]\n\n[lints]\nworkspace = true\n"), None);
    let finding = opts_into_lints(&member, "[package]\nname = \"x\"\n").unwrap();
    assert_eq!(finding.path, PathBuf::from("undermesh-model/Cargo.toml"));
}

#[test]
fn every_crate_in_the_tables_is_one_of_ours() {
    let metadata =
        command::stdout(command::cargo().args(["metadata", "--format-version", "1", "--no-deps"]))
            .unwrap();
    let metadata: Metadata = serde_json::from_str(&metadata).unwrap();
    let is_member = |name: &str| metadata.packages.iter().any(|package| package.name == name);
    let named = MEMBERS
        .iter()
        .flat_map(|(name, allowed)| allowed.iter().chain([name]))
        .chain(RESERVED.iter().flat_map(|(_, users, _)| users.iter()));
    for name in named {
        assert!(is_member(name), "{name} is not a member");
    }
}
