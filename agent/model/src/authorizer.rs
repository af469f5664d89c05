//! MeshConfig: whom policies with action CUSTOM may ask.
//!
//! Source: Istio, `mesh/v1alpha1/config.proto`, `ExtensionProvider`.

use std::time::Duration;

use crate::{NamespacedName, ResourceRef, TextMatch};

/// One MeshConfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// `extensionProviders`, as far as they are authorizers.
    pub authorizers: Vec<Authorizer>,
}

/// A service that says of single requests whether they may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorizer {
    /// What policies call it.
    pub name: String,
    /// Namespace of the object that names its host, where that is said.
    pub namespace: Option<String>,
    /// Its host, in lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// A request passes where no answer can be had.
    pub fail_open: bool,
    /// The status of a request that does not pass for want of an answer.
    pub status_on_error: u16,
    /// How much of a request's body it is shown.
    pub body: Option<CheckedBody>,
    /// How it is asked.
    pub protocol: AuthorizerProtocol,
}

/// How much of a request's body an authorizer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedBody {
    /// Longest body, or beginning of one.
    pub max_bytes: usize,
    /// Of a longer body, the beginning is shown; otherwise the request is refused.
    pub partial: bool,
    /// It is shown as bytes and not as text; gRPC only.
    pub raw: bool,
}

/// How an authorizer is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizerProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// A request that looks like the one in question.
    Http(HttpAuthorizer),
}

/// What passes between a request, an authorizer that speaks HTTP, and the answer. Patterns are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAuthorizer {
    /// Stands before the request's path.
    pub path_prefix: String,
    /// Headers of the request that it is shown.
    pub request_headers: Vec<TextMatch>,
    /// Headers that it is shown besides.
    pub additional_headers: Vec<(String, String)>,
    /// Headers of its answer that the application gets.
    pub upstream_on_allow: Vec<TextMatch>,
    /// Headers of its answer that a refused client gets; empty for all.
    pub downstream_on_deny: Vec<TextMatch>,
    /// Headers of its answer that a client gets who is answered by the application.
    pub downstream_on_allow: Vec<TextMatch>,
}
