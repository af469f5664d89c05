//! Agents that have their configuration from controllers: real traffic under it, its way into maps, and what becomes of it
//! when controllers go.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use undermesh_tests::{
    Agent, CONTROLLER, Controller, PORT, Plane, Pod, Rig, pod::protocol::Behaviour, wait_for,
};

const SOON: Duration = Duration::from_secs(30);
/// Where the controllers listen, on node a.
const GRPC: [(&str, u16); 2] = [("one", 25012), ("two", 25013)];

/// The standard rig, with an API server and controllers on node a.
struct Mesh {
    rig: Rig,
    plane: Plane,
    host: IpAddr,
}

impl Mesh {
    fn new() -> Result<Self> {
        let rig = Rig::standard().build()?;
        let plane = Plane::with_manifests(&rig)?;
        let host = rig.node("a")?.addresses[0];
        Ok(Self { rig, plane, host })
    }

    fn controller(&self, name: &str) -> Result<Controller> {
        let port = GRPC.iter().find(|(own, _)| *own == name).context("no such controller")?.1;
        let grpc = SocketAddr::from((self.host, port)).to_string();
        let settings = [("grpcAddress", grpc.as_str()), ("distribute", "true")];
        let mut controller = self.plane.controller(name, &settings)?;
        controller.wait_ready()?;
        Ok(controller)
    }

    fn start_agents(&mut self) -> Result<()> {
        let urls: Vec<String> =
            GRPC.iter().map(|(_, port)| format!("https://{}:{port}", self.host)).collect();
        for name in ["a", "b"] {
            let node = self.rig.node_mut(name)?;
            self.plane.certify(node, (self.host, GRPC[0].1).into(), "24h")?;
            let (cache, pods) = (node.dir.join("cache"), node.cgroup.join("pods"));
            node.settings.remove("manifests");
            for (key, value) in [
                ("source", "controller".to_owned()),
                ("controllerAddresses", format!("[{}]", urls.join(", "))),
                ("controllerName", CONTROLLER.to_owned()),
                ("cacheDir", cache.display().to_string()),
                ("podCgroup", pods.display().to_string()),
            ] {
                node.settings.set(key, &value);
            }
            self.start_agent(name)?;
        }
        Ok(())
    }

    fn start_agent(&mut self, node: &str) -> Result<()> {
        let agent = Agent::start(self.rig.node(node)?)?;
        self.rig.node_mut(node)?.agent.insert(agent).wait_ready()
    }

    fn talk(&self, client: &Pod) -> Result<()> {
        let back = client.connect(self.rig.vip("far", 80)?)?.exchange(b"hello")?;
        ensure!(back == b"hello", "something else came back");
        Ok(())
    }

    /// Entries of a map of an agent.
    fn entries(&self, node: &str, map: &str) -> Result<u64> {
        Ok(self.rig.agent(node)?.status()?.entries(map))
    }
}

fn ready(ready: bool) -> impl Fn(&mut Value) {
    move |slice| slice["endpoints"][0]["conditions"]["ready"] = json!(ready)
}

#[test]
fn pods_talk_under_what_controllers_say_while_these_come_and_go() -> Result<()> {
    let mut mesh = Mesh::new()?;
    let one = mesh.controller("one")?;
    let client = mesh.plane.run(&mesh.rig, "client")?;
    let server = mesh.plane.run(&mesh.rig, "server")?;
    server.listen(mesh.rig.at("server", PORT)?, Behaviour::Echo)?;
    mesh.start_agents()?;
    mesh.rig.agent("a")?.wait_enrolled("client")?;
    mesh.rig.agent("b")?.wait_enrolled("server")?;
    mesh.talk(&client)?;
    let mutual = [("security", "mutual_tls"), ("source.pod", "client")];
    mesh.rig.agent("b")?.access_log().wait(&mutual)?;
    let status = mesh.rig.agent("a")?.status()?;
    assert_eq!((status.source.kind.as_str(), status.source.complete), ("controller", true));

    // A changed endpoint gets into the map, and out of it.
    let before = mesh.entries("a", "BACKENDS")?;
    ensure!(before > 0, "there is no endpoint in the map");
    mesh.plane.api.put(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "more", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.77.7", "ports": [{"name": "tcp", "port": 90}]},
    }))?;
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "more-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "more"},
        },
        "endpoints": [{"addresses": [mesh.rig.at("server", PORT)?.ip().to_string()]}],
        "ports": [{"name": "tcp", "port": PORT}],
    });
    for (is_ready, expected) in [(true, before + 1), (false, before), (true, before + 1)] {
        ready(is_ready)(&mut slice);
        mesh.plane.api.put(&slice)?;
        wait_for("the endpoint to be in the map or not", SOON, || {
            Ok((mesh.entries("a", "BACKENDS")? == expected).then_some(()))
        })?;
    }

    // Another replica takes over; what it says holds, and traffic has not noticed.
    let two = mesh.controller("two")?;
    one.kill()?;
    mesh.talk(&client)?;
    wait_for("the agents to come to the other", SOON, || {
        let lines = two.audit("configuration_distributed");
        let nodes: Vec<_> = lines.iter().filter_map(|line| line["node"].as_str()).collect();
        Ok((nodes.contains(&"a") && nodes.contains(&"b")).then_some(()))
    })?;
    // They have said what they have: nothing was sent again.
    for line in two.audit("configuration_distributed") {
        assert_eq!(
            (line["what"].as_str(), line["objects"].as_u64()),
            (Some("first"), Some(0)),
            "{line}"
        );
    }
    mesh.plane.api.put(&json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "server"}}},
    }))?;
    wait_for("the policy to be in force", SOON, || Ok(mesh.talk(&client).is_err().then_some(())))?;
    mesh.plane.api.delete("security.istio.io/v1", "AuthorizationPolicy", "shop", "nobody");
    wait_for("its end", SOON, || Ok(mesh.talk(&client).is_ok().then_some(())))?;

    // None is left. An agent that starts then has what was in force.
    let cache = mesh.rig.node("b")?.dir.join("cache/controller.cache");
    wait_for("the cache", SOON, || Ok(fs::exists(&cache)?.then_some(())))?;
    two.kill()?;
    mesh.talk(&client)?;
    let agent = mesh.rig.take_agent("b")?;
    agent.kill()?;
    let agent = Agent::start(mesh.rig.node("b")?)?;
    let started = mesh.rig.node_mut("b")?.agent.insert(agent);
    let what = "the cache to be in force";
    let status = started.wait_status(what, SOON, |status| {
        status.warnings.iter().any(|it| it.contains("configuration-from-cache"))
    })?;
    ensure!(status.source.cached.is_some() && !status.source.complete, "{:?}", status.source);
    ensure!(mesh.entries("b", "BACKENDS")? > 0, "the maps are empty");
    Ok(())
}
