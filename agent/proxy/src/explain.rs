//! What would become of a connection or a request, and why, for whoever asks before it happens.
//!
//! **Invariant**: nothing is decided here. Each answer is that of the very step that the data path takes, asked with a
//! snapshot, a client and a request instead of sockets; no step counts, logs or waits for anything here. What
//! cannot be known beforehand (whom chance chooses, what an authorizer says) is left open, and named.

mod present;

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, Method, Request, Uri};
use undermesh_model::{ResourceRef, Wire};
use undermesh_snapshot::{ServicePortRoute, Snapshot, WorkloadInfo, traffic::PortTraffic};

use crate::{
    authorize::Denial,
    config::HeadLimits,
    error::Failure,
    http::{Head, LocalReply, traffic_of},
    plan::{self, Dialler, Target},
};
pub use crate::{
    guard::explain::{
        Asks, Budget, Judged, KeysAtHand, RequestJudged, Token, Visitor, budgets, connection,
        opaque, request,
    },
    http::explain::{
        Answer, Candidate, Candidates, ConnectionRoute, InjectedFault, Led, RequestRoute,
        candidates, carries_requests, faults, led, route_connection, route_request,
    },
};
pub use present::Present;

/// Picks that are tried to see whom chance may choose; slots of a service are no more.
const MAX_PICKS: usize = 4096;

/// Why something would not be carried: what logs would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The stable code.
    pub reason: &'static str,
    /// More about it; may be empty.
    pub detail: String,
    /// What a request would be answered with.
    pub status: Option<u16>,
    /// The policy that says no.
    pub policy: Option<ResourceRef>,
}

impl From<&Failure> for Refused {
    fn from(failure: &Failure) -> Self {
        let (reason, detail) = (failure.reason(), failure.to_string());
        Self { reason, detail, status: None, policy: None }
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        let detail = denial.detail.to_string();
        Self { reason: denial.reason, detail, status: None, policy: None }
    }
}

impl From<LocalReply> for Refused {
    fn from(reply: LocalReply) -> Self {
        Self {
            reason: reply.reason,
            detail: reply.detail.unwrap_or_default(),
            status: Some(reply.status.as_u16()),
            policy: reply.policy.map(|policy| *policy),
        }
    }
}

/// An endpoint, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Address and port of the application.
    pub address: SocketAddr,
    /// The enrolled workload there.
    pub workload: Option<Arc<WorkloadInfo>>,
    /// The wire that proves its identity; `None` where it is dialled in plaintext.
    pub wire: Option<Wire>,
}

impl From<Target> for Reached {
    fn from(target: Target) -> Self {
        let Target { address, workload, wire } = target;
        Self { address, workload, wire }
    }
}

/// What the plan of an outbound connection says.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The service that was dialled.
    pub service: Option<Arc<ServicePortRoute>>,
    /// What rules say about it; its requests, or bytes, go by them and not by `endpoints`.
    pub traffic: Option<Arc<PortTraffic>>,
    /// Who would be tried first, and in how many of the cases.
    pub endpoints: Vec<(Reached, usize)>,
    /// Why nobody would be.
    pub refused: Option<Refused>,
}

/// Plans a connection of `client`, for all that chance may choose.
pub fn outgoing(snapshot: &Snapshot, client: &WorkloadInfo, dialled: SocketAddr) -> Outgoing {
    let address = client.addresses.iter().find(|own| own.is_ipv4() == dialled.is_ipv4());
    let namespace = &client.name.namespace;
    let dialler = Dialler { address: address.copied().unwrap_or(dialled.ip()), namespace };
    let mut slots = 0;
    let first = plan::decide(snapshot, dialler, dialled, 1, |among| {
        slots = among;
        0
    });
    let mut endpoints: Vec<(Reached, usize)> = Vec::new();
    let mut add = |targets: Vec<Target>| {
        for reached in targets.into_iter().map(Reached::from) {
            match endpoints.iter_mut().find(|(known, _)| *known == reached) {
                Some((_, cases)) => *cases += 1,
                None => endpoints.push((reached, 1)),
            }
        }
    };
    let refused = first.targets.is_empty().then(|| Refused::from(&first.refusal()));
    let service = first.service.clone();
    add(first.targets);
    for slot in 1..slots.min(MAX_PICKS) {
        add(plan::decide(snapshot, dialler, dialled, 1, |_| slot).targets);
    }
    let traffic = traffic_of(snapshot, namespace, dialled);
    Outgoing { service, traffic, endpoints, refused }
}

/// A request, with the head that routes and policies look at.
#[derive(Clone, Debug)]
pub struct Asked(pub(crate) Head);

impl Asked {
    /// A request as a client would write it.
    ///
    /// # Errors
    /// It is no request that would be passed on.
    pub fn new(
        method: Method,
        target: Uri,
        headers: HeaderMap,
        dialled: SocketAddr,
    ) -> Result<Self, Refused> {
        let mut request = Request::new(());
        (*request.method_mut(), *request.uri_mut()) = (method, target);
        *request.headers_mut() = headers;
        let (parts, ()) = request.into_parts();
        Ok(Self(Head::within(HeadLimits::default(), parts, dialled)?))
    }

    /// The method.
    pub fn method(&self) -> &str {
        self.0.parts.method.as_str()
    }

    /// The authority that routes are asked about.
    pub fn authority(&self) -> &str {
        self.0.view().authority
    }

    /// The path without its query.
    pub fn path(&self) -> &str {
        self.0.view().path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_plan_names_everybody_whom_chance_may_choose() {
        let mut snapshot = Snapshot::default();
        let client = testing::workload("client", &["10.0.0.9"]);
        let mut heavy = testing::endpoint("10.0.0.2:8080", None);
        heavy.weight = 3;
        let endpoints = vec![heavy, testing::endpoint("10.0.0.3:8080", None)];
        testing::add_service(&mut snapshot, "10.96.0.1:80", endpoints);
        testing::add_service(&mut snapshot, "10.96.0.2:80", Vec::new());
        let outgoing = |to: &str| outgoing(&snapshot, &client, to.parse().unwrap());
        let found = outgoing("10.96.0.1:80");
        let shares: Vec<_> =
            found.endpoints.iter().map(|(to, n)| (to.address.to_string(), *n)).collect();
        assert_eq!(shares, [("10.0.0.2:8080".to_owned(), 3), ("10.0.0.3:8080".to_owned(), 1)]);
        assert_eq!(found.refused, None);
        let nobody = outgoing("10.96.0.2:80");
        assert!(nobody.endpoints.is_empty());
        assert_eq!(nobody.refused.unwrap().reason, "no_endpoints");
    }
}
