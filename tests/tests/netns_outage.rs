//! An hour without the control plane: neither API server nor controllers, and traffic that does not notice.

use std::{ops::RangeInclusive, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use undermesh_tests::{
    Clock, Conn, Controller, PORT, Plane, Rig, pod::protocol::Behaviour, wait_for,
};

const WITHIN: Duration = Duration::from_secs(30);
const HOUR: u64 = 3600;
/// Shorter than what lies between the idle times of the two ends of a connection: whoever sleeps through
/// both at once would see them in any order.
const STEP: u64 = 5;
/// Half of it falls due in minute 35, four fifths in minute 56.
const LIFETIME: &str = "70m";
const GRPC: u16 = 25012;

/// The standard rig as a cluster has it, with agents whose clock a test moves.
struct Cluster {
    rig: Rig,
    plane: Plane,
    clock: Clock,
}

impl Cluster {
    fn build() -> Result<Self> {
        let rig = Rig::standard().build()?;
        let plane = Plane::with_manifests(&rig)?;
        let clock = Clock::new(&rig.footprint().dir())?;
        Ok(Self { rig, plane, clock })
    }

    fn controller(&self) -> Result<Controller> {
        let address = format!("{}:{GRPC}", self.rig.node("a")?.addresses[0]);
        let mut controller = self.plane.controller("one", &[("grpcAddress", &address)])?;
        controller.wait_ready()?;
        Ok(controller)
    }

    fn start_agents(&mut self) -> Result<()> {
        let host = self.rig.node("a")?.addresses[0];
        for name in ["a", "b"] {
            let node = self.rig.node_mut(name)?;
            node.clock = Some(self.clock.clone());
            // Whose clock is moved seems to be late.
            node.settings.set("overloadDelay", "1h");
            self.plane.api.lead(node, &host.to_string())?;
            self.plane.certify(node, (host, GRPC).into(), LIFETIME)?;
        }
        self.rig.start_agents()
    }

    fn overdue(&self, percent: u8) -> Result<u64> {
        let label = format!("life_percent=\"{percent}\"");
        self.rig.agent("a")?.metric("undermesh_certificates_overdue", &label)
    }

    fn serials(&self) -> Result<Vec<(String, String)>> {
        let mut serials = Vec::new();
        for node in ["a", "b"] {
            let rows = self.rig.agent(node)?.status()?.certificates;
            serials.extend(rows.into_iter().map(|row| (row.id, row.serial)));
        }
        Ok(serials)
    }
}

fn talk(conn: &Conn<'_>) -> Result<()> {
    ensure!(conn.exchange(b"hello")? == b"hello", "something else came back");
    Ok(())
}

/// The first minute in which something was the case.
fn first(minutes: &[(u64, u64)]) -> Option<u64> {
    minutes.iter().find(|(_, count)| *count > 0).map(|(minute, _)| *minute)
}

#[test]
fn an_hour_without_api_server_and_controllers_changes_nothing_for_traffic() -> Result<()> {
    let mut cluster = Cluster::build()?;
    let controller = cluster.controller()?;
    let run = |pod| cluster.plane.run(&cluster.rig, pod);
    let (client, near) = (run("client")?, run("near")?);
    let server = run("server")?;
    for (pod, name) in [(&near, "near"), (&server, "server")] {
        pod.listen(cluster.rig.at(name, PORT)?, Behaviour::Echo)?;
    }
    cluster.start_agents()?;
    for (node, pod) in [("a", "client"), ("a", "near"), ("b", "server")] {
        cluster.rig.agent(node)?.wait_enrolled(pod)?;
    }
    let far = cluster.rig.vip("far", 80)?;
    let local = cluster.rig.at("near", PORT)?;
    let lasting = client.connect(far)?;
    talk(&lasting)?;
    let before = cluster.serials()?;

    cluster.plane.api.stop();
    controller.kill()?;
    let (mut half, mut most) = (Vec::new(), Vec::new());
    for step in 1..=HOUR / STEP {
        let now = STEP * step;
        cluster.clock.set_ahead(Duration::from_secs(now))?;
        let minute = now / 60;
        for address in [far, local] {
            let conn = client.connect(address).with_context(|| format!("in minute {minute}"))?;
            talk(&conn).with_context(|| format!("to {address} in minute {minute}"))?;
            conn.close()?;
        }
        talk(&lasting).with_context(|| format!("the first connection in minute {minute}"))?;
        if now.is_multiple_of(60) {
            half.push((minute, cluster.overdue(50)?));
            most.push((minute, cluster.overdue(80)?));
        }
    }
    let due = |due: Option<u64>, wanted: RangeInclusive<u64>| {
        due.is_some_and(|minute| wanted.contains(&minute))
    };
    assert!(due(first(&half), 34..=37), "half of the certificates' life: {half:?}");
    assert!(due(first(&most), 55..=58), "four fifths of it: {most:?}");
    assert_eq!(cluster.serials()?, before);
    for node in ["a", "b"] {
        let agent = cluster.rig.agent(node)?;
        let status = agent.status()?;
        assert!(status.agent.ready, "{status:?}");
        assert!(status.pods.iter().all(|pod| pod.state == "enrolled"), "{status:?}");
        let renewal = status.warnings.iter().any(|it| it.contains("cannot be renewed"));
        assert!(renewal, "{:?}", status.warnings);
        let log = agent.log();
        assert!(!log.contains("left the mesh"), "{log}");
        assert!(!log.contains("kube_client"), "a library says again what we say: {log}");
    }
    let log = cluster.rig.agent("b")?.access_log();
    log.wait(&[("security", "mutual_tls"), ("source.pod", "client")])?;

    // Both come back: certificates are renewed, and what changes holds.
    cluster.plane.api.resume()?;
    let _controller = cluster.controller()?;
    let mut now = HOUR;
    wait_for("new certificates", WITHIN, || {
        // Who has asked in vain for an hour waits some minutes before asking again.
        now += STEP;
        cluster.clock.set_ahead(Duration::from_secs(now))?;
        talk(&lasting)?;
        let renewed = cluster.serials()?.iter().zip(&before).all(|(now, then)| now != then);
        Ok(renewed.then_some(()))
    })?;
    assert_eq!((cluster.overdue(50)?, cluster.overdue(80)?), (0, 0));
    cluster.plane.api.put(&json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "server"}}},
    }))?;
    wait_for("the policy to be in force", WITHIN, || {
        let answered = client.connect(far).is_ok_and(|conn| talk(&conn).is_ok());
        Ok((!answered).then_some(()))
    })
}
