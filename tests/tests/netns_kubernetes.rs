//! Pods as the kubelet runs them, and an API server that comes and goes: real agents, real programs, real
//! cgroups in the layouts that there are.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use undermesh_tests::{
    Agent, PORT, Pod, Rig,
    apiserver::{ApiServer, Options},
    pod::protocol::Behaviour,
    wait_for,
};

const WITHIN: Duration = Duration::from_secs(30);
const SERVER_PORT: u16 = 6443;
/// Ids of containers, as long as those of runtimes.
const SANDBOX: &str = "5a4d0b0f5a4d0b0f5a4d0b0f5a4d0b0f5a4d0b0f5a4d0b0f5a4d0b0f5a4d0b0f";
const FIRST: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
const SECOND: &str = "c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2";

/// How a kubelet and a runtime name cgroups.
#[derive(Clone, Copy)]
enum Layout {
    /// systemd, containerd.
    Systemd,
    /// cgroupfs, containerd.
    Cgroupfs,
    /// A kubelet in a container, CRI-O.
    Kind,
}

impl Layout {
    /// The cgroup of a container, below that in which pods run.
    fn container(self, uid: &str, id: &str) -> String {
        let slice = uid.replace('-', "_");
        match self {
            Self::Systemd => format!(
                "kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope"
            ),
            Self::Cgroupfs => format!("besteffort/pod{uid}/{id}"),
            Self::Kind => format!("kubelet-kubepods-pod{slice}.slice/crio-{id}.scope"),
        }
    }
}

/// A rig whose agents follow an API server.
struct Cluster {
    rig: Rig,
    server: ApiServer,
    /// The layout of each node.
    layouts: [(&'static str, Layout); 2],
}

impl Cluster {
    fn build(layouts: [(&'static str, Layout); 2]) -> Result<Self> {
        let mut rig = Rig::standard().build()?;
        rig.init_ca()?;
        let node = rig.node("a")?;
        let addresses = node.addresses;
        let options = Options {
            address: (std::net::Ipv6Addr::UNSPECIFIED, SERVER_PORT).into(),
            addresses: addresses.into(),
            ..Options::default()
        };
        let dir = rig.footprint().dir().join("apiserver");
        let server = ApiServer::start(&dir, options, Some(&node.netns))?;
        let manifests = rig.footprint().dir().join("manifests");
        for entry in fs::read_dir(manifests)? {
            server.put_yaml(&fs::read_to_string(entry?.path())?)?;
        }
        for (name, _) in layouts {
            server.lead(rig.node_mut(name)?, &addresses[0].to_string())?;
        }
        Ok(Self { rig, server, layouts })
    }

    /// Changes a pod as the API server has it.
    fn change(&self, pod: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut object = self.server.get("v1", "Pod", "shop", pod).context("no such pod")?;
        change(&mut object);
        self.server.put(&object).map(drop)
    }

    /// The cgroup of a container of a pod.
    fn cgroup(&self, pod: &str, id: &str) -> Result<PathBuf> {
        let object = self.server.get("v1", "Pod", "shop", pod).context("no such pod")?;
        let uid = object["metadata"]["uid"].as_str().context("it has no uid")?;
        let node = &self.rig.place(pod)?.node;
        let layout = self.layouts.iter().find(|(name, _)| name == node).context("no layout")?.1;
        Ok(self.rig.node(node)?.cgroup.join("pods").join(layout.container(uid, id)))
    }

    /// Runs a container of a pod.
    fn run(&self, pod: &str, id: &str) -> Result<Pod> {
        self.rig.pod_in(pod, &self.cgroup(pod, id)?)
    }

    fn start_agent(&mut self, node: &str) -> Result<()> {
        let agent = Agent::start(self.rig.node(node)?)?;
        self.rig.node_mut(node)?.agent.insert(agent).wait_ready()
    }
}

/// Says something to the server through the mesh, and has it back.
fn talk(cluster: &Cluster, client: &Pod, service: &str) -> Result<()> {
    let back = client.connect(cluster.rig.vip(service, 80)?)?.exchange(b"hello")?;
    ensure!(back == b"hello", "something else came back");
    Ok(())
}

#[test]
fn pods_of_a_cluster_talk_through_the_mesh_whether_or_not_its_api_server_is_there() -> Result<()> {
    let layouts = [("a", Layout::Systemd), ("b", Layout::Cgroupfs)];
    let mut cluster = Cluster::build(layouts)?;
    let client = cluster.run("client", FIRST)?;
    let _near = cluster.run("near", FIRST)?;
    let server = cluster.run("server", FIRST)?;
    server.listen(cluster.rig.at("server", PORT)?, Behaviour::Echo)?;
    cluster.start_agent("a")?;
    cluster.start_agent("b")?;
    cluster.rig.agent("a")?.wait_enrolled("client")?;
    cluster.rig.agent("b")?.wait_enrolled("server")?;
    talk(&cluster, &client, "far")?;
    let mutual = [("transport", "native"), ("security", "mutual_tls"), ("source.pod", "client")];
    cluster.rig.agent("b")?.access_log().wait(&mutual)?;

    // The API server goes away, and so does an agent, which starts from what it has kept.
    let cache = cluster.rig.node("a")?.dir.join("cache/kubernetes.cache");
    wait_for("the cache", WITHIN, || Ok(fs::exists(&cache)?.then_some(())))?;
    cluster.server.stop();
    talk(&cluster, &client, "far")?;
    cluster.rig.take_agent("a")?.kill()?;
    cluster.start_agent("a")?;
    let status = cluster.rig.agent("a")?.status()?;
    assert_eq!((status.source.kind.as_str(), status.source.complete), ("kubernetes", false));
    assert!(status.source.cached.is_some());
    assert!(status.warnings.iter().any(|it| it.contains("configuration-from-cache")));
    talk(&cluster, &client, "far")?;
    cluster.rig.agent("b")?.access_log().wait(&mutual)?;

    // It comes back, and what it says holds again.
    cluster.server.resume()?;
    cluster.server.put(&json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "server"}}},
    }))?;
    wait_for("the policy to be in force", WITHIN, || {
        Ok(talk(&cluster, &client, "far").is_err().then_some(()))
    })?;
    let what = "everything to be read";
    cluster.rig.agent("a")?.wait_status(what, WITHIN, |status| status.source.complete)?;
    let metrics = cluster.rig.agent("a")?.metrics()?;
    assert!(metrics.contains("undermesh_kubernetes_objects{list=\"pod/here\"}"), "{metrics}");
    Ok(())
}

#[test]
fn a_pod_stays_enrolled_while_containers_come_and_go_and_leaves_with_its_sandbox() -> Result<()> {
    let layouts = [("a", Layout::Kind), ("b", Layout::Systemd)];
    let mut cluster = Cluster::build(layouts)?;
    cluster.change("near", |pod| pod["spec"]["runtimeClassName"] = json!("kata"))?;
    cluster.server.put(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "host", "namespace": "shop", "labels": {"istio.io/dataplane-mode": "ambient"},
        },
        "spec": {"nodeName": "a", "hostNetwork": true}, "status": {"podIP": "172.31.0.1"},
    }))?;
    cluster.server.put(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "done", "namespace": "shop", "labels": {"istio.io/dataplane-mode": "ambient"},
        },
        "spec": {"nodeName": "a"}, "status": {"phase": "Succeeded", "podIP": "10.1.0.99"},
    }))?;
    cluster.start_agent("a")?;
    let state = |pod: &str, wanted: &str| -> Result<String> {
        let agent = cluster.rig.agent("a")?;
        let what = format!("{pod} to be {wanted}");
        let status = agent.wait_status(&what, WITHIN, |status| {
            status.pods.iter().any(|row| row.name == pod && row.state == wanted)
        })?;
        let row = status.pods.iter().find(|row| row.name == pod);
        Ok(row.map(|row| row.detail.clone()).unwrap_or_default())
    };
    assert!(state("client", "waiting")?.contains("there is no cgroup of a pod with uid"));
    assert!(state("near", "impossible")?.contains("a kernel of its own"));
    assert!(state("host", "impossible")?.contains("host's network namespace"));
    assert!(state("done", "impossible")?.contains("it has finished"));

    let first = cluster.run("client", FIRST)?;
    state("client", "enrolled")?;
    let second = cluster.run("client", SECOND)?;
    let sandbox = cluster.run("client", SANDBOX)?;
    drop((first, second));
    // Its namespace is the sandbox's, whatever process led there.
    let log = cluster.rig.agent("a")?.log();
    std::thread::sleep(Duration::from_secs(1));
    state("client", "enrolled")?;
    let since = cluster.rig.agent("a")?.log()[log.len()..].to_owned();
    assert!(!since.contains("left the mesh"), "{since}");
    drop(sandbox);
    state("client", "waiting")?;
    let _again = cluster.run("client", FIRST)?;
    state("client", "enrolled")?;
    Ok(())
}

#[test]
fn the_very_first_connection_of_a_new_pod_is_held_until_it_is_in_the_mesh() -> Result<()> {
    let mut cluster = Cluster::build([("a", Layout::Cgroupfs), ("b", Layout::Kind)])?;
    let server = cluster.run("server", FIRST)?;
    server.listen(cluster.rig.at("server", PORT)?, Behaviour::Echo)?;
    cluster.start_agent("b")?;
    cluster.start_agent("a")?;
    cluster.rig.agent("b")?.wait_enrolled("server")?;
    let rig = &cluster.rig;
    let netns = &rig.place("client")?.netns;
    // The agent has never seen this cgroup; its name says whose it is.
    let act = rig.first_act_in(
        netns,
        &cluster.cgroup("client", FIRST)?,
        rig.at("server", PORT)?,
        "hello",
    )?;
    let log = rig.agent("b")?.access_log();
    log.wait(&[
        ("security", "mutual_tls"),
        ("source.pod", "client"),
        ("destination.pod", "server"),
    ])?;
    assert!(act.errors.iter().all(|error| error == "ECONNREFUSED"), "{act:?}");
    assert_eq!(rig.agent("b")?.status()?.verdict("inbound_plaintext"), 0);
    Ok(())
}
