//! Clusters: endpoints that stand for one destination, and how they are used.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use undermesh_model::{
    ResourceRef,
    traffic::{
        ClientTls, ConnectionPool, LoadBalancer, Locality, OutlierDetection, SimpleBalancer,
    },
};

use super::AppProtocol;
use crate::WorkloadInfo;

/// Names a destination. State that outlives a snapshot (ejections, open connections) is kept by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKey {
    /// DNS name of the service.
    pub host: String,
    /// Port of the service.
    pub port: u16,
    /// Subset of the DestinationRule; empty for the whole.
    pub subset: String,
    /// Client namespace where the DestinationRule is not everybody's; empty otherwise.
    pub view: String,
}

/// One destination: its endpoints, and how they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Its name.
    pub key: ClusterKey,
    /// The DestinationRule that it follows.
    pub rule: Option<ResourceRef>,
    /// What its endpoints speak.
    pub protocol: AppProtocol,
    /// Where requests may go, in a stable order.
    pub endpoints: Vec<ClusterEndpoint>,
    /// Names whose addresses are endpoints, too.
    pub dns: Vec<DnsEndpoint>,
    /// How they are used.
    pub settings: Settings,
}

/// Names of the two destinations that stand for no host, as Istio has them.
const PASSTHROUGH: &str = "PassthroughCluster";
const BLACK_HOLE: &str = "BlackHoleCluster";

impl ClusterSpec {
    /// Wherever a client has dialled.
    pub fn passthrough(port: u16) -> Self {
        let mut spec = Self::of_nobody(PASSTHROUGH, port);
        spec.settings.balancer.simple = Some(SimpleBalancer::Passthrough);
        spec
    }

    /// Nowhere.
    pub fn black_hole(port: u16) -> Self {
        Self::of_nobody(BLACK_HOLE, port)
    }

    /// Whether it is [`ClusterSpec::black_hole`].
    pub fn is_black_hole(&self) -> bool {
        self.key.host == BLACK_HOLE
    }

    fn of_nobody(name: &str, port: u16) -> Self {
        let (subset, view) = (String::new(), String::new());
        Self {
            key: ClusterKey { host: name.to_owned(), port, subset, view },
            rule: None,
            protocol: AppProtocol::Auto,
            endpoints: Vec::new(),
            dns: Vec::new(),
            settings: Settings::default(),
        }
    }
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEndpoint {
    /// Where to dial.
    pub address: SocketAddr,
    /// The enrolled workload there; `None` is dialled outside the mesh.
    pub workload: Option<Arc<WorkloadInfo>>,
    /// Its share, at least 1.
    pub weight: u32,
    /// Where it is.
    pub locality: Locality,
    /// Tier from locality and failover rules: lower ones are used while enough of them are healthy.
    pub priority: u32,
}

/// A name whose addresses are endpoints: whoever dials asks DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsEndpoint {
    /// The name, without a dot at its end.
    pub name: String,
    /// The port to dial.
    pub port: u16,
    /// One address at a time stands for the name (`DNS_ROUND_ROBIN`), instead of all of them.
    pub one: bool,
    /// The share of each of its addresses, at least 1.
    pub weight: u32,
    /// Where they are.
    pub locality: Locality,
    /// Their tier.
    pub priority: u32,
}

/// How a cluster's endpoints are used: the DestinationRule with subsets and ports applied. Defaults
/// are those of Istio where a field is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which endpoint.
    pub balancer: LoadBalancer,
    /// Shares of localities in percent, for the locality of this node; empty for none.
    pub locality_shares: BTreeMap<Locality, u32>,
    /// How many connections and requests.
    pub pool: ConnectionPool,
    /// When an endpoint is left out.
    pub outlier: Option<OutlierDetection>,
    /// TLS towards endpoints outside the mesh.
    pub tls: Option<ClientTls>,
}
