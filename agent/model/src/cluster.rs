//! Everything that a source knows at one moment.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::Serialize;

use crate::{
    AuthorizationPolicy, EndpointSlice, ExternalName, MeshConfig, NamespacedName,
    PeerAuthentication, RateLimitPolicy, RequestAuthentication, ResourceRef, Service, Workload,
    traffic::{BackendTls, DestinationRule, RouteSet, ServiceEntry, TlsSecret, WorkloadEntry},
};

/// One complete, consistent reading of the configuration. Maps are ordered so that whatever is
/// compiled from them is deterministic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Service accounts.
    pub service_accounts: BTreeMap<NamespacedName, ServiceAccount>,
    /// Pods.
    pub workloads: BTreeMap<NamespacedName, Workload>,
    /// Services.
    pub services: BTreeMap<NamespacedName, Service>,
    /// Endpoint slices, by the slice's own name.
    pub endpoint_slices: BTreeMap<NamespacedName, EndpointSlice>,
    /// Which connections workloads accept.
    pub peer_authentications: BTreeMap<NamespacedName, PeerAuthentication>,
    /// Whose tokens requests may carry.
    pub request_authentications: BTreeMap<NamespacedName, RequestAuthentication>,
    /// Who may connect.
    pub authorization_policies: BTreeMap<NamespacedName, AuthorizationPolicy>,
    /// Whom policies may ask.
    pub mesh_configs: BTreeMap<NamespacedName, MeshConfig>,
    /// How much is served.
    pub rate_limits: BTreeMap<NamespacedName, RateLimitPolicy>,
    /// What becomes of requests and connections, one for each object that gives routes.
    pub routes: Vec<RouteSet>,
    /// How hosts' endpoints are used.
    pub destination_rules: BTreeMap<NamespacedName, DestinationRule>,
    /// TLS towards Services' endpoints.
    pub backend_tls: Vec<BackendTls>,
    /// Secrets that DestinationRules name.
    pub tls_secrets: BTreeMap<NamespacedName, TlsSecret>,
    /// Services that stand for a name elsewhere.
    pub external_names: BTreeMap<NamespacedName, ExternalName>,
    /// Hosts that are no Kubernetes Service.
    pub service_entries: BTreeMap<NamespacedName, ServiceEntry>,
    /// Endpoints that are no pods.
    pub workload_entries: BTreeMap<NamespacedName, WorkloadEntry>,
}

/// A namespace and what it says about its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The Namespace object.
    pub origin: ResourceRef,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The Node object.
    pub origin: ResourceRef,
    /// Internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels (topology among them).
    pub labels: BTreeMap<String, String>,
}

/// A service account, the name that certificates are issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The ServiceAccount object.
    pub origin: ResourceRef,
}

/// Numbers the states that a source publishes; the same number follows a state into every sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
