//! Clusters: endpoints that stand for one destination, and how they are used.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use undermesh_model::{
    ResourceRef,
    traffic::{
        ClientTls, ClusterKey, ConnectionPool, LoadBalancer, Locality, OutlierDetection,
        SimpleBalancer, TlsMode,
    },
};

use super::{AppProtocol, HostPattern};
use crate::WorkloadInfo;

/// One destination: its endpoints, and how they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Its name.
    pub key: Arc<ClusterKey>,
    /// The DestinationRule that it follows.
    pub rule: Option<ResourceRef>,
    /// What its endpoints speak.
    pub protocol: AppProtocol,
    /// Where requests may go, in a stable order.
    pub endpoints: Vec<ClusterEndpoint>,
    /// Names whose addresses are endpoints, too.
    pub dns: Vec<DnsEndpoint>,
    /// The port of all addresses of whatever name is asked for; `None` where endpoints do not depend on it.
    pub dynamic: Option<u16>,
    /// How they are used.
    pub settings: Settings,
}

/// Longest name in DNS.
const MAX_NAME: usize = 253;

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

    /// Whether each name that its host stands for is a destination of its own: its addresses are found by it,
    /// or the certificates of its endpoints have to be for it.
    pub fn is_of_many(&self) -> bool {
        let proven = |tls: &ClientTls| {
            matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual) && tls.sni.is_none()
        };
        let by_name = self.dynamic.is_some() || self.settings.tls.as_ref().is_some_and(proven);
        by_name && self.key.host.starts_with('*') && self.key.name.is_empty()
    }

    /// How one of these names is called, where it may be asked for.
    pub fn key_of(&self, name: &str) -> Option<ClusterKey> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(part);
        let meant = self.dynamic.is_none() || HostPattern::new(&self.key.host).matches(&name);
        (good && meant).then(|| ClusterKey { name, ..ClusterKey::clone(&self.key) })
    }

    /// What it is for the name of this key.
    #[must_use]
    pub fn of(&self, key: Arc<ClusterKey>) -> Self {
        let dns = self.dynamic.map(|port| DnsEndpoint {
            name: key.name.clone(),
            port,
            one: false,
            weight: 1,
            locality: Locality::default(),
            priority: 0,
        });
        let dns = self.dns.iter().cloned().chain(dns).collect();
        Self { key, dns, dynamic: None, ..self.clone() }
    }

    fn of_nobody(host: &str, port: u16) -> Self {
        Self {
            key: ClusterKey::new(host, port).into(),
            rule: None,
            protocol: AppProtocol::Auto,
            endpoints: Vec::new(),
            dns: Vec::new(),
            dynamic: None,
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
