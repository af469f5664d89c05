//! Sets of routes, as one object gives them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Backend, HttpRule};
use crate::{NamespacedName, ResourceRef};

/// The routes that one object gives: a VirtualService (delegates resolved), an HTTPRoute, GRPCRoute,
/// TCPRoute or TLSRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSet {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// Whose rules decide between routes.
    pub dialect: Dialect,
    /// Annotation `undermesh.io/precedence`: the higher wins, before everything else. 0 where there
    /// is none.
    pub precedence: i64,
    /// `creationTimestamp`, in seconds since 1970; 0 where there is none.
    pub created: i64,
    /// Clients that it is for.
    pub scope: Scope,
    /// What it is about.
    pub parents: Vec<Parent>,
    /// Rules for requests, in their order.
    pub http: Vec<HttpRule>,
    /// Rules for TLS connections that pass through, by server name.
    pub tls: Vec<L4Rule>,
    /// Rules for connections.
    pub tcp: Vec<L4Rule>,
}

/// Whose rules decide between routes, and what an unmatched request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// The first rule in order that matches; between objects the older.
    Istio,
    /// The most specific match; between equals the older object, then the name, then the order.
    Gateway,
}

/// Clients' namespaces that an object is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All (`exportTo: ["*"]`, the default).
    #[default]
    Everywhere,
    /// These; none for `~`.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// Whether clients of this namespace are meant.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Namespaces(all) => all.contains(namespace),
        }
    }
}

/// What routes are about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parent {
    /// Hosts: a full DNS name, `*.` and a name, or `*` (VirtualService).
    Host(String),
    /// A Service (Gateway API); on one of its ports or on all.
    Service {
        /// The Service.
        service: NamespacedName,
        /// One port of it.
        port: Option<u16>,
    },
}

/// One rule for connections: for those that any of its matches is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Rule {
    /// Its name, for logs; may be empty.
    pub name: String,
    /// Alternatives; empty for every connection.
    pub matches: Vec<L4Match>,
    /// Where it leads, by weight.
    pub backends: Vec<Backend>,
}

/// Which connections a rule is about: everything that is set has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L4Match {
    /// Server names of TLS clients: full or with a leading `*.`; empty for any, TLS or not.
    pub sni_hosts: Vec<String>,
    /// Addresses that were dialled; empty for any.
    pub destinations: Vec<IpNet>,
    /// Port of the service that was dialled.
    pub port: Option<u16>,
    /// Labels that the client's pod has.
    pub source_labels: BTreeMap<String, String>,
    /// The client's namespace.
    pub source_namespace: Option<String>,
}
