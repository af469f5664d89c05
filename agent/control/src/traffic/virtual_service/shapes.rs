//! The shape of a VirtualService, as Istio's `networking/v1/virtual_service.proto` gives it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct VirtualService {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) hosts: Vec<String>,
    pub(super) gateways: Vec<String>,
    pub(super) http: Vec<HttpRoute>,
    pub(super) tls: Vec<L4Route>,
    pub(super) tcp: Vec<L4Route>,
    pub(super) export_to: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpRoute {
    pub(super) name: String,
    #[serde(rename = "match")]
    pub(super) matches: Vec<HttpMatch>,
    pub(super) route: Vec<RouteDestination>,
    pub(super) redirect: Option<Redirect>,
    pub(super) direct_response: Option<DirectResponse>,
    pub(super) delegate: Option<Delegate>,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) timeout: Option<String>,
    pub(super) retries: Option<Retries>,
    pub(super) fault: Option<Fault>,
    pub(super) mirror: Option<Destination>,
    pub(super) mirrors: Vec<Mirror>,
    #[serde(alias = "mirror_percent")]
    pub(super) mirror_percent: Option<f64>,
    pub(super) mirror_percentage: Option<Percentage>,
    pub(super) cors_policy: Option<CorsPolicy>,
    pub(super) headers: Headers,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpMatch {
    pub(super) name: String,
    pub(super) uri: Option<StringMatch>,
    pub(super) ignore_uri_case: bool,
    pub(super) scheme: Option<StringMatch>,
    pub(super) method: Option<StringMatch>,
    pub(super) authority: Option<StringMatch>,
    pub(super) headers: BTreeMap<String, Option<StringMatch>>,
    pub(super) without_headers: BTreeMap<String, Option<StringMatch>>,
    pub(super) query_params: BTreeMap<String, Option<StringMatch>>,
    pub(super) port: u16,
    pub(super) source_labels: BTreeMap<String, String>,
    pub(super) source_namespace: String,
    pub(super) gateways: Vec<String>,
}

/// A pattern that is misspelt would match everything, so here nothing unknown is passed over.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StringMatch {
    pub(super) exact: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) regex: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RouteDestination {
    pub(super) destination: Option<Destination>,
    pub(super) weight: Option<u32>,
    pub(super) headers: Headers,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) subset: Option<String>,
    pub(super) port: Option<PortSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PortSelector {
    pub(super) number: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Headers {
    pub(super) request: HeaderOperations,
    pub(super) response: HeaderOperations,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HeaderOperations {
    pub(super) set: BTreeMap<String, String>,
    pub(super) add: BTreeMap<String, String>,
    pub(super) remove: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Redirect {
    pub(super) uri: String,
    pub(super) authority: String,
    pub(super) port: Option<u16>,
    pub(super) derive_port: Option<DerivePort>,
    pub(super) scheme: String,
    pub(super) redirect_code: u16,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum DerivePort {
    FromProtocolDefault,
    FromRequestPort,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DirectResponse {
    pub(super) status: u16,
    pub(super) body: Option<Body>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Body {
    pub(super) string: Option<String>,
    pub(super) bytes: Option<ByteString>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delegate {
    pub(super) name: String,
    pub(super) namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rewrite {
    pub(super) uri: String,
    pub(super) authority: String,
    pub(super) uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RegexRewrite {
    #[serde(rename = "match")]
    pub(super) pattern: String,
    pub(super) rewrite: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Retries {
    pub(super) attempts: u32,
    pub(super) per_try_timeout: Option<String>,
    pub(super) retry_on: String,
    pub(super) retry_remote_localities: Option<bool>,
    pub(super) retry_ignore_previous_hosts: Option<bool>,
    pub(super) backoff: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fault {
    pub(super) delay: Option<Delay>,
    pub(super) abort: Option<Abort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Delay {
    pub(super) fixed_delay: Option<String>,
    pub(super) exponential_delay: Option<String>,
    pub(super) percentage: Option<Percentage>,
    pub(super) percent: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Abort {
    pub(super) http_status: Option<u16>,
    pub(super) grpc_status: Option<String>,
    pub(super) http2_error: Option<String>,
    pub(super) percentage: Option<Percentage>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Percentage {
    pub(super) value: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mirror {
    pub(super) destination: Option<Destination>,
    pub(super) percentage: Option<Percentage>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CorsPolicy {
    pub(super) allow_origins: Vec<StringMatch>,
    pub(super) allow_origin: Vec<String>,
    pub(super) allow_methods: Vec<String>,
    pub(super) allow_headers: Vec<String>,
    pub(super) expose_headers: Vec<String>,
    pub(super) max_age: Option<String>,
    pub(super) allow_credentials: Option<bool>,
    pub(super) unmatched_preflights: UnmatchedPreflights,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum UnmatchedPreflights {
    #[default]
    Unspecified,
    Forward,
    Ignore,
}

/// A rule of `tls` or `tcp`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct L4Route {
    #[serde(rename = "match")]
    pub(super) matches: Vec<L4Match>,
    pub(super) route: Vec<RouteDestination>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct L4Match {
    pub(super) sni_hosts: Vec<String>,
    pub(super) destination_subnets: Vec<String>,
    pub(super) port: u16,
    pub(super) source_labels: BTreeMap<String, String>,
    pub(super) source_namespace: String,
    pub(super) gateways: Vec<String>,
}
