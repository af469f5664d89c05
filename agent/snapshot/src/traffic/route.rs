//! Routes, compiled.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use undermesh_model::{
    ResourceRef,
    traffic::{Cors, DirectResponse, Fault, L4Match, Millionths, PathRewrite, Redirect, Retries},
};

use super::{Client, ClusterSpec, RouteTable, matcher::host_matches};

/// What a service port speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AppProtocol {
    /// Nothing says so: the first bytes tell HTTP from anything else.
    #[default]
    Auto,
    /// HTTP/1.
    Http,
    /// HTTP/2 in clear.
    Http2,
    /// gRPC: HTTP/2 in clear.
    Grpc,
    /// TLS that is passed through (`https`, `tls`).
    Tls,
    /// Anything; never looked at.
    Tcp,
}

/// What becomes of connections to one service port, for clients of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTraffic {
    /// What the port speaks.
    pub protocol: AppProtocol,
    /// Routes for requests.
    pub http: RouteTable,
    /// Routes for connections that are not HTTP, the first that matches: TLS before TCP. See
    /// [`PortTraffic::l4_route`].
    pub l4: Vec<L4Route>,
    /// Where everything goes that no route is about.
    pub default: Arc<ClusterSpec>,
}

impl PortTraffic {
    /// The route of a connection that is not HTTP: `sni` is the server name that a TLS client asks
    /// for, `dialled` the address that it dialled. `None`: no route is about it, it goes to
    /// [`PortTraffic::default`].
    pub fn l4_route(
        &self,
        sni: Option<&str>,
        dialled: IpAddr,
        client: &Client<'_>,
    ) -> Option<&L4Route> {
        self.l4.iter().find(|route| route.is_about(sni, dialled, client))
    }

    /// Whether [`PortTraffic::l4_route`] depends on the server name, so that it has to be known.
    pub fn looks_at_server_names(&self) -> bool {
        self.l4.iter().flat_map(|route| &route.matches).any(|one| !one.sni_hosts.is_empty())
    }
}

impl L4Route {
    fn is_about(&self, sni: Option<&str>, dialled: IpAddr, client: &Client<'_>) -> bool {
        let matches = |one: &L4Match| {
            let blocks = &one.destinations;
            (blocks.is_empty() || blocks.iter().any(|block| block.contains(&dialled)))
                && one.source_namespace.as_ref().is_none_or(|wanted| wanted == client.namespace)
                && client.has(&one.source_labels)
                && (one.sni_hosts.is_empty() || sni.is_some_and(|sni| names(&one.sni_hosts, sni)))
        };
        self.matches.is_empty() || self.matches.iter().any(matches)
    }
}

fn names(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| host_matches(pattern, name))
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The object it comes from.
    pub origin: Arc<ResourceRef>,
    /// The rule's name, or its position.
    pub name: Arc<str>,
    /// What is done in the end.
    pub action: RouteAction,
    /// The path.
    pub path: Option<PathRewrite>,
    /// `Host` or `:authority`.
    pub authority: Option<HeaderValue>,
    /// Headers to change, before those of the chosen target.
    pub headers: HeaderEdits,
    /// For the whole request.
    pub timeout: Option<Duration>,
    /// What is tried again; `None` for nothing.
    pub retries: Option<Retries>,
    /// Errors to inject.
    pub fault: Option<Fault>,
    /// Who gets a copy.
    pub mirrors: Vec<(Target, Millionths)>,
    /// Answers to browsers' questions.
    pub cors: Option<Cors>,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Sent on.
    Forward(Vec<Weighted>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// Answered here.
    Direct(DirectResponse),
}

/// A share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// Where they go.
    pub target: Target,
    /// Its share, in proportion to the sum of all.
    pub weight: u32,
    /// Headers to change for this target alone.
    pub headers: HeaderEdits,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a cluster.
    Cluster(Arc<ClusterSpec>),
    /// Nowhere: what the object says cannot be used. Answered with this status.
    Unusable(u16),
}

/// Headers to change: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// In the request: names to remove.
    pub request_remove: Vec<HeaderName>,
    /// In the request: replaced or added.
    pub request_set: Vec<(HeaderName, HeaderValue)>,
    /// In the request: added.
    pub request_add: Vec<(HeaderName, HeaderValue)>,
    /// In the response: names to remove.
    pub response_remove: Vec<HeaderName>,
    /// In the response: replaced or added.
    pub response_set: Vec<(HeaderName, HeaderValue)>,
    /// In the response: added.
    pub response_add: Vec<(HeaderName, HeaderValue)>,
}

/// A route for connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Route {
    /// The object it comes from.
    pub origin: ResourceRef,
    /// Alternatives; empty for every connection.
    pub matches: Vec<L4Match>,
    /// Where they go, by weight.
    pub targets: Vec<Weighted>,
}
