//! The world that all cases play in.
//!
//! | node | pods |
//! |---|---|
//! | a | `client`, `visitor` (namespace `front`), `stranger` (not in the mesh), `one` |
//! | b | `two`, `three`; outside the mesh, and unknown to it: `out`, `vm` |
//!
//! | service | leads to | ports |
//! |---|---|---|
//! | `shop` | `one`, `two`; subsets `v1` and `v2` | 80 and 81 HTTP, 82 gRPC, 90 TCP, 443 TLS |
//! | `one`, `two`, `three` | the pod of this name | 80 HTTP, 82 gRPC, 90 TCP, 443 TLS |
//! | `trio`, `orders` | `one`, `two`, `three` | the same |
//! | `reviews` | `one`, `two` | the same |
//! | `depot` (namespace `stock`) | `two` | 80 HTTP |
//! | `empty` | nobody | 80 HTTP |
//! | `dead` | `one`, at a port where nobody listens | 80 HTTP |
//! | `half-dead` | `one`, and `visitor`, where nobody listens | 80 HTTP |
//! | `speech` | `one`; looked at | 1 to 9, see [`speech`] |
//! | `legacy` | `out`, in TLS | 80 and 81 HTTP |
//!
//! All pods may ask. Both nodes are in region `north`, zone `n1`, subzone `n1a`.
//!
//! The port 8080 of pods speaks HTTP, 8081 answers its pod's name, and 8082 speaks first. 8443 of `out` speaks
//! HTTP in TLS, as `outside.example` and `spiffe://outside.example/a`.
//!
//! DNS knows `out.example` and `outside.example` (`out`), `vm.example`, `vm.many.example` (`vm`) and `both.example` (`out` and `vm`).

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr},
};

use anyhow::{Context, Result};

use super::token::{Issuer, Token};
use crate::{
    LogLine,
    manifest::{PodSpec, ServiceSpec},
    outside::{Authority, DnsServer, TlsServer},
    pod::{Pod, protocol::Behaviour},
    rig::Rig,
    standard::PORT,
    topology::Family,
};

/// Where pods answer with their name.
const NAMED: u16 = 8081;
/// Where pods speak first.
const FIRST: u16 = 8082;
/// Where nobody listens.
const NOBODY: u16 = 8083;
const SERVERS: [&str; 3] = ["one", "two", "three"];
const CLIENTS: [&str; 3] = ["client", "visitor", "stranger"];
const OUTSIDE: [&str; 2] = ["out", "vm"];
/// Where `out` speaks TLS.
const TLS: u16 = 8443;
/// Names, and the pods that are at them.
const NAMES: [(&str, &[&str]); 5] = [
    ("out.example", &["out"]),
    ("outside.example", &["out"]),
    ("vm.example", &["vm"]),
    ("vm.many.example", &["vm"]),
    ("both.example", &["out", "vm"]),
];

/// Where both nodes are.
const PLACE: &str = "{topology.kubernetes.io/region: north, topology.kubernetes.io/zone: n1, \
                     topology.istio.io/subzone: n1a}";
/// Namespaces, and the subsets of `shop`.
const BASE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: front}
---
apiVersion: v1
kind: Namespace
metadata: {name: stock}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: shop}
spec:
  host: shop
  subsets:
  - {name: v1, labels: {app: one}}
  - {name: v2, labels: {app: two}}
";

/// Two agents, five pods and their services.
#[derive(Debug)]
pub struct Shop {
    clients: Vec<(String, Pod)>,
    servers: Vec<(String, Pod)>,
    issuer: Issuer,
    root: String,
    /// They serve for as long as they live.
    _outside: (DnsServer, TlsServer),
    /// The rig. Dropped last.
    pub rig: Rig,
}

impl Shop {
    /// Builds it and starts its agents.
    ///
    /// # Errors
    /// As [`Rig::start`].
    pub fn open() -> Result<Self> {
        let mut rig = services(Rig::builder())
            .node(
                "a",
                [
                    PodSpec::new("client"),
                    PodSpec::new("visitor").within("front"),
                    PodSpec::new("stranger").listed(),
                    PodSpec::new("one").labelled("version", "v1"),
                    PodSpec::new("dns").unlisted(),
                ],
            )
            .node(
                "b",
                [
                    PodSpec::new("two").labelled("version", "v2"),
                    PodSpec::new("three"),
                    PodSpec::new("out").unlisted(),
                    PodSpec::new("vm").unlisted(),
                ],
            )
            .build()?;
        let dns = dns(&mut rig)?;
        rig.manifests.write("base", BASE)?;
        for node in ["node-a", "node-b"] {
            let node_yaml = fs::read_to_string(rig.manifests.path(node))?;
            let place = format!("metadata:\n  labels: {PLACE}\n");
            rig.manifests.write(node, &node_yaml.replacen("metadata:\n", &place, 1))?;
        }
        rig.start()?;
        let mut servers = Vec::new();
        for name in SERVERS.into_iter().chain(OUTSIDE) {
            servers.push((name.to_owned(), serving(&rig, name)?));
        }
        let clients = CLIENTS.iter().map(|name| Ok(((*name).to_owned(), rig.pod(name)?)));
        let clients = clients.collect::<Result<_>>()?;
        let (tls, root) = tls(&rig)?;
        let issuer = Issuer::new()?;
        Ok(Self { clients, servers, issuer, root, _outside: (dns, tls), rig })
    }

    /// A pod that asks.
    ///
    /// # Errors
    /// Where there is none of this name; so for all that is asked for by name.
    pub fn client(&self, name: &str) -> Result<&Pod> {
        named(&self.clients, name).or_else(|_| named(&self.servers, name))
    }

    /// All that answer.
    pub fn servers(&self) -> impl Iterator<Item = &Pod> {
        self.servers.iter().map(|(_, pod)| pod)
    }

    /// A pod that answers.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn server(&self, name: &str) -> Result<&Pod> {
        named(&self.servers, name)
    }

    /// The address of `service:port` or `pod@port`, or the one that it is already.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn address(&self, of: &str, ipv6: bool) -> Result<SocketAddr> {
        if let Ok(address) = of.parse() {
            return Ok(address);
        }
        if let Some((pod, port)) = of.split_once('@') {
            let port = port.parse().with_context(|| format!("{of} has no port"))?;
            return if ipv6 { self.rig.at6(pod, port) } else { self.rig.at(pod, port) };
        }
        let (service, port) = of.split_once(':').with_context(|| format!("{of} has no port"))?;
        let port = port.parse().with_context(|| format!("{of} has no port"))?;
        if ipv6 { self.rig.vip6(service, port) } else { self.rig.vip(service, port) }
    }

    /// Puts in addresses for `$ip(POD)` and `$vip(SERVICE)`, and the root for `$root`.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn put_in(&self, mut text: String) -> Result<String> {
        while let Some((before, name, after)) = hole(&text, "$ip(") {
            let address = self.rig.place(name)?.ip(Family::V4);
            text = format!("{before}{address}{after}");
        }
        while let Some((before, name, after)) = hole(&text, "$vip(") {
            let address = self.rig.vip(name, 0)?.ip();
            text = format!("{before}{address}{after}");
        }
        while let Some((before, name, after)) = hole(&text, "$ip6(") {
            let address = self.rig.place(name)?.ip(Family::V6);
            text = format!("{before}{address}{after}");
        }
        let text = text.replace("$keys", &self.issuer.keys()?);
        Ok(text.replace("$root", &self.root.replace('\n', "\\n")))
    }

    /// Signs a token.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub fn sign(&self, token: &Token) -> Result<String> {
        self.issuer.sign(token)
    }

    /// What the agents say of a kind of findings, together.
    ///
    /// # Errors
    /// Where one does not answer.
    pub fn findings(&self, kind: &str) -> Result<u64> {
        let label = format!("finding=\"{kind}\"");
        let of = |node| self.rig.agent(node)?.metric("undermesh_policy_findings_total", &label);
        Ok(of("a")? + of("b")?)
    }

    /// The lines of both agents' access logs.
    ///
    /// # Errors
    /// Where one is not as it should be.
    pub fn logged(&self) -> Result<[Vec<LogLine>; 2]> {
        let of = |node| self.rig.agent(node)?.access_log().lines();
        Ok([of("a")?, of("b")?])
    }
}

fn hole<'a>(text: &'a str, begin: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, rest) = text.split_once(begin)?;
    let (name, after) = rest.split_once(')')?;
    Some((before, name, after))
}

/// Has DNS answered in `dns`, for all agents.
fn dns(rig: &mut Rig) -> Result<DnsServer> {
    let at = rig.at("dns", 53)?;
    for node in ["a", "b"] {
        rig.node_mut(node)?.settings.set("dnsServers", &format!("[\"{at}\"]"));
    }
    let server = DnsServer::start(&rig.place("dns")?.netns, at)?;
    for (name, pods) in NAMES {
        let addresses = pods.iter().map(|pod| Ok(rig.at(pod, 0)?.ip()));
        server.are(name, &addresses.collect::<Result<Vec<_>>>()?);
    }
    Ok(server)
}

/// A server in `out` that speaks TLS, and the root of who has certified it.
fn tls(rig: &Rig) -> Result<(TlsServer, String)> {
    let authority = Authority::new("outside", &rig.node("b")?.dir)?;
    let issued = authority.issue(&["outside.example", "spiffe://outside.example/a"])?;
    let (netns, at) = (&rig.place("out")?.netns, rig.at("out", TLS)?);
    let server = TlsServer::start(netns, at, &issued, None, &rustls::version::TLS13)?;
    Ok((server, authority.root()))
}

fn named<'a>(pods: &'a [(String, Pod)], name: &str) -> Result<&'a Pod> {
    let found = pods.iter().find(|(known, _)| known == name).map(|(_, pod)| pod);
    found.with_context(|| format!("no pod {name} in this shop"))
}

fn serving(rig: &Rig, name: &str) -> Result<Pod> {
    let pod = rig.pod(name)?;
    let name = name.to_owned();
    for (port, behaviour) in [
        (PORT, Behaviour::Http(name.clone())),
        (NAMED, Behaviour::Name(name.clone())),
        (FIRST, Behaviour::Banner(format!("{name}\n"))),
    ] {
        pod.listen_many((Ipv6Addr::UNSPECIFIED, port).into(), 1, behaviour)?;
    }
    Ok(pod)
}

fn services(mut rig: crate::RigBuilder) -> crate::RigBuilder {
    rig = rig.service(all_ports("shop", &["one", "two"]).port(81, PORT, "http-81"));
    for pod in SERVERS {
        rig = rig.service(all_ports(pod, &[pod]));
    }
    rig = rig.service(all_ports("trio", &SERVERS).port(81, PORT, "http-81"));
    rig = rig.service(all_ports("orders", &SERVERS)).service(all_ports("reviews", &["one", "two"]));
    let http = |name, target, backends| {
        ServiceSpec::new(name, 80, target, backends).port(80, target, "http-80")
    };
    rig.service(http("depot", PORT, &["two"]).within("stock"))
        .service(http("empty", PORT, &[]))
        .service(http("dead", NOBODY, &["one"]))
        .service(http("half-dead", PORT, &["one", "visitor"]))
        .service(speech())
        .service(
            ServiceSpec::new("legacy", 80, TLS, &["out"])
                .port(80, TLS, "http-80")
                .port(81, TLS, "http-81"),
        )
}

fn all_ports(name: &str, backends: &[&str]) -> ServiceSpec {
    ServiceSpec::new(name, 80, PORT, backends)
        .port(80, PORT, "http-80")
        .port(82, PORT, "grpc-82")
        .port(90, NAMED, "tcp-90")
        .port(443, NAMED, "tls-443")
}

/// Ports that say in different ways, or not at all, what they speak.
fn speech() -> ServiceSpec {
    ServiceSpec::new("speech", 1, PORT, &["one"])
        .port(1, PORT, "http-1")
        .port(2, PORT, "http2-2")
        .port(3, PORT, "other-3")
        .app_protocol(3, "kubernetes.io/h2c")
        .port(4, PORT, "http-4")
        .app_protocol(4, "tcp")
        .port(5, PORT, "tcp-5")
        .port(6, PORT, "other-6")
        .port(7, NAMED, "other-7")
        .port(8, FIRST, "other-8")
        .port(9, NAMED, "tls-9")
        .looked_at()
}
