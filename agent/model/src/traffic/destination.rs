//! How a host's endpoints are used.
//!
//! Source: Istio `networking/v1/destination_rule.proto`. A field that is `None` was not set.

use std::{collections::BTreeMap, time::Duration};

use super::{KeyMaterial, Millionths, Scope};
use crate::{NamespacedName, ResourceRef};

/// One DestinationRule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRule {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// Annotation `undermesh.io/precedence`: the higher wins. 0 where there is none.
    pub precedence: i64,
    /// `creationTimestamp`, in seconds since 1970; 0 where there is none.
    pub created: i64,
    /// The host: a full DNS name, or `*.` and a name.
    pub host: String,
    /// Labels of the clients that it is for (`workloadSelector`); empty for all.
    pub selector: BTreeMap<String, String>,
    /// Clients that it is for.
    pub scope: Scope,
    /// For all of the host.
    pub policy: TrafficPolicy,
    /// Named parts of the host's endpoints.
    pub subsets: Vec<Subset>,
}

impl DestinationRule {
    /// All that it says about TLS, whatever part of the host it is about.
    pub fn tls(&self) -> impl Iterator<Item = &ClientTls> {
        let subsets = self.subsets.iter().map(|subset| &subset.policy);
        let all = std::iter::once(&self.policy).chain(subsets);
        let all = all.flat_map(|policy| std::iter::once(policy).chain(policy.ports.values()));
        all.filter_map(|policy| policy.tls.as_ref())
    }
}

/// A named part of a host's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// Labels of its endpoints.
    pub labels: BTreeMap<String, String>,
    /// What differs from the host's policy, setting by setting.
    pub policy: TrafficPolicy,
}

/// How endpoints are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Which endpoint.
    pub balancer: Option<LoadBalancer>,
    /// How many connections and requests.
    pub pool: Option<ConnectionPool>,
    /// When an endpoint is left out.
    pub outlier: Option<OutlierDetection>,
    /// TLS towards hosts outside the mesh.
    pub tls: Option<ClientTls>,
    /// By port of the service. What stands here replaces all of the above; what does not is the
    /// default, not what stands above.
    pub ports: BTreeMap<u16, TrafficPolicy>,
}

/// Which endpoint a request goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// By which rule; `None` for the default, least request.
    pub simple: Option<SimpleBalancer>,
    /// The same endpoint for the same key.
    pub hash: Option<ConsistentHash>,
    /// By where endpoints are.
    pub locality: Option<LocalityBalance>,
    /// New endpoints get their share step by step.
    pub warmup: Option<Warmup>,
}

/// Rules that need no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SimpleBalancer {
    /// The less loaded of two.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The address that the client dialled.
    Passthrough,
}

/// The same endpoint for the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    /// The key.
    pub key: HashKey,
    /// How keys are mapped to endpoints.
    pub ring: Ring,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A header.
    Header(String),
    /// A cookie, set for clients that have none where it has a life time.
    Cookie {
        /// Its name.
        name: String,
        /// Its path.
        path: Option<String>,
        /// Its life time; 0 for a session cookie.
        ttl: Option<Duration>,
    },
    /// The client's address.
    SourceIp,
    /// A parameter of the query.
    Query(String),
}

/// How keys are mapped to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Ring hash, with at least so many points.
    Ring {
        /// Least number of points.
        minimum: u64,
    },
    /// Maglev, with a table of this (prime) size.
    Maglev {
        /// Size of the table.
        size: u64,
    },
}

/// Region, zone and subzone; empty parts are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    pub region: String,
    /// `topology.kubernetes.io/zone`.
    pub zone: String,
    /// `topology.istio.io/subzone`.
    pub subzone: String,
}

/// By where endpoints are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalityBalance {
    /// `enabled: false` switches off what the mesh does by default.
    pub enabled: Option<bool>,
    /// From localities like `us-west/zone1/*`: shares of localities, in percent.
    pub distribute: Vec<(String, Vec<(String, u32)>)>,
    /// From a region to the one that takes over.
    pub failover: Vec<(String, String)>,
    /// Labels in falling importance, some as `key=value`: endpoints that share more of them with the
    /// client come first.
    pub failover_priority: Vec<String>,
}

/// New endpoints get their share step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// How long.
    pub duration: Duration,
    /// The share that one begins with, in percent.
    pub minimum_percent: u32,
    /// Aggression in thousandths: 1000 is linear.
    pub aggression: u32,
}

/// How many connections and requests a client pod may have with a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Connections.
    pub tcp: TcpPool,
    /// Requests.
    pub http: HttpPool,
}

/// Connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpPool {
    /// At most so many.
    pub max_connections: Option<u32>,
    /// Time to make one.
    pub connect_timeout: Option<Duration>,
    /// Keepalive: probes, time before the first, time between them.
    pub keepalive: Option<(Option<u32>, Option<Duration>, Option<Duration>)>,
    /// A connection is given up after this time.
    pub max_connection_duration: Option<Duration>,
    /// A connection without traffic is given up.
    pub idle_timeout: Option<Duration>,
}

/// Requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPool {
    /// Requests that wait for a connection (HTTP/1.1).
    pub max_pending: Option<u32>,
    /// Requests at a time (`http2MaxRequests`, for both versions).
    pub max_requests: Option<u32>,
    /// Requests until a connection is closed; 0 for no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Retries at a time.
    pub max_retries: Option<u32>,
    /// A connection without requests is closed.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 becomes HTTP/2.
    pub upgrade: Option<UpgradePolicy>,
    /// The upstream is spoken to as the client speaks.
    pub use_client_protocol: bool,
    /// Streams of an HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
}

/// Whether HTTP/1.1 becomes HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradePolicy {
    /// As the port's protocol says.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// When an endpoint is left out for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Errors made here (time-outs, resets, refused connections) are counted apart from the
    /// upstream's.
    pub split_local_errors: bool,
    /// Errors of our own in a row (`consecutiveLocalOriginFailures`); 5 by default.
    pub consecutive_local: Option<u32>,
    /// 502, 503, 504 in a row; 0 switches off.
    pub consecutive_gateway: Option<u32>,
    /// 5xx in a row; 5 by default, 0 switches off.
    pub consecutive_5xx: Option<u32>,
    /// Between two looks; 10 s by default.
    pub interval: Option<Duration>,
    /// Time out of service, times the number of ejections; 30 s by default.
    pub base_ejection_time: Option<Duration>,
    /// Share of endpoints that may be out; 10 % by default.
    pub max_ejection: Option<Millionths>,
    /// Below this share of healthy endpoints, all are used; 0 % by default.
    pub min_health: Option<Millionths>,
}

/// TLS towards a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// How.
    pub mode: TlsMode,
    /// Name that is asked for; `None` for the request's host.
    pub sni: Option<String>,
    /// Names of which the certificate has to have one; empty for `sni`.
    pub subject_alt_names: Vec<String>,
    /// Roots to verify with, as PEM, or a path to a file of the node; `None` for the system's.
    pub ca: Option<KeyMaterial>,
    /// Certificates that are not accepted; with any, each of a chain has to be in one's reach.
    pub crl: Option<KeyMaterial>,
    /// Our certificate and its key.
    pub client: Option<(KeyMaterial, KeyMaterial)>,
    /// The Secret that all of these are in, of the client's namespace.
    pub credential: Option<String>,
    /// The certificate is not looked at.
    pub insecure: bool,
}

/// How TLS is used towards a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Not at all; the mesh's own mTLS is not concerned.
    #[default]
    Disable,
    /// The server proves who it is.
    Simple,
    /// Both do, with certificates that are given.
    Mutual,
    /// Both do, with the mesh's certificates.
    IstioMutual,
}
