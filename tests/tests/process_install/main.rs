//! `undermesh install`, `upgrade`, `check`, `uninstall` and `status --all-nodes`, against an API server and what a
//! cluster does with objects: pods of sets run, the controller leads, nodes are cleaned.

mod cluster;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use undermesh_tests::{
    apiserver::{Call, KubeClient},
    wait_for,
};

use cluster::{Cluster, NAMESPACE};

const IMAGE: &str = "registry.example/undermesh:1";
const NEXT: &str = "registry.example/undermesh:2";
/// As many documents as the manifest has.
const MANIFEST: &str = include_str!("../../../deploy/kubernetes/undermesh.yaml");

fn agents(cluster: &Cluster) -> Option<Value> {
    cluster.api.get("apps/v1", "DaemonSet", NAMESPACE, "undermesh-agent")
}

fn image(cluster: &Cluster) -> Result<String> {
    let set = agents(cluster).context("there are no agents")?;
    let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    Ok(image.context("no image")?.to_owned())
}

fn settings(cluster: &Cluster) -> Result<String> {
    let map = cluster.api.get("v1", "ConfigMap", NAMESPACE, "undermesh-agent");
    let map = map.context("agents have no settings")?;
    Ok(map["data"]["agent.yaml"].as_str().context("no settings")?.to_owned())
}

/// What was written or removed, in order, as `verb resource/name`.
fn changes(calls: &[Call]) -> Vec<String> {
    let changes = calls.iter().filter(|it| matches!(it.verb.as_str(), "patch" | "delete"));
    let ours = changes.filter(|it| it.subresource.is_empty() && it.param("dryRun").is_empty());
    ours.map(|it| format!("{} {}/{}", it.verb, it.plural, it.name)).collect()
}

#[test]
fn it_is_installed_and_upgraded_and_says_that_it_works() -> Result<()> {
    let cluster = Cluster::new()?;
    let done = cluster.run(&["install", "--image", IMAGE, "--cluster-name", "east"])?;
    assert_eq!(done.code, 0, "{done:?}");
    for part in [
        "ok       api-server   Kubernetes 1.32",
        "2 of 2 are fit",
        "no other mesh",
        "all of undermesh-controller run registry.example/undermesh:1",
        "one leads",
        "it refuses what cannot be meant",
        "all of undermesh-agent run registry.example/undermesh:1",
        "2 of 2 nodes are well, with 6 pods in the mesh",
    ] {
        assert!(done.out.contains(part), "{part}: {done:?}");
    }
    assert!(done.err.contains("daemonsets undermesh-agent: ready"), "{done:?}");
    assert_eq!(image(&cluster)?, IMAGE);
    assert!(settings(&cluster)?.contains("cluster: east"));
    let documents = MANIFEST.matches("\n---\n").count();
    assert_eq!(done.err.matches(": applied").count(), documents);
    // What was tried with the webhook was not stored.
    assert!(cluster.api.names("undermesh.io/v1alpha1", "RateLimitPolicy").is_empty());

    let again = cluster.run(&["install", "--image", NEXT])?;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("installed already"), "{again:?}");
    assert_eq!(image(&cluster)?, IMAGE);
    let upgraded = cluster.run(&["upgrade", "--image", NEXT])?;
    assert_eq!(upgraded.code, 0, "{upgraded:?}");
    assert!(upgraded.err.contains(&format!("from {IMAGE} to {NEXT}")), "{upgraded:?}");
    assert_eq!(image(&cluster)?, NEXT);
    // What was said once need not be said again.
    assert!(settings(&cluster)?.contains("cluster: east"));
    Ok(())
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_changed() -> Result<()> {
    let cluster = Cluster::new()?;
    let api = &cluster.api;
    api.put(&cluster::node("old", "4.19.0-27-amd64", "amd64", "containerd://1.7.0"))?;
    api.put(&cluster::node("arm", "6.1.0", "arm64", "docker://20.10"))?;
    let mut silent = cluster::node("silent", "6.1.0", "amd64", "containerd://2.1.9");
    silent["status"]["conditions"] = json!([
        {"type": "MemoryPressure", "status": "Unknown"},
        {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status."},
    ]);
    api.put(&silent)?;
    api.put(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }))?;
    api.put(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient", "istio-injection": "enabled"}},
    }))?;
    api.put(&json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "ztunnel", "namespace": "istio-system"}, "spec": {},
    }))?;
    api.put(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": "kube-system"},
        "data": {"kube-proxy-replacement": "true"},
    }))?;
    cluster.deny("create", "clusterroles");
    let checked = cluster.run(&["check", "--pre"])?;
    assert_eq!(checked.code, 2);
    for part in [
        "error    nodes        old has kernel \"4.19.0-27-amd64\"",
        "error    nodes        arm is \"arm64\"",
        "warning  nodes        arm has the runtime \"docker://20.10\"",
        "warning  nodes        silent is not ready: Kubelet stopped posting node status.",
        "2 of 5 are fit",
        "error    namespace    undermesh-system admits pods of level restricted",
        "error    neighbours   DaemonSet istio-system/ztunnel",
        "warning  neighbours   Cilium translates",
        "warning  neighbours   namespace shop is to be in the mesh, and has Istio's sidecars",
        "error    rights       you may not create clusterroles.rbac.authorization.k8s.io",
        "ok       kinds        the Gateway API: 8 kinds",
    ] {
        assert!(checked.out.contains(part), "{part}: {}", checked.out);
    }
    api.calls();
    let refused = cluster.run(&["install", "--image", IMAGE])?;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("nothing was changed"), "{refused:?}");
    assert_eq!(changes(&api.calls()), Vec::<String>::new());
    let forced = cluster.run(&["install", "--image", IMAGE, "--force"])?;
    assert_eq!(image(&cluster)?, IMAGE, "{forced:?}");
    Ok(())
}

#[test]
fn a_server_that_is_too_old_or_away_is_an_error() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.set_version("29");
    let checked = cluster.run(&["check", "--pre"])?;
    assert!(checked.out.contains("error    api-server   Kubernetes 1.29"), "{checked:?}");
    cluster.api.stop();
    let checked = cluster.run(&["check", "--pre"])?;
    assert_eq!(checked.code, 2);
    // Once, not for everything that could be asked.
    let line =
        format!("error    api-server   https://{}/ does not answer: ", cluster.api.address());
    assert!(checked.out.starts_with(&line), "{line}: {checked:?}");
    assert_eq!(checked.out.matches("error  ").count(), 1, "{checked:?}");
    Ok(())
}

#[test]
fn pods_that_do_not_run_say_why() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.break_pods();
    let failed = cluster.run(&["install", "--image", IMAGE, "--timeout", "2s"])?;
    assert_eq!(failed.code, 1);
    assert!(failed.err.contains("0 of 2 are ready after 2s"), "{failed:?}");
    assert!(
        failed.err.contains("pod undermesh-agent-a: ImagePullBackOff no such image"),
        "{failed:?}"
    );
    Ok(())
}

#[test]
fn a_field_that_somebody_else_has_set_is_taken_by_force_alone() -> Result<()> {
    let cluster = Cluster::new()?;
    assert_eq!(cluster.run(&["install", "--image", IMAGE])?.code, 0);
    let other = KubeClient::new(cluster.kubeconfig())?;
    other.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "undermesh-controller", "namespace": NAMESPACE},
        "spec": {"replicas": 5},
    }))?;
    let refused = cluster.run(&["upgrade", "--image", NEXT])?;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("--force takes the fields over"), "{refused:?}");
    let forced = cluster.run(&["upgrade", "--image", NEXT, "--force"])?;
    assert_eq!(forced.code, 0, "{forced:?}");
    Ok(())
}

#[test]
fn what_helm_has_installed_is_helms() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.api.put(&json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": "undermesh-agent", "namespace": NAMESPACE,
            "annotations": {"meta.helm.sh/release-name": "mesh"},
        },
        "spec": {},
    }))?;
    for command in ["install", "upgrade"] {
        let refused = cluster.run(&[command, "--image", IMAGE])?;
        assert!(refused.err.contains("Helm has installed it, as release \"mesh\""), "{refused:?}");
    }
    Ok(())
}

#[test]
fn what_does_not_work_afterwards_is_found() -> Result<()> {
    let cluster = Cluster::new()?;
    assert_eq!(cluster.run(&["install", "--image", IMAGE])?.code, 0);
    // Pods are ready before one of them leads, and has written roots and the webhook's bundle.
    wait_for("a check that finds nothing", Duration::from_secs(10), || {
        let checked = cluster.run(&["check"])?;
        ensure!(checked.code == 0, "{checked:?}");
        Ok(Some(()))
    })?;
    cluster.silence_webhook();
    let checked = cluster.run(&["check"])?;
    assert_eq!(checked.code, 1);
    assert!(checked.out.contains("warning  webhook      it does not answer"), "{checked:?}");
    cluster.silence("undermesh-agent-b");
    cluster.stop_playing();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "undermesh-controller", "namespace": NAMESPACE},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
    });
    cluster.api.put(&lease)?;
    cluster.api.delete("v1", "ConfigMap", NAMESPACE, "undermesh-ca-roots");
    let checked = cluster.run(&["check"])?;
    assert_eq!(checked.code, 2);
    for part in [
        "error    controller   no replica leads",
        "error    agents       there is no ConfigMap undermesh-ca-roots",
        "error    agents       b: it does not answer",
        "1 of 2 nodes are well",
    ] {
        assert!(checked.out.contains(part), "{part}: {}", checked.out);
    }
    Ok(())
}

#[test]
fn all_nodes_are_shown_also_those_that_say_nothing() -> Result<()> {
    let cluster = Cluster::new()?;
    assert_eq!(cluster.run(&["install", "--image", IMAGE])?.code, 0);
    let shown = cluster.run(&["status", "--all-nodes"])?;
    assert_eq!(shown.code, 0, "{shown:?}");
    cluster.silence("undermesh-agent-b");
    cluster.api.put(&cluster::node("c", "6.1.0", "amd64", "containerd://1.7.0"))?;
    let shown = cluster.run(&["status", "--all-nodes"])?;
    assert_eq!(shown.code, 1);
    let lines: Vec<&str> = shown.out.lines().map(str::trim).collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let row = |node: &str| {
        let mut rows = lines.iter().map(|line| words(line));
        rows.find(|words| words.first().is_some_and(|word| word == node))
    };
    let a = row("a").context("no node a")?;
    assert_eq!(a[1..7], ["undermesh-agent-a", "9.9.9", "yes", "3", "1", "2"], "{shown:?}");
    assert!(shown.out.contains("b     it does not answer"), "{shown:?}");
    assert!(shown.out.contains("c     no agent runs here"), "{shown:?}");
    let json = cluster.run(&["status", "--all-nodes", "-o", "json"])?;
    let nodes: Value = serde_json::from_str(&json.out)?;
    assert_eq!(nodes[0]["pods"]["enrolled"], 3);
    assert_eq!(nodes[1]["version"], Value::Null);
    assert_eq!(nodes[2]["problems"][0], "no agent runs here");
    Ok(())
}

#[test]
fn it_is_removed_in_an_order_in_which_nothing_is_left_that_refuses() -> Result<()> {
    let cluster = Cluster::new()?;
    assert_eq!(cluster.run(&["install", "--image", IMAGE])?.code, 0);
    let api = &cluster.api;
    let meshed = |mode: &str| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {"istio.io/dataplane-mode": mode}},
        })
    };
    api.put(&meshed("ambient"))?;
    api.calls();
    let refused = cluster.run(&["uninstall"])?;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("still in the mesh: namespace shop"), "{refused:?}");
    assert_eq!(changes(&api.calls()), Vec::<String>::new());

    api.put(&meshed("none"))?;
    let done = cluster.run(&["uninstall"])?;
    assert_eq!(done.code, 0, "{done:?}");
    let order = changes(&api.calls());
    let expected = [
        "delete validatingwebhookconfigurations/undermesh-controller",
        "delete daemonsets/undermesh-agent",
        "patch daemonsets/undermesh-cleanup",
        "delete daemonsets/undermesh-cleanup",
    ];
    assert_eq!(order[..4], expected);
    assert!(order[4..].contains(&"delete deployments/undermesh-controller".to_owned()));
    assert!(cluster.cleaned_after_agents(), "agents ran beside what cleans");
    // What cannot be made again is kept.
    for (version, kind, name) in
        [("v1", "Secret", "undermesh-ca"), ("v1", "ConfigMap", "undermesh-ca-roots")]
    {
        assert!(api.get(version, kind, NAMESPACE, name).is_some(), "{kind} {name}");
    }
    let definitions = api.names("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    assert!(definitions.contains(&"ratelimitpolicies.undermesh.io".to_owned()));
    assert!(api.names("rbac.authorization.k8s.io/v1", "ClusterRole").is_empty());
    Ok(())
}

#[test]
fn what_is_purged_takes_its_objects_along_by_force_alone() -> Result<()> {
    let cluster = Cluster::new()?;
    assert_eq!(cluster.run(&["install", "--image", IMAGE])?.code, 0);
    let api = &cluster.api;
    api.put(&json!({
        "apiVersion": "undermesh.io/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"rules": [{"maxBodyBytes": 1}]},
    }))?;
    let refused = cluster.run(&["uninstall", "--purge"])?;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("1 ratelimitpolicies would be removed"), "{refused:?}");
    assert!(agents(&cluster).is_some());
    let done = cluster.run(&["uninstall", "--purge", "--force", "--keep-programs"])?;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains("programs stay on the nodes"), "{done:?}");
    assert!(api.get("v1", "Secret", NAMESPACE, "undermesh-ca").is_none());
    let definitions = api.names("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    assert!(!definitions.iter().any(|name| name.ends_with(".undermesh.io")), "{definitions:?}");
    Ok(())
}

#[test]
fn a_node_that_is_not_cleaned_stops_the_removal_and_it_goes_on_later() -> Result<()> {
    let cluster = Cluster::new()?;
    assert_eq!(cluster.run(&["install", "--image", IMAGE])?.code, 0);
    cluster.break_pods();
    let stopped = cluster.run(&["uninstall", "--timeout", "2s"])?;
    assert_eq!(stopped.code, 1);
    assert!(stopped.err.contains("not all nodes are clean"), "{stopped:?}");
    let controller = || cluster.api.get("apps/v1", "Deployment", NAMESPACE, "undermesh-controller");
    assert!(controller().is_some());
    cluster.mend_pods();
    assert_eq!(cluster.run(&["uninstall"])?.code, 0);
    assert!(controller().is_none());
    Ok(())
}
