//! What is done with a request.
//!
//! Source: Istio `networking/v1/virtual_service.proto`; Gateway API `HTTPRouteRule`, `GRPCRouteRule`.

use std::time::Duration;

use super::{HttpMatch, Millionths, TextPattern};

/// One rule: for requests that any of its matches is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRule {
    /// Its name, for logs and metrics; may be empty.
    pub name: String,
    /// Alternatives; empty for every request.
    pub matches: Vec<HttpMatch>,
    /// What is done in the end.
    pub action: HttpAction,
    /// What the request's path and authority become.
    pub rewrite: Rewrite,
    /// Headers to change, before those of the chosen backend.
    pub headers: HeaderOps,
    /// For the whole request, all attempts included; `None` for no limit.
    pub timeout: Option<Duration>,
    /// `None` where the rule says nothing: Istio's default for its own dialect, none for the
    /// Gateway API's.
    pub retries: Option<Retries>,
    /// Errors to inject.
    pub fault: Option<Fault>,
    /// Who gets a copy.
    pub mirrors: Vec<Mirror>,
    /// Answers to browsers' questions.
    pub cors: Option<Cors>,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAction {
    /// It is sent on, to one of these by weight. Where all weights are 0, or there is none, the
    /// answer is 500 (Gateway API) or 503 (Istio).
    Forward(Vec<Backend>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    Direct(DirectResponse),
}

/// One of the destinations of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it leads.
    pub to: BackendRef,
    /// Its share, in proportion to the sum of all.
    pub weight: u32,
    /// Headers to change for this backend alone.
    pub headers: HeaderOps,
}

/// Where a backend leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendRef {
    /// A host of the mesh: full DNS name (`cart.shop.svc.cluster.local`) or a ServiceEntry's.
    Host {
        /// The name.
        host: String,
        /// The service's port; `None` where the host has only one.
        port: Option<u16>,
        /// A subset of the host's DestinationRule.
        subset: Option<String>,
    },
    /// What the object says cannot be used; its share of the requests is answered with 500.
    Invalid(String),
}

/// What the request becomes on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The path.
    pub path: Option<PathRewrite>,
    /// `Host` or `:authority`.
    pub authority: Option<String>,
}

/// What a path becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path; the query stays.
    Full(String),
    /// What the rule's match has matched: the prefix, or all of an exact match. Where a regex has
    /// matched: the whole path.
    Matched(String),
    /// RE2 and its replacement (`\1`), for all that matches (Istio `uriRegexRewrite`).
    Regex {
        /// The pattern.
        pattern: String,
        /// What takes its place.
        replacement: String,
    },
}

/// Headers to change: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// In the request: names to remove.
    pub request_remove: Vec<String>,
    /// In the request: replaced or added. `host` rewrites the authority.
    pub request_set: Vec<(String, String)>,
    /// In the request: added to what is there.
    pub request_add: Vec<(String, String)>,
    /// In the response: names to remove.
    pub response_remove: Vec<String>,
    /// In the response: replaced or added.
    pub response_set: Vec<(String, String)>,
    /// In the response: added to what is there.
    pub response_add: Vec<(String, String)>,
}

/// The client is sent elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host name, perhaps with a port (Istio `authority`).
    pub authority: Option<String>,
    /// The port.
    pub port: Option<RedirectPort>,
    /// The path; `None` for that of the request.
    pub path: Option<RedirectPath>,
}

/// The port that a redirect names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// That of the scheme.
    OfScheme,
    /// That of the request.
    OfRequest,
}

/// The path that a redirect names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPath {
    /// All of it, perhaps with a query (Istio `uri`).
    Full(String),
    /// In place of the prefix that was matched.
    Matched(String),
}

/// The answer to a request that goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// How often, and after what, a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first; 0 for none.
    pub attempts: u32,
    /// For each attempt; `None` for what the whole request may take.
    pub per_try_timeout: Option<Duration>,
    /// After what.
    pub on: RetryOn,
    /// Least time before the first retry; the next ones double it, up to ten times, with jitter.
    pub backoff: Duration,
    /// Other endpoints are preferred to those that have failed (Istio's `retryIgnorePreviousHosts`).
    /// `None`: they are, unless the destination is chosen by a consistent hash.
    pub avoid_previous: Option<bool>,
    /// `retryRemoteLocalities`: after every second attempt, the tiers of endpoints that it was tried
    /// at are left out.
    pub other_localities: bool,
}

impl Retries {
    /// What Istio does where nobody says anything: its `retry.DefaultPolicy`, without the status 503
    /// that older versions had (`EXCLUDE_UNSAFE_503_FROM_DEFAULT_RETRY`, now true). The backoff is
    /// Envoy's.
    pub fn istio_default() -> Self {
        Self {
            attempts: 2,
            per_try_timeout: None,
            on: RetryOn {
                connect_failure: true,
                refused_stream: true,
                grpc: vec![1, 14],
                ..RetryOn::default()
            },
            backoff: Duration::from_millis(25),
            avoid_previous: None,
            other_localities: false,
        }
    }
}

/// Conditions for a retry, by Envoy's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// `5xx`: any 5xx, or no answer at all (time-outs, resets, refused connections).
    pub server_errors: bool,
    /// `gateway-error`: 502, 503, 504.
    pub gateway_errors: bool,
    /// `reset`: no answer because the upstream broke the connection, or was too slow.
    pub reset: bool,
    /// `reset-before-request`: the same, before any of the request was sent.
    pub reset_before_request: bool,
    /// `connect-failure`: the connection could not be made.
    pub connect_failure: bool,
    /// `refused-stream`: an HTTP/2 stream was refused.
    pub refused_stream: bool,
    /// `retriable-4xx`: 409.
    pub conflict: bool,
    /// `envoy-ratelimited`: the answer says that it comes from a rate limit.
    pub rate_limited: bool,
    /// `http3-post-connect-failure` has no meaning here. Codes that stand among the conditions.
    pub codes: Vec<u16>,
    /// `grpc-status` values: `cancelled` 1, `deadline-exceeded` 4, `internal` 13,
    /// `resource-exhausted` 8, `unavailable` 14.
    pub grpc: Vec<u16>,
}

/// Errors to inject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Requests that wait.
    pub delay: Option<Delay>,
    /// Requests that are answered with this status (HTTP), and how many.
    pub abort: Option<(u16, Millionths)>,
    /// Requests that are answered with this gRPC status, and how many.
    pub grpc_abort: Option<(u16, Millionths)>,
}

/// A fixed delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// How many requests.
    pub share: Millionths,
}

/// Who gets a copy of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its answers are thrown away.
    pub to: BackendRef,
    /// Of how many.
    pub share: Millionths,
}

/// Which origins of web pages may ask what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Which origins.
    pub origins: AllowedOrigins,
    /// `Access-Control-Allow-Methods`.
    pub methods: Vec<String>,
    /// `Access-Control-Allow-Headers`.
    pub headers: Vec<String>,
    /// `Access-Control-Expose-Headers`.
    pub expose: Vec<String>,
    /// `Access-Control-Max-Age`.
    pub max_age: Option<Duration>,
    /// `Access-Control-Allow-Credentials`.
    pub credentials: bool,
    /// Preflight requests of other origins go to the backend (Istio `unmatchedPreflights: FORWARD`,
    /// its default); else they are answered here without permission.
    pub forward_unmatched: bool,
}

/// Patterns of origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(pub Vec<TextPattern>);
