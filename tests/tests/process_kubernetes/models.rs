//! The same objects through both sources give the same model: all cases of `tests/cases`, and what real
//! pods look like.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::bench::{self, Dir, Followed, server};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use undermesh_control::parse_manifests;
use undermesh_model::Cluster;
use undermesh_tests::{apiserver::Options, cases::Case};

const PEM: &str = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n";

/// Stands for what the rig of the cases puts in.
fn put_in(text: String) -> Result<String> {
    let mut addresses: BTreeMap<String, usize> = BTreeMap::new();
    let mut text = text.replace("$keys", "{\"keys\":[]}").replace("$root", PEM);
    for (mark, prefix) in [("$ip(", "10.1.0."), ("$vip(", "10.96.0."), ("$ip6(", "fd00::")] {
        while let Some(at) = text.find(mark) {
            let end = text[at..].find(')').context("a mark has no end")? + at;
            let name = text[at + mark.len()..end].to_owned();
            let next = addresses.len() + 1;
            let number = *addresses.entry(name).or_insert(next);
            text.replace_range(at..=end, &format!("{prefix}{number}"));
        }
    }
    Ok(text)
}

/// What cases are about: pods and services of their names.
fn world() -> Vec<Value> {
    let namespaced = |kind: &str, namespace: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    let mut objects = Vec::new();
    for (index, name) in ["one", "two", "three", "client", "visitor"].iter().enumerate() {
        let namespace = if *name == "visitor" { "front" } else { "shop" };
        let mut pod = bench::pod(name, bench::NODE, &format!("10.7.0.{index}"));
        pod["metadata"]["namespace"] = json!(namespace);
        pod["metadata"]["labels"]["version"] = json!(if *name == "two" { "v2" } else { "v1" });
        pod["spec"]["serviceAccountName"] = json!(name);
        pod["spec"]["containers"] = json!([{
            "name": "c", "image": "x", "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
        }]);
        objects.push(pod);
        objects.push(namespaced("ServiceAccount", namespace, name));
    }
    let services = ["shop", "one", "two", "three", "trio", "orders", "reviews", "empty", "legacy"];
    for (index, name) in services.iter().enumerate() {
        let mut service = namespaced("Service", "shop", name);
        service["spec"] = json!({
            "clusterIP": format!("10.97.0.{index}"), "selector": {"app": name},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "http-more", "port": 81, "targetPort": 8080},
                {"name": "grpc", "port": 82, "targetPort": 8080},
                {"name": "tcp", "port": 90, "targetPort": 8081},
                {"name": "tls", "port": 443, "targetPort": 8443},
            ],
        });
        objects.push(service);
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": bench::NODE, "labels": {"topology.kubernetes.io/region": "north"}},
        "spec": {"podCIDR": "10.1.0.0/24"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "172.16.0.1"}],
            "images": [{"names": ["x"]}],
        },
    }));
    for name in ["front", "stock", "shop"] {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"istio.io/dataplane-mode": "ambient"}},
        }));
    }
    objects.push(json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
        "metadata": {"name": "safe"}, "handler": "runsc",
    }));
    let mut safe = bench::pod("safe", bench::NODE, "10.7.0.99");
    safe["spec"]["runtimeClassName"] = json!("safe");
    objects.push(safe);
    objects.push(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "one-abc", "namespace": "shop", "labels": {"kubernetes.io/service-name": "one"},
        },
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": ["10.7.0.0"], "conditions": {"ready": true}, "nodeName": bench::NODE,
            "targetRef": {"kind": "Pod", "name": "one", "namespace": "shop"},
        }],
    }));
    objects
}

/// What a directory cannot know, and the order of what has none.
fn comparable(cluster: &Cluster) -> Cluster {
    let mut cluster = cluster.clone();
    cluster.workloads.values_mut().for_each(|pod| pod.location = None);
    cluster.routes.sort_by_key(|route| format!("{route:?}"));
    cluster.backend_tls.sort_by_key(|tls| format!("{tls:?}"));
    cluster
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn the_same_objects_give_the_same_model() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    let mut base = Vec::new();
    for object in world() {
        base.push(server.put(&object)?);
    }
    let mut source = Followed::new(&dir, kubeconfig)?;
    source.until_complete()?;
    let (mut equal, mut refused) = (0, 0);
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"))? {
        for case in Case::read(&file, put_in)? {
            let mut stored = Vec::new();
            for object in &case.objects {
                stored.push(server.put(object).with_context(|| case.case.clone())?);
            }
            // As the server has them now: with the times at which they were created.
            let more = namespaces(&server, &base);
            let objects = base.iter().chain(&stored).chain(&more);
            let texts: Vec<String> = objects.map(ToString::to_string).collect();
            let loaded = parse_manifests(&texts.join("\n---\n"), Path::new("all.yaml"));
            match loaded.cluster {
                Some(expected) => {
                    let expected = comparable(&expected);
                    let what = format!("{}: the same model", case.case);
                    let found = source.until(&what, |cluster| comparable(cluster) == expected);
                    if found.is_err() {
                        let now = source.cluster.as_deref().map(comparable);
                        panic!("{what}\nexpected {expected:#?}\nfound {now:#?}");
                    }
                    equal += 1;
                }
                None => refused += 1,
            }
            for object in stored {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let metadata = &object["metadata"];
                server.delete(
                    &text(&object["apiVersion"]),
                    &text(&object["kind"]),
                    &text(&metadata["namespace"]),
                    &text(&metadata["name"]),
                );
            }
        }
    }
    ensure!(equal > 200, "only {equal} cases were compared, {refused} are refused");
    Ok(())
}

/// Namespaces that were made because objects are in them.
fn namespaces(server: &undermesh_tests::apiserver::ApiServer, base: &[Value]) -> Vec<Value> {
    let known = |name: &str| {
        base.iter()
            .any(|object| object["kind"] == "Namespace" && object["metadata"]["name"] == *name)
    };
    let names = server.names("v1", "Namespace");
    let unknown = names.iter().filter(|name| !known(name));
    unknown.filter_map(|name| server.get("v1", "Namespace", "", name)).collect()
}
