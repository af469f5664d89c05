//! What the requests of one client connection have in common.

use std::{net::SocketAddr, sync::Arc};

use undermesh_model::traffic::{ClusterKey, Locality};
use undermesh_snapshot::{
    OutboundPolicy, ServicePortRoute, Snapshot,
    traffic::{AppProtocol, Client, ClusterEndpoint, ClusterSpec, PortTraffic, Settings},
};

use undermesh_telemetry::ConnectionInfo;

use super::{idle::Streams, log::Cut, places::Places, strict::Switch};
use crate::pod::Pod;

/// A connection of a client whose requests are looked at.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) pod: Arc<Pod>,
    /// The client, as its application has it.
    pub(crate) client: SocketAddr,
    /// What it dialled.
    pub(crate) dialled: SocketAddr,
    /// What the port spoke when the connection was opened.
    protocol: AppProtocol,
    /// Tells whoever reads the connection that it has become something else.
    pub(crate) switch: Switch,
    /// Where its requests have gone.
    pub(crate) places: Arc<Places>,
    /// Why it was broken off.
    pub(crate) cut: Arc<Cut>,
    /// Those of its requests that are under way.
    pub(crate) streams: Arc<Streams>,
}

/// What holds for a request, as of now.
pub(crate) struct Rules {
    pub(crate) traffic: Arc<PortTraffic>,
    pub(crate) generation: u64,
    /// The service's DNS name.
    pub(crate) host: String,
    /// What was dialled stands for hosts of ServiceEntries.
    pub(crate) external: bool,
    /// The connection should end: new ones are treated differently.
    pub(crate) leaving: bool,
}

impl Front {
    pub(crate) fn new(
        pod: &Arc<Pod>,
        info: &ConnectionInfo,
        dialled: SocketAddr,
        traffic: &PortTraffic,
    ) -> Self {
        Self {
            pod: Arc::clone(pod),
            client: info.source_addr,
            dialled,
            protocol: traffic.default.protocol,
            switch: Switch::default(),
            places: Arc::new(Places::new(pod, info.clone())),
            cut: Arc::default(),
            streams: Arc::default(),
        }
    }

    /// For requests that the agent itself makes on a pod's behalf; `info` says who the pod is.
    pub(crate) fn of_agent(pod: &Arc<Pod>, info: &ConnectionInfo, dialled: SocketAddr) -> Self {
        Self {
            pod: Arc::clone(pod),
            client: info.source_addr,
            dialled,
            protocol: AppProtocol::Auto,
            switch: Switch::default(),
            places: Arc::new(Places::new(pod, info.clone())),
            cut: Arc::default(),
            streams: Arc::default(),
        }
    }

    /// The client as an endpoint at this address should see it: by its pod's address of the same
    /// family, whichever the client has dialled.
    pub(crate) fn client_towards(&self, to: SocketAddr) -> SocketAddr {
        let mut own = self.pod.workload.addresses.iter();
        let same = own.find(|own| own.is_ipv4() == to.is_ipv4());
        match same {
            Some(own) if self.client.is_ipv4() != to.is_ipv4() => {
                SocketAddr::new(*own, self.client.port())
            }
            _ => self.client,
        }
    }

    /// The client as rules look at it.
    pub(crate) fn as_client(&self) -> Client<'_> {
        let workload = &self.pod.workload;
        Client { namespace: &workload.name.namespace, labels: &workload.labels }
    }

    /// What holds for a request that comes now. Rules may have changed since the connection was opened,
    /// or there may be none any more.
    pub(crate) fn rules(&self) -> Rules {
        self.rules_where(is_about_requests)
    }

    /// What holds for a connection that carries anything.
    pub(crate) fn rules_for_all(&self) -> Rules {
        self.rules_where(|_| true)
    }

    fn rules_where(&self, wanted: impl Fn(&PortTraffic) -> bool) -> Rules {
        let snapshot = self.pod.shared.snapshot.load();
        let generation = snapshot.generation.0;
        let route = snapshot.route(self.dialled);
        let host = route.map(|route| route.host.clone()).unwrap_or_default();
        let external = route.is_some_and(|route| route.external);
        let namespace = &self.pod.workload.name.namespace;
        let traffic = asked(&snapshot, namespace, self.dialled).filter(|traffic| wanted(traffic));
        let leaving = traffic.is_none() || self.pod.stop.is_cancelled();
        let policy = snapshot.options.outbound_policy;
        let traffic =
            traffic.unwrap_or_else(|| Arc::new(self.without_rules(route.map(Arc::as_ref), policy)));
        Rules { traffic, generation, host, external, leaving }
    }

    /// Returns when the connection should end, although it works.
    pub(crate) async fn leaves(&self) {
        let mut changes = self.pod.shared.changes.subscribe();
        while !self.rules().leaving {
            tokio::select! {
                () = self.pod.stop.cancelled() => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// A service port that no rule is about any more: its endpoints, as every connection gets them. What
    /// is no service port any more, or is one to others alone, is any address.
    fn without_rules(
        &self,
        route: Option<&ServicePortRoute>,
        policy: OutboundPolicy,
    ) -> PortTraffic {
        let Some(route) = route.filter(|route| !route.external) else {
            return self.unknown(policy);
        };
        let endpoint = |endpoint: &undermesh_snapshot::EndpointTarget| ClusterEndpoint {
            address: endpoint.address,
            workload: endpoint.workload.clone(),
            weight: endpoint.weight.max(1),
            locality: Locality::default(),
            priority: 0,
        };
        let spec = ClusterSpec {
            key: ClusterKey::new(&route.host, self.dialled.port()).into(),
            rule: None,
            protocol: self.protocol,
            endpoints: route.endpoints.iter().map(endpoint).collect(),
            dns: Vec::new(),
            dynamic: None,
            settings: Settings::default(),
        };
        self.all_to(spec)
    }

    /// An address that nobody stands for.
    fn unknown(&self, policy: OutboundPolicy) -> PortTraffic {
        let port = self.dialled.port();
        self.all_to(match policy {
            OutboundPolicy::AllowAny => ClusterSpec::passthrough(port),
            OutboundPolicy::RegistryOnly => ClusterSpec::black_hole(port),
        })
    }

    fn all_to(&self, spec: ClusterSpec) -> PortTraffic {
        PortTraffic {
            protocol: self.protocol,
            http: Default::default(),
            l4: Vec::new(),
            default: Arc::new(spec),
        }
    }
}

/// What rules say about a service port, for clients in a namespace.
pub(crate) fn asked(
    snapshot: &Snapshot,
    namespace: &str,
    dialled: SocketAddr,
) -> Option<Arc<PortTraffic>> {
    let route = snapshot.route(dialled)?;
    route.traffic.get(namespace).cloned()
}

/// Whether a port may carry requests at all.
pub(crate) fn is_about_requests(traffic: &PortTraffic) -> bool {
    !matches!(traffic.protocol, AppProtocol::Tcp | AppProtocol::Tls)
}
