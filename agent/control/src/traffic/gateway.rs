//! The Gateway API for the mesh (GAMMA): HTTPRoute, GRPCRoute, TCPRoute, TLSRoute with Services as
//! parents, ReferenceGrant, and BackendTLSPolicy.
//!
//! The path: one file per kind reads an object to a [`RouteDraft`], and refuses what the API's
//! validation refuses; [`connect`] adds what only shows when objects are seen together: Services,
//! their ports, and grants. Which of several routes holds is decided where snapshots are compiled.
//!
//! Source: `gateway.networking.k8s.io` v1, GEP-1294 (mesh), GEP-1742 (time-outs), GEP-1731 (retries),
//! GEP-1767 (CORS), GEP-3171 (mirrors).

mod backend_tls;
mod backends;
mod connect;
mod cors;
mod cursor;
mod filters;
mod grpc_route;
mod headers;
mod http_route;
mod l4_routes;
mod matches;
mod parents;
mod paths;
mod reference_grant;
mod retries;
mod values;

pub(crate) use backend_tls::{BackendTlsPolicy, TlsDraft, connect_tls, tls_policy};
pub(crate) use connect::connect;
pub(crate) use grpc_route::{GrpcRoute, grpc_route};
pub(crate) use http_route::{HttpRoute, http_route};
pub(crate) use l4_routes::{TcpRoute, TlsRoute, tcp_route, tls_route};
pub(crate) use reference_grant::{Grant, ReferenceGrant, reference_grant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use undermesh_model::{
    NamespacedName,
    traffic::{Dialect, HttpRule, L4Rule, RouteSet, Scope},
};

use super::common;
use crate::{objects::Placed, report::Report, report::Subject};
use backends::Reference;
use cursor::Cursor;
use parents::ParentRef;

/// The API's group.
const GROUP: &str = "gateway.networking.k8s.io";

/// The versions of HTTPRoute that say the same.
pub(crate) const HTTP_VERSIONS: [&str; 2] =
    ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];

/// The versions of GRPCRoute that say the same.
pub(crate) const GRPC_VERSIONS: [&str; 3] = [
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
    "gateway.networking.k8s.io/v1alpha2",
];

/// The versions of TCPRoute and TLSRoute that say the same.
pub(crate) const L4_VERSIONS: [&str; 3] = [
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];

/// The versions of BackendTLSPolicy that say the same.
pub(crate) const TLS_POLICY_VERSIONS: [&str; 2] =
    ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3"];

/// The versions of ReferenceGrant that say the same.
pub(crate) const GRANT_VERSIONS: [&str; 2] =
    ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];

/// A route, read, and what is to be found in other objects.
#[derive(Clone, Debug)]
pub(crate) struct RouteDraft {
    /// Without parents.
    routes: RouteSet,
    /// Services that it is for.
    parents: Vec<Placed<ParentRef>>,
    /// Services that its rules send to.
    references: Vec<Placed<Reference>>,
}

/// The rules of a route.
#[derive(Default)]
struct Rules {
    http: Vec<HttpRule>,
    tls: Vec<L4Rule>,
    tcp: Vec<L4Rule>,
}

/// A draft of what has been read; `None` for a route that is not for the mesh.
fn draft(
    metadata: &ObjectMeta,
    parents: &parents::CommonSpec<'_>,
    subject: &Subject<'_>,
    report: &mut Report,
    read: impl FnOnce(&mut Cursor<'_, '_>) -> Rules,
) -> Option<Placed<RouteDraft>> {
    let precedence = common::precedence(metadata, subject, report);
    let mut cursor = Cursor::new(subject, report);
    let parents = cursor.within("spec", |cursor| parents.read(cursor));
    let Rules { http, tls, tcp } = cursor.within("spec", read);
    let references = cursor.into_references();
    if parents.is_empty() {
        return None;
    }
    let routes = RouteSet {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        dialect: Dialect::Gateway,
        precedence,
        created: common::created(metadata),
        scope: Scope::Everywhere,
        parents: Vec::new(),
        http,
        tls,
        tcp,
    };
    Some(Placed::new(RouteDraft { routes, parents, references }, subject))
}

#[cfg(test)]
mod tests;
