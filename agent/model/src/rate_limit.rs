//! RateLimitPolicy: how much of what workloads are asked for is served. A kind of this mesh's own; rules match as
//! those of AuthorizationPolicy do.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use crate::{NamespacedName, ResourceRef, Rule};

/// One RateLimitPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitPolicy {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// Labels of the workloads that it is about; empty for all of its scope.
    pub selector: BTreeMap<String, String>,
    /// What it would refuse is counted and served.
    pub shadow: bool,
    /// Each that matches holds.
    pub rules: Vec<LimitRule>,
}

/// What may be asked for, of what a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// Name in headers and metrics, unique in the object.
    pub name: String,
    /// What it is about.
    pub when: Rule,
    /// The limits.
    pub limits: Limits,
}

/// Limits of one rule; there is at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Requests.
    pub requests: Option<Rate>,
    /// Connections, whatever they carry.
    pub connections: Option<Rate>,
    /// Bytes of a request's body.
    pub body: Option<u64>,
    /// What has a budget of its own; empty for all together.
    pub key: Vec<LimitKey>,
    /// Budgets that are kept at most.
    pub max_keys: usize,
    /// What a request that is too much is told.
    pub answer: LimitAnswer,
}

/// So many in a period, evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In which time.
    pub per: Duration,
    /// How many may come at once after a pause.
    pub burst: NonZeroU32,
}

/// What budgets are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// The pod that is asked; without it, the pods of a workload on one node share their budgets.
    Pod,
    /// `source.principal`.
    SourcePrincipal,
    /// `source.namespace`.
    SourceNamespace,
    /// `source.ip`: the client.
    SourceAddress,
    /// `remote.ip`: where a request comes from originally.
    RemoteAddress,
    /// `request.method`.
    Method,
    /// `request.host`, without its port.
    Host,
    /// `request.path`, normalised.
    Path,
    /// `request.headers[name]`, the name in lower case.
    Header(String),
    /// `request.auth.claims[a][b]`.
    Claim(Vec<String>),
}

impl LimitKey {
    /// Whether only a request has it.
    pub fn is_of_request(&self) -> bool {
        !matches!(
            self,
            Self::Pod | Self::SourcePrincipal | Self::SourceNamespace | Self::SourceAddress
        )
    }
}

/// The answer to a request that is too much.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LimitAnswer {
    /// HTTP's status.
    pub status: u16,
    /// What is said with it.
    pub body: String,
    /// gRPC's status: RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub exhausted: bool,
    /// Which answers say what is left of the budget.
    pub headers: LimitHeaders,
}

impl Default for LimitAnswer {
    fn default() -> Self {
        Self {
            status: 429,
            body: "local_rate_limited".to_owned(),
            exhausted: false,
            headers: LimitHeaders::default(),
        }
    }
}

/// Which answers have the fields `RateLimit` and `RateLimit-Policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LimitHeaders {
    /// Those to what is refused.
    #[default]
    Refused,
    /// All.
    Always,
    /// None.
    Never,
}
