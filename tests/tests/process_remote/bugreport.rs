//! `undermesh bugreport --all-nodes`.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use anyhow::Result;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use undermesh_tests::apiserver::Door;

use super::{Agent, Cluster, DASHBOARD};

/// The files of an archive, by name.
fn files(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(path)?));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        files.insert(name.trim_start_matches("undermesh-bugreport/").to_owned(), text);
    }
    Ok(files)
}

#[test]
fn one_archive_has_what_all_agents_and_controllers_know_and_says_what_is_missing() -> Result<()> {
    let cluster = Cluster::new()?;
    let api = &cluster.plane.api;
    let a = Agent::start(&[("01.000", "one")], 0)?;
    a.keeps(
        json!({"event": "request", "path": "/a?token=sesame", "source": {"pod": "two"}})
            .to_string(),
    );
    cluster.agent("a", &a)?;
    // Nothing listens in the pod of b, and c has none.
    cluster.pods.add(api, "agent", "agent-b", "b")?;
    api.put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "c"}}))?;
    let mut controller = cluster.plane.controller("one", &[])?;
    controller.wait_ready()?;
    cluster.pods.add(api, "controller", "controller-1", "a")?;
    let there = controller.address("dashboardAddress")?;
    cluster.pods.open("controller-1", DASHBOARD, Door::here(there));
    let path = cluster.kubeconfig.with_file_name("report.tar.gz");
    let path_text = path.display().to_string();
    let (code, out, err) = cluster.run(&["bugreport", "--all-nodes", "-o", &path_text])?;
    assert_eq!(code, Some(1), "{out}{err}");
    for part in [
        "nodes/b/status.json: and all else of port 15000: pod agent-b does not answer",
        "nodes/c: no agent runs there",
        "nodes/a/metrics.txt: and all else of port 15020",
        "controllers/controller-1/metrics.txt: and all else of port 15014",
    ] {
        assert!(err.contains(&format!("missing: {part}")), "{part}: {err}");
    }
    let files = files(&path)?;
    for name in [
        "about.json",
        "pods.json",
        "nodes/a/status.json",
        "nodes/a/maps/SERVICES.json",
        "controllers/controller-1/status.json",
        "controllers/controller-1/controller.log",
    ] {
        assert!(files.get(name).is_some_and(|text| !text.is_empty()), "{name}: {:?}", files.keys());
    }
    assert!(
        files["nodes/a/flows.ndjson"].contains("token=(redacted)"),
        "{}",
        files["nodes/a/flows.ndjson"]
    );
    assert!(!files.values().any(|text| text.contains("sesame")));
    assert!(files["controllers/controller-1/controller.log"].contains("starting the controller"));
    let about: Value = serde_json::from_str(&files["about.json"])?;
    assert_eq!(about["missing"].as_array().map(Vec::len), Some(5), "{about}");
    let (code, _, _) = cluster.run(&["bugreport", "--all-nodes", "--no-flows", "-o", "-"])?;
    assert_eq!(code, Some(1));
    assert!(!a.asked().iter().skip_while(|it| *it != "/flows").skip(1).any(|it| it == "/flows"));
    Ok(())
}

#[test]
fn pods_that_have_their_pages_at_other_ports_are_asked_there() -> Result<()> {
    let cluster = Cluster::new()?;
    let api = &cluster.plane.api;
    let a = Agent::start(&[("01.000", "one")], 0)?;
    let container = json!({"name": "agent", "env": [
        {"name": "UNDERMESH_ADMIN_ADDRESS", "value": "127.0.0.1:25000"},
        {"name": "UNDERMESH_METRICS_ADDRESS", "value": "[::]:25020"}]});
    cluster.pods.with(api, "agent", ("agent-a", "a"), &container)?;
    for port in [25000, 25020] {
        cluster.pods.open("agent-a", port, Door::here(a.address));
    }
    let mut controller = cluster.plane.controller("one", &[])?;
    controller.wait_ready()?;
    let container = json!({"name": "controller", "args": ["controller", "--dashboard-address=127.0.0.1:25018"],
        "ports": [{"name": "http-metrics", "containerPort": 25014}]});
    cluster.pods.with(api, "controller", ("controller-1", "a"), &container)?;
    for (port, setting) in [(25018, "dashboardAddress"), (25014, "metricsAddress")] {
        cluster.pods.open("controller-1", port, Door::here(controller.address(setting)?));
    }
    let path = cluster.kubeconfig.with_file_name("ports.tar.gz");
    let (code, _, err) =
        cluster.run(&["bugreport", "--all-nodes", "-o", &path.display().to_string()])?;
    assert_eq!(code, Some(0), "{err}");
    let files = files(&path)?;
    assert!(files["controllers/controller-1/metrics.txt"].contains("undermesh_controller_"));
    assert!(files["controllers/controller-1/controller.log"].contains("starting the controller"));
    for name in ["nodes/a/flows.ndjson", "nodes/a/metrics.txt"] {
        assert!(files[name].contains("cursor"), "{name}: {}", files[name]);
    }
    // What somebody says counts.
    let (code, _, err) = cluster.run(&[
        "bugreport",
        "--all-nodes",
        "-o",
        "-",
        "--admin-address",
        "127.0.0.1:15000",
    ])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("nodes/a/status.json: and all else of port 15000"), "{err}");
    Ok(())
}
