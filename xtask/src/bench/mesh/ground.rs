//! Where one way's work takes place: a rig of its own with a client, servers, and whatever stands
//! between them.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use undermesh_tests::{PodSpec, Rig, ServiceSpec, locate, wait_for};

use super::{
    envoy,
    servers::{self, Answers, BULK, HTTP, REQUESTS},
    way::Way,
};
use crate::bench::{
    TAG,
    process::{Processes, WITHIN, listening},
    scale::Population,
};

/// The client's pod.
pub(super) const CLIENT: &str = "client";
/// The service's pods: of two versions where requests are routed, and otherwise the first alone.
pub(super) const SERVER: &str = "server";
pub(super) const SECOND: &str = "server-v2";
/// What the route asks for, and every request has, whatever the way.
pub(super) const HEADER: (&str, &str) = ("version", "v2");
const SERVICE: &str = "web";
/// By how much higher than a server's port the far relay listens.
const RELAYED: u16 = 10_000;

/// The route of the L7 variants, as Istio's objects.
const ROUTE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{headers: {version: {exact: v2}}}]
    route: [{destination: {host: web, subset: v2}}]
  - route: [{destination: {host: web, subset: v1}}]
";

/// A rig, and what runs in it.
pub(super) struct Ground {
    processes: Processes,
    /// The rig.
    pub(super) rig: Rig,
    /// The way through it.
    pub(super) way: Way,
    /// Process ids of the mesh.
    mesh: Vec<u32>,
    /// Access logs that had lines when they were emptied.
    written: Mutex<BTreeSet<PathBuf>>,
}

impl Ground {
    /// Builds the rig, starts everything, and waits until it serves. `kind` tells rigs of one way apart.
    pub(super) fn new(way: Way, kind: &str) -> Result<Self> {
        let rig = rig(way, kind)?;
        let mut ground = Self {
            processes: Processes::default(),
            rig,
            way,
            mesh: Vec::new(),
            written: Mutex::default(),
        };
        let first = if way.is_routed() { Answers::NotFound } else { Answers::Wanted };
        ground.serve(SERVER, first)?;
        if way.is_routed() {
            ground.serve(SECOND, Answers::Wanted)?;
        }
        if way.is_undermesh() {
            ground.agents()?;
        } else if way.is_envoy() {
            ground.mesh = envoy::start(&ground.rig, way, &mut ground.processes)?;
        } else if way == Way::Floor {
            ground.relays()?;
        }
        Ok(ground)
    }

    /// Where clients of a port dial.
    pub(super) fn address(&self, port: u16) -> Result<SocketAddr> {
        match self.way {
            Way::L7 | Way::EnvoyL7 => self.rig.vip(SERVICE, port),
            Way::Floor => Ok(([127, 0, 0, 1], port).into()),
            _ => self.rig.at(SERVER, port),
        }
    }

    /// A command line inside the client's pod, to be completed.
    pub(super) fn client(&self) -> Result<Command> {
        self.rig.command_in(CLIENT)
    }

    /// Below which everything of it runs.
    pub(super) fn cgroup(&self) -> &Path {
        self.rig.footprint().cgroup()
    }

    /// A directory for files.
    pub(super) fn dir(&self) -> PathBuf {
        self.rig.footprint().dir()
    }

    /// Process ids of agents, sidecars or relays.
    pub(super) fn mesh(&self) -> &[u32] {
        &self.mesh
    }

    /// The same with names, for readers.
    pub(super) fn processes(&self) -> Vec<(u32, &'static str)> {
        // In the order in which they were started.
        let names = match self.way {
            way if way.is_undermesh() => ["client's agent", "server's agent"],
            way if way.is_envoy() => ["server's sidecar", "client's sidecar"],
            _ => ["server's relay", "client's relay"],
        };
        self.mesh.iter().copied().zip(names).collect()
    }

    /// Empties the access logs, which are files in memory and would fill it.
    pub(super) fn forget_logs(&self) -> Result<()> {
        for log in self.logs().into_iter().filter(|log| log.exists()) {
            if has_lines(&log)? {
                self.written().insert(log.clone());
            }
            OpenOptions::new().write(true).truncate(true).open(&log)?;
        }
        Ok(())
    }

    /// Fails unless the work went where its results will say it did.
    pub(super) fn check(&self) -> Result<()> {
        if self.way.is_envoy() {
            let written = self.written();
            for log in self.logs().iter().filter(|log| !written.contains(*log)) {
                // Sidecars write what they have gathered every ten seconds.
                let what = format!("a line in the log of a sidecar, {}", log.display());
                wait_for(&what, WITHIN, || Ok(has_lines(log)?.then_some(())))?;
            }
        }
        if !self.way.is_undermesh() {
            return Ok(());
        }
        let agent = self.rig.agent("a")?;
        let status = agent.status()?;
        let (local, proxied) = (status.verdict("local"), status.verdict("proxied"));
        let requests = agent.metric("istio_requests_total", "")?;
        let as_said = match self.way {
            Way::Local => local > 0 && proxied == 0,
            Way::L7 => proxied > 0 && requests > 0,
            _ => proxied > 0 && requests == 0 && local == 0,
        };
        ensure!(
            as_said,
            "that was not {}: {requests} requests were looked at, verdicts {:?}",
            self.way.name(),
            status.verdicts
        );
        Ok(())
    }

    fn written(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> Vec<PathBuf> {
        if self.way.is_envoy() {
            return envoy::logs(&self.rig, self.way);
        }
        ["a", "b"].map(|node| self.dir().join(node).join("access.log")).into()
    }

    fn serve(&mut self, pod: &str, answers: Answers) -> Result<()> {
        servers::start(&self.rig, pod, answers, &mut self.processes)
    }

    fn agents(&mut self) -> Result<()> {
        if self.way == Way::L7 {
            self.rig.manifests.write("route", ROUTE)?;
        }
        if self.way == Way::L4Services {
            Population { pods: 10_000, policies: 0, local: 0 }.write(&self.rig.manifests)?;
        }
        self.rig.start()?;
        for node in ["a", "b"] {
            self.mesh.push(self.rig.agent(node)?.pid());
        }
        Ok(())
    }

    /// A relay in each pod: as many TCP connections in a row as with the agents or with sidecars.
    fn relays(&mut self) -> Result<()> {
        let server = self.rig.at(SERVER, 0)?.ip();
        let pairs = |pair: &dyn Fn(u16) -> String| -> Vec<String> {
            REQUESTS.iter().chain([&BULK]).map(|port| pair(*port)).collect()
        };
        let near =
            pairs(&|port| format!("127.0.0.1:{port}={}", SocketAddr::new(server, port + RELAYED)));
        let far = pairs(&|port| format!("{server}:{}=127.0.0.1:{port}", port + RELAYED));
        for (pod, pairs) in [(SERVER, far), (CLIENT, near)] {
            let mut relay = self.rig.command_in(pod)?;
            relay.arg(locate("undermesh-bench")?).arg("relay").args(pairs);
            self.mesh.push(self.processes.start(relay)?);
        }
        listening(&self.rig, SERVER, SocketAddr::new(server, HTTP + RELAYED))?;
        listening(&self.rig, CLIENT, self.address(HTTP)?)
    }
}

fn has_lines(log: &Path) -> Result<bool> {
    let log = fs::metadata(log).with_context(|| format!("{}", log.display()))?;
    Ok(log.len() > 0)
}

fn rig(way: Way, kind: &str) -> Result<Rig> {
    let mut servers = vec![PodSpec::new(SERVER).labelled("version", "v1")];
    let mut service = ServiceSpec::new(SERVICE, BULK, BULK, &[SERVER]);
    if way.is_routed() {
        servers.push(PodSpec::new(SECOND).labelled("version", "v2"));
        service.backends.push(SECOND.to_owned());
        let [http, http2, grpc] = REQUESTS;
        service = service.port(http, http, "http").port(http2, http2, "http2");
        service = service.port(grpc, grpc, "grpc");
    }
    let client = PodSpec::new(CLIENT);
    let (near, far) = if way.is_local() {
        ([client].into_iter().chain(servers).collect(), Vec::new())
    } else {
        (vec![client], servers)
    };
    let rig = Rig::builder()
        .tag(&format!("{TAG}{}{}{kind}", std::process::id(), way.tag()))
        .node("a", near)
        .node("b", far)
        .service(service)
        .build()?;
    for pod in if way.is_routed() { &[CLIENT, SERVER, SECOND][..] } else { &[CLIENT, SERVER] } {
        // A connection per request needs more ports than clients have by default, and ten thousand
        // connections at once longer queues.
        rig.place(pod)?.netns.sysctls(&[
            ("net/ipv4/ip_local_port_range", "20480 65535"),
            ("net/ipv4/tcp_tw_reuse", "1"),
            ("net/core/somaxconn", "4096"),
            ("net/ipv4/tcp_max_syn_backlog", "4096"),
        ])?;
    }
    Ok(rig)
}
