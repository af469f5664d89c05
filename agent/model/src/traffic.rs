//! What becomes of traffic on its way: routes, destinations, and hosts that are no Kubernetes
//! Service. Istio's and the Gateway API's objects end in the same nouns; where the two APIs decide
//! differently, [`Dialect`] says whose rules hold.

mod backend_tls;
mod cluster;
mod destination;
mod entry;
mod http;
mod key;
mod matching;
mod retry_on;
mod route;

pub use backend_tls::BackendTls;
pub use cluster::ClusterKey;
pub use destination::{
    ClientTls, ConnectionPool, ConsistentHash, DestinationRule, HashKey, HttpPool, LoadBalancer,
    Locality, LocalityBalance, OutlierDetection, Ring, SimpleBalancer, Subset, TcpPool, TlsMode,
    TrafficPolicy, UpgradePolicy, Warmup,
};
pub use entry::{
    EntryAddress, EntryEndpoint, EntryLocation, EntryPort, Resolution, ServiceEntry, WorkloadEntry,
};
pub use http::{
    AllowedOrigins, Backend, BackendRef, Cors, Delay, DirectResponse, Fault, HeaderOps, HttpAction,
    HttpRule, Mirror, PathRewrite, Redirect, RedirectPath, RedirectPort, Retries, RetryOn, Rewrite,
};
pub use key::{CA_SUFFIX, KeyMaterial, SecretBytes, TlsSecret};
pub use matching::{HttpMatch, PathMatch, TextPattern};
pub use route::{Dialect, L4Match, L4Rule, Parent, RouteSet, Scope};

/// A share in millionths, exact for the four decimals that the APIs allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Millionths(pub u32);

impl Millionths {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// From a percentage; outside of 0 to 100 it is the nearer end.
    pub fn from_percent(percent: f64) -> Self {
        // In range after the clamp; NaN becomes 0.
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }
}
