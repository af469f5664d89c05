//! Step *limit*: what may pass by policy, may it pass now? Budgets are in [`crate::limits`]; here is what they are
//! told apart by, and what clients are told about them.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, RETRY_AFTER},
};
use bytes::Bytes;
use undermesh_model::{LimitHeaders, LimitKey, Rate, SpiffeId};
use undermesh_snapshot::{
    CompiledLimit, CompiledPolicy, ConnectionAttributes, RequestAttributes, WorkloadInfo,
    limits_of_connection, limits_of_request,
};

use super::Visit;
use crate::{
    authorize::Denial,
    http::{Flag, LocalReply},
    limits::{Counted, Standing},
};

/// Draft of the IETF: RateLimit header fields for HTTP, version 10.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Envoy's mark, which retries look at.
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
/// gRPC's statuses for what is too much.
const RESOURCE_EXHAUSTED: u16 = 8;
const UNAVAILABLE: u16 = 14;

/// A request that is within its limits.
#[derive(Debug, Default)]
pub(super) struct Within {
    /// For the answer.
    pub(super) headers: HeaderMap,
    /// Bytes that its body may have.
    pub(super) body: Option<u64>,
}

/// Counts a request in the limits that are about it.
pub(super) fn request(
    visit: &Visit,
    policy: &CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
    request: &RequestAttributes<'_>,
) -> Result<Within, LocalReply> {
    if policy.limits.is_empty() {
        return Ok(Within::default());
    }
    let about: Vec<&CompiledLimit> = limits_of_request(policy, connection, request).collect();
    let smallest = smallest_body(&about);
    if let Some((bytes, limit)) = smallest
        && is_longer(request.headers, bytes)
    {
        visit.pod.shared.limits.record_too_large(limit);
        return Err(too_large(bytes));
    }
    let limits = &visit.pod.shared.limits;
    let ends = Ends::of(visit);
    let key = |limit| BudgetOf { ends, limit, request: Some(request) };
    let verdict = limits.take(Counted::Requests, about.iter().copied(), key);
    if let Some(refused) = &verdict.refused {
        return Err(refusal(refused));
    }
    let mut headers = HeaderMap::new();
    if let Some(tightest) = &verdict.tightest
        && tightest.limit.limits.answer.headers == LimitHeaders::Always
    {
        describe(tightest, &mut headers);
    }
    Ok(Within { headers, body: smallest.map(|(bytes, _)| bytes) })
}

/// How long a body may be, by the limits that are about a request.
pub(super) fn smallest_body<'a>(about: &[&'a CompiledLimit]) -> Option<(u64, &'a CompiledLimit)> {
    let enforced = about.iter().filter(|limit| !limit.shadow);
    let body = enforced.filter_map(|limit| Some((limit.limits.body?, *limit)));
    body.min_by_key(|(bytes, _)| *bytes)
}

/// Whether a request announces a body of more than so many bytes.
pub(super) fn is_longer(headers: &HeaderMap, bytes: u64) -> bool {
    length(headers).is_some_and(|length| length > bytes)
}

/// Counts a connection in the limits that are about it.
pub(crate) fn connection(visit: &Visit) -> Result<(), Denial> {
    let policy = visit.policy();
    if policy.limits.is_empty() {
        return Ok(());
    }
    let attributes = visit.attributes();
    let about = limits_of_connection(&policy, &attributes);
    let ends = Ends::of(visit);
    let key = |limit| BudgetOf { ends, limit, request: None };
    let verdict = visit.pod.shared.limits.take(Counted::Connections, about, key);
    match verdict.refused {
        None => Ok(()),
        Some(refused) => Err(Denial { reason: "rate_limited", detail: Arc::from(said(&refused)) }),
    }
}

/// The answer to a body of more than so many bytes.
pub(super) fn too_large(bytes: u64) -> LocalReply {
    LocalReply {
        body: Bytes::from_static(b"Payload Too Large"),
        detail: Some(format!("the body has more than {bytes} bytes")),
        ..LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
    }
}

/// The length that a request announces.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn refusal(refused: &Standing<'_>) -> LocalReply {
    let answer = &refused.limit.limits.answer;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let mut headers = HeaderMap::new();
    headers.insert(RATE_LIMITED, HeaderValue::from_static("true"));
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds(refused.reset)));
    if answer.headers != LimitHeaders::Never {
        describe(refused, &mut headers);
    }
    LocalReply {
        grpc: Some(if answer.exhausted { RESOURCE_EXHAUSTED } else { UNAVAILABLE }),
        body: Bytes::copy_from_slice(answer.body.as_bytes()),
        headers: Box::new(headers),
        flag: Some(Flag::RateLimited),
        detail: Some(said(refused)),
        policy: Some(Box::new(refused.limit.origin.clone())),
        ..LocalReply::new(status, "rate_limited")
    }
}

fn said(refused: &Standing<'_>) -> String {
    format!("limited by {}, rule {}", refused.limit.origin, refused.limit.name)
}

/// What is left of a budget, and what it is when it is full.
fn describe(standing: &Standing<'_>, headers: &mut HeaderMap) {
    let limit = standing.limit;
    let Some(Rate { count, per, .. }) = limit.limits.requests else { return };
    // A window has whole seconds.
    let window = seconds(per);
    let share = Duration::from_secs(window).as_nanos() / per.as_nanos().max(1);
    let quota = u128::from(count.get()) * share.max(1);
    let name = format!("\"{}/{}\"", limit.origin.name, limit.name);
    let policy = format!("{name};q={quota};w={window}");
    let state = format!("{name};r={};t={}", standing.remaining, seconds(standing.reset));
    for (header, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(header, value);
        }
    }
}

/// Rounded up: whoever waits so long has waited long enough.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Who is asked, and who asks.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) workload: &'a WorkloadInfo,
    pub(super) source: Option<&'a SpiffeId>,
    pub(super) client: IpAddr,
}

impl<'a> Ends<'a> {
    fn of(visit: &'a Visit) -> Self {
        let workload = &visit.pod.workload;
        Self { workload, source: visit.source.as_ref(), client: visit.client.ip() }
    }
}

/// Names a budget. What a request or its client does not have is a value like any other: leaving a header out
/// is no way around a limit.
pub(super) struct BudgetOf<'a> {
    pub(super) ends: Ends<'a>,
    pub(super) limit: &'a CompiledLimit,
    pub(super) request: Option<&'a RequestAttributes<'a>>,
}

impl Hash for BudgetOf<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let workload = self.ends.workload;
        let parts = &self.limit.limits.key;
        if parts.contains(&LimitKey::Pod) {
            workload.name.hash(state);
        } else {
            (&workload.name.namespace, &workload.workload_name).hash(state);
        }
        for part in parts {
            self.hash_part(part, state);
        }
    }
}

impl BudgetOf<'_> {
    fn hash_part<H: Hasher>(&self, part: &LimitKey, state: &mut H) {
        let source = self.ends.source;
        let request = self.request;
        match part {
            LimitKey::Pod => {}
            LimitKey::SourcePrincipal => source.hash(state),
            LimitKey::SourceNamespace => source.map(|source| &source.namespace).hash(state),
            LimitKey::SourceAddress => self.ends.client.to_canonical().hash(state),
            LimitKey::RemoteAddress => request.map(|request| request.remote).hash(state),
            LimitKey::Method => request.map(|request| request.method).hash(state),
            LimitKey::Host => request.and_then(|request| request.hosts.last()).hash(state),
            LimitKey::Path => request.and_then(|request| request.paths.first()).hash(state),
            LimitKey::Header(name) => {
                let values = request.map(|request| request.headers.get_all(name));
                values.into_iter().flatten().for_each(|value| value.as_bytes().hash(state));
            }
            LimitKey::Claim(path) => {
                let claim = request.and_then(|request| request.claim(path));
                claim.map(ToString::to_string).hash(state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use undermesh_model::{
        LimitAnswer, LimitRule, Limits, NamespacedName, RateLimitPolicy, ResourceRef, Rule,
    };

    use super::*;

    fn limit(per: Duration, answer: LimitAnswer) -> CompiledLimit {
        let count = NonZeroU32::new(10).unwrap();
        let requests = Some(Rate { count, per, burst: count });
        let limits = Limits { requests, answer, ..Limits::default() };
        let policy = RateLimitPolicy {
            origin: ResourceRef::namespaced("RateLimitPolicy", "shop", "cart"),
            name: NamespacedName::new("shop", "cart"),
            selector: [].into(),
            shadow: false,
            rules: Vec::new(),
        };
        let rule = LimitRule { name: "search".to_owned(), when: Rule::default(), limits };
        CompiledLimit::new(&policy, 0, &rule)
    }

    fn refused(limit: &CompiledLimit) -> LocalReply {
        let reset = Duration::from_millis(1500);
        refusal(&Standing { limit, remaining: 0, reset })
    }

    #[test]
    fn clients_are_told_to_wait_for_whole_seconds() {
        for (milliseconds, expected) in [(0, 0), (1, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn a_refusal_says_what_the_limit_is_and_when_to_come_again() {
        let reply = refused(&limit(Duration::from_millis(500), LimitAnswer::default()));
        assert_eq!((reply.status.as_u16(), reply.flag), (429, Some(Flag::RateLimited)));
        assert_eq!((reply.grpc, &reply.body[..]), (Some(UNAVAILABLE), &b"local_rate_limited"[..]));
        let header = |name: &str| reply.headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(header("retry-after"), "2");
        assert_eq!(header("x-envoy-ratelimited"), "true");
        // Twenty in a second are ten in half of one.
        assert_eq!(header("ratelimit-policy"), "\"cart/search\";q=20;w=1");
        assert_eq!(header("ratelimit"), "\"cart/search\";r=0;t=2");
        let detail = reply.detail.as_deref();
        assert_eq!(detail, Some("limited by RateLimitPolicy shop/cart, rule search"));
    }

    #[test]
    fn a_refusal_is_as_its_rule_says() {
        let answer = LimitAnswer {
            status: 503,
            body: "later".to_owned(),
            exhausted: true,
            headers: LimitHeaders::Never,
        };
        let reply = refused(&limit(Duration::from_secs(60), answer));
        assert_eq!((reply.status.as_u16(), reply.grpc), (503, Some(RESOURCE_EXHAUSTED)));
        assert_eq!(&reply.body[..], b"later");
        assert!(reply.headers.get("ratelimit").is_none());
        assert!(reply.headers.get("retry-after").is_some());
    }
}
