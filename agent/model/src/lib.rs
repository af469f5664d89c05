//! The mesh's nouns, and nothing else: no wire format, no kernel type, no I/O.
//!
//! Sources produce a [`Cluster`], the snapshot compiler consumes one. Everything that comes from
//! configuration carries the [`ResourceRef`] of the object that said so.

mod authorizer;
mod cluster;
mod diagnostic;
mod identity;
mod peer_authentication;
mod policy;
mod rate_limit;
mod request_authentication;
mod resource;
mod service;
pub mod traffic;
mod workload;

pub use authorizer::{Authorizer, AuthorizerProtocol, CheckedBody, HttpAuthorizer, MeshConfig};
pub use cluster::{Cluster, Generation, Namespace, Node, ServiceAccount};
pub use diagnostic::{Diagnostic, Severity, SourcePosition};
pub use identity::{IdentityError, SpiffeId, TrustDomain};
pub use peer_authentication::{MtlsMode, PeerAuthentication};
pub use policy::{
    AuthorizationPolicy, Condition, Operation, PathMatch, PathTemplate, PolicyAction,
    PrincipalMatch, Rule, ServiceAccountMatch, Source, TextMatch, Values, parse_block,
};
pub use rate_limit::{
    LimitAnswer, LimitHeaders, LimitKey, LimitRule, Limits, Rate, RateLimitPolicy,
};
pub use request_authentication::{JwtKeys, JwtRule, RequestAuthentication, TokenLocation};
pub use resource::{NamespacedName, ObjectName, ResourceRef};
pub use service::{
    Distribution, Endpoint, EndpointPort, EndpointSlice, ExternalName, Protocol, Service,
    ServicePort, TargetPort,
};
pub use workload::{Enrolment, FailMode, PodLocation, SourceAddress, Wire, Workload};
