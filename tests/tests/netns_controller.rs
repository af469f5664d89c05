//! Agents that have their certificates from a controller: traffic under them, what becomes of it when the
//! controller is away, and what agents say about that.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use undermesh_tests::{Controller, PORT, Plane, Pod, Rig, pod::protocol::Behaviour, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// Where the controller gives certificates, on node a.
const GRPC: u16 = 25012;

/// The standard rig before an API server and a controller, both on node a.
struct Mesh {
    rig: Rig,
    plane: Plane,
}

impl Mesh {
    fn new() -> Result<Self> {
        let rig = Rig::standard().build()?;
        let plane = Plane::of(&rig)?;
        for (pod, node) in [("client", "a"), ("near", "a"), ("server", "b")] {
            plane.pod("shop", pod, pod, node)?;
        }
        Ok(Self { rig, plane })
    }

    fn controller(&self, settings: &[(&str, &str)]) -> Result<Controller> {
        let grpc = format!("{}:{GRPC}", self.rig.node("a")?.addresses[0]);
        let all = [&[("grpcAddress", grpc.as_str())], settings].concat();
        let mut controller = self.plane.controller("one", &all)?;
        controller.wait_ready()?;
        Ok(controller)
    }

    /// Has both agents ask the controller, for certificates of this lifetime.
    fn start_agents(&mut self, lifetime: &str) -> Result<()> {
        let address = (self.rig.node("a")?.addresses[0], GRPC).into();
        for name in ["a", "b"] {
            self.plane.certify(self.rig.node_mut(name)?, address, lifetime)?;
        }
        self.rig.start_agents()
    }

    /// One exchange between the nodes, in a connection of its own.
    fn exchange(&self, client: &Pod) -> Result<()> {
        let conn = client.connect(self.rig.at("server", PORT)?)?;
        ensure!(conn.exchange(b"hello")? == b"hello", "the connection failed");
        Ok(conn.close()?)
    }

    fn serials(&self, node: &str) -> Result<Vec<(String, String)>> {
        let status = self.rig.agent(node)?.status()?;
        Ok(status.certificates.into_iter().map(|row| (row.id, row.serial)).collect())
    }
}

#[test]
fn pods_of_two_nodes_talk_in_mutual_tls_under_certificates_of_the_controller() -> Result<()> {
    let mut mesh = Mesh::new()?;
    let controller = mesh.controller(&[])?;
    mesh.start_agents("1h")?;
    let (client, server) = (mesh.rig.pod("client")?, mesh.rig.pod("server")?);
    server.listen(mesh.rig.at("server", PORT)?, Behaviour::Echo)?;
    mesh.exchange(&client)?;
    let log = mesh.rig.agent("b")?.access_log();
    let identity = "spiffe://cluster.local/ns/shop/sa/client";
    log.wait(&[("security", "mutual_tls"), ("source.identity", identity)])?;
    let issued = controller.audit("certificate_issued");
    for (id, serial) in [mesh.serials("a")?, mesh.serials("b")?].concat() {
        let found = issued.iter().any(|line| line["identity"] == *id && line["serial"] == *serial);
        ensure!(found, "{id} {serial} is not of the controller: {issued:?}");
    }
    // Each agent was given its own node's, and no other.
    for line in &issued {
        let on_a = line["asker"]["node"] == "a";
        let of_a = line["identity"] != "spiffe://cluster.local/ns/shop/sa/server";
        assert_eq!(on_a, of_a, "{line}");
    }
    Ok(())
}

#[test]
fn an_identity_that_runs_nowhere_near_is_denied_and_the_agent_says_so() -> Result<()> {
    let mut mesh = Mesh::new()?;
    // As far as Kubernetes knows, `near` is on the other node.
    mesh.plane.pod("shop", "near", "near", "b")?;
    let controller = mesh.controller(&[])?;
    let started = mesh.start_agents("1h");
    ensure!(started.is_err(), "an agent is ready without a certificate for one of its pods");
    let status = mesh.rig.agent("a")?.status()?;
    let near = "spiffe://cluster.local/ns/shop/sa/near";
    let row = status.certificates.iter().find(|row| row.id == near).context("no row")?;
    ensure!(row.last_error.contains("no pod on node a runs as"), "{row:?}");
    let denied = controller.audit("certificate_refused");
    ensure!(denied.iter().any(|line| line["identity"] == near), "{denied:?}");
    Ok(())
}

#[test]
fn traffic_goes_on_without_the_controller_and_agents_say_what_is_overdue() -> Result<()> {
    let mut mesh = Mesh::new()?;
    let controller = mesh.controller(&[])?;
    mesh.start_agents("40s")?;
    let (client, server) = (mesh.rig.pod("client")?, mesh.rig.pod("server")?);
    server.listen(mesh.rig.at("server", PORT)?, Behaviour::Echo)?;
    mesh.exchange(&client)?;
    let before = mesh.serials("a")?;
    controller.kill()?;
    mesh.exchange(&client)?;
    let agent = mesh.rig.agent("a")?;
    let overdue = |percent: &str| {
        agent.metric("undermesh_certificates_overdue", &format!("life_percent=\"{percent}\""))
    };
    assert_eq!((overdue("50")?, overdue("80")?), (0, 0));
    wait_for("half of the certificates' life", SOON, || Ok((overdue("50")? > 0).then_some(())))?;
    assert_eq!(overdue("80")?, 0);
    mesh.exchange(&client)?;
    let status = agent.wait_status("a warning", SOON, |status| {
        status.warnings.iter().any(|warning| warning.contains("cannot be renewed"))
    })?;
    assert!(status.agent.ready, "{status:?}");
    wait_for("four fifths of it", SOON, || Ok((overdue("80")? > 0).then_some(())))?;
    mesh.exchange(&client)?;
    for part in [
        "a certificate is overdue for renewal",
        "a certificate ends soon and is not renewed",
        "cannot be reached",
    ] {
        wait_for(part, SOON, || Ok(agent.log().contains(part).then_some(())))?;
    }
    assert_eq!(mesh.serials("a")?, before);
    let _controller = mesh.controller(&[])?;
    wait_for("new certificates", SOON, || {
        let renewed = mesh.serials("a")?.iter().zip(&before).all(|(now, then)| now != then);
        Ok(renewed.then_some(()))
    })?;
    assert_eq!((overdue("50")?, overdue("80")?), (0, 0));
    mesh.exchange(&client)
}
