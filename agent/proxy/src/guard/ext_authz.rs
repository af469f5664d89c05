//! Step *ask*: whoever a CUSTOM policy names has to agree to a request before anything else is looked at.
//!
//! matching policies -> (per provider) body -> check (http | grpc) -> verdict -> changes of the request. A provider is
//! asked once for a request, however many policies name it; several are asked in the order of their names, and all of
//! them have to agree. What an authorizer answers is a peer's bytes: bounded, and never more than it may say.
//!
//! Source: Istio, `pilot/pkg/security/authz/builder/builder.go`; Envoy, `source/extensions/filters/http/ext_authz/`.

mod body;
mod changes;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grpc;
mod http;
mod messages;
mod places;
mod state;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use ::http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use undermesh_model::{Authorizer, AuthorizerProtocol, ResourceRef};
use undermesh_snapshot::{AuthorizerRoute, CompiledPolicy, NoAuthorizer, Statement, asks};

use super::{Visit, attributes::described, path::Readings, token};
use crate::{
    http::{Head, LocalReply, Metered, call},
    upstream::Body,
};
pub(super) use body::Kept;
use changes::HeaderChange;
use places::Place;
pub use state::AuthorizerStatus;
pub(crate) use state::Authorizers;

/// Longest answer.
const MAX_ANSWER: usize = 1 << 20;
/// Statuses with which a request may be refused.
const FINAL: std::ops::RangeInclusive<u16> = 200..=599;

/// What an authorizer says of a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Allowed(Allowed),
    Denied(Denied),
}

/// What is to be changed where a request passes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Allowed {
    /// Headers that are taken from the request.
    remove: Vec<::http::HeaderName>,
    request: Vec<HeaderChange>,
    /// Parameters that are taken from its query.
    query_remove: Vec<String>,
    query_set: Vec<(String, String)>,
    answer: Vec<HeaderChange>,
}

/// How a request is refused.
#[derive(Debug, PartialEq, Eq)]
struct Denied {
    status: StatusCode,
    headers: Vec<HeaderChange>,
    body: bytes::Bytes,
}

/// Why there is no verdict.
#[derive(Debug, PartialEq, Eq)]
enum NoVerdict {
    /// Nobody has answered, or with a failure of their own: `failOpen` says what becomes of the request.
    Unreachable(String),
    /// What was answered cannot be used, or the agent has no room to ask: the request is refused.
    Unusable(String),
}

/// A request as an authorizer is shown it.
struct Shown<'a> {
    head: &'a Head,
    /// The part of its body that is shown, and whether there is more.
    body: Option<(bytes::Bytes, bool)>,
}

/// What all authorizers want of the answer to a request that passes.
#[derive(Default)]
pub(super) struct Consent(Vec<HeaderChange>);

impl Consent {
    /// Changes the application's answer.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        self.0.iter().for_each(|change| change.apply(headers));
    }
}

/// Why a request is refused whose policy asks somebody whom nobody knows.
const UNKNOWN: &str = "provider_unknown";

/// Asks everybody who has to be asked. The body comes back whole.
pub(super) async fn ask(
    visit: &Visit,
    policy: &CompiledPolicy,
    readings: &Readings,
    head: &mut Head,
    body: Metered,
) -> Result<(Kept, Consent), LocalReply> {
    let mut consent = Consent::default();
    let mut body = Kept::new(body);
    if policy.custom.is_empty() {
        return Ok((body, consent));
    }
    let claims = claims(visit, policy, head).await;
    let providers: BTreeSet<_> = policy.custom.iter().map(|one| one.provider.as_deref()).collect();
    for provider in providers {
        // Anew for each: the one before may have changed the request.
        let seen = (&*head, claims.as_ref());
        let Some(asking) = asking(visit, policy, readings, seen, provider) else { continue };
        let changes = check(visit, asking, head, &mut body).await?;
        changes::apply(&changes, head)?;
        consent.0.extend(changes.answer);
    }
    Ok((body, consent))
}

/// What the request's token says, where rules of CUSTOM policies look at that. It is verified again once all have
/// agreed: an authorizer may exchange it. One that is not valid says nothing here, and is refused then.
async fn claims(visit: &Visit, policy: &CompiledPolicy, head: &Head) -> Option<token::Claims> {
    if policy.tokens.is_empty() || !policy.custom.iter().any(|one| one.looks_at_tokens()) {
        return None;
    }
    let mut copy = head.clone();
    token::authenticate(&visit.pod.shared, &policy.tokens, &mut copy).await.ok().flatten()
}

/// The first policy that wants this provider asked, and because of what.
fn asking<'a>(
    visit: &Visit,
    policy: &'a CompiledPolicy,
    readings: &Readings,
    (head, claims): (&Head, Option<&token::Claims>),
    provider: Option<&str>,
) -> Option<(&'a Statement, String)> {
    described(visit.client.ip(), readings, head, claims, |request| {
        asks(policy, provider, &visit.attributes(), request)
    })
}

/// What is said about a provider that is asked.
fn said(policy: &ResourceRef, because: &str, provider: &str, detail: &str) -> String {
    format!("{policy}, {because}, asks provider {provider:?}: {detail}")
}

/// The answer where nobody knows whom a policy wants to be asked.
pub(super) fn unknown(
    policy: &ResourceRef,
    because: &str,
    provider: &str,
    none: &NoAuthorizer,
) -> LocalReply {
    let detail = said(policy, because, provider, &none.to_string());
    LocalReply::denied(UNKNOWN, Some(policy), detail)
}

/// Asks one provider, counts what comes of it, and says what is to be changed where the request passes.
async fn check(
    visit: &Visit,
    (statement, because): (&Statement, String),
    head: &Head,
    body: &mut Kept,
) -> Result<Allowed, LocalReply> {
    let shared = &visit.pod.shared;
    let (provider, policy) = (statement.provider.as_deref().unwrap_or_default(), &statement.origin);
    let namespace = &visit.pod.workload.name.namespace;
    let found = shared.snapshot.load().authorizers.find(namespace, provider).cloned();
    let refused = |reason: &'static str, detail: &str| {
        shared.metrics.record_policy_refusal(policy);
        let detail = said(policy, &because, provider, detail);
        LocalReply::denied(reason, Some(policy), detail)
    };
    let route = found.map_err(|none| refused(UNKNOWN, &none.to_string()))?;
    let state = shared.authorizers.of(provider);
    let shown = match &route.rule.body {
        Some(rule) => Some(body.show(rule).await?),
        None => None,
    };
    let shown = Shown { head, body: shown };
    match verdict(visit, &shown, &route).await {
        Ok(Verdict::Allowed(changes)) => {
            state.allowed(&shared.metrics);
            Ok(changes)
        }
        Ok(Verdict::Denied(denied)) => {
            state.denied(&shared.metrics);
            let reply = refused("provider_denied", "denied");
            Err(denied.reply(reply, head.grpc))
        }
        Err(NoVerdict::Unreachable(why)) if route.rule.fail_open => {
            state.failed(&shared.metrics, &why, true);
            tracing::warn!(%policy, provider, why, "an authorizer has failed; its failOpen lets the request pass");
            Ok(Allowed::default())
        }
        Err(NoVerdict::Unreachable(why) | NoVerdict::Unusable(why)) => {
            state.failed(&shared.metrics, &why, false);
            let status = StatusCode::from_u16(route.rule.status_on_error);
            let status = status.unwrap_or(StatusCode::FORBIDDEN);
            let reply = refused("provider_failed", &why);
            Err(LocalReply { status, body: bytes::Bytes::new(), ..reply })
        }
    }
}

/// One question and its answer, within the provider's time. Dropped with its client's request.
async fn verdict(
    visit: &Visit,
    shown: &Shown<'_>,
    route: &AuthorizerRoute,
) -> Result<Verdict, NoVerdict> {
    let own: &[IpAddr] = &visit.pod.workload.addresses;
    if route.cluster.endpoints.iter().any(|endpoint| own.contains(&endpoint.address.ip())) {
        let why = "it cannot be asked about requests to itself";
        return Err(NoVerdict::Unusable(why.to_owned()));
    }
    let _place = Place::take().ok_or_else(|| {
        NoVerdict::Unusable("too many requests wait for authorizers already".to_owned())
    })?;
    let timeout = route.rule.timeout;
    let asked = tokio::time::timeout(timeout, asked(visit, shown, route)).await;
    asked.unwrap_or_else(|_| {
        Err(NoVerdict::Unreachable(format!("it has not answered within {timeout:?}")))
    })
}

async fn asked(
    visit: &Visit,
    shown: &Shown<'_>,
    route: &AuthorizerRoute,
) -> Result<Verdict, NoVerdict> {
    let Authorizer { protocol, host, port, .. } = &route.rule;
    let request: Request<Body> = match protocol {
        AuthorizerProtocol::Grpc => {
            let authority = format!("{host}:{port}");
            grpc::request(shown, grpc::Parties::of(visit), &route.rule, &authority)?
        }
        AuthorizerProtocol::Http(rule) => http::request(shown, rule)?,
    };
    let called = call(&visit.pod, visit.source_addr.port(), &route.cluster, request);
    let (response, finish) = called.await.map_err(NoVerdict::Unreachable)?.split();
    let (parts, content) = response.into_parts();
    let content = Limited::new(content, MAX_ANSWER).collect().await;
    finish(content.is_ok().then_some(parts.status));
    match protocol {
        AuthorizerProtocol::Grpc => {
            let content = content.map_err(|error| incomplete(&*error))?;
            let trailers = content.trailers().cloned().unwrap_or_default();
            grpc::verdict(parts.status, &parts.headers, &trailers, &content.to_bytes())
        }
        // What it says is in its head; the content is for a client that is refused.
        AuthorizerProtocol::Http(rule) => {
            let content = content.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            http::verdict(rule, parts.status, &parts.headers, content)
        }
    }
}

fn incomplete(error: &(dyn std::error::Error + Send + Sync + 'static)) -> NoVerdict {
    if error.is::<http_body_util::LengthLimitError>() {
        let detail = format!("its answer is longer than {MAX_ANSWER} bytes");
        return NoVerdict::Unusable(detail);
    }
    NoVerdict::Unreachable(format!("its answer has broken off: {error}"))
}

impl Denied {
    /// The authorizer's answer, in place of our own.
    fn reply(self, own: LocalReply, grpc: bool) -> LocalReply {
        /// What of a text has room in a header.
        const MAX_MESSAGE: usize = 1024;
        let mut headers = HeaderMap::new();
        self.headers.iter().for_each(|change| change.apply(&mut headers));
        // What has no content in any version of HTTP (RFC 9110, section 6.4.1).
        let bare = matches!(self.status.as_u16(), 204 | 205 | 304);
        let longest = match grpc {
            _ if bare => 0,
            true => MAX_MESSAGE,
            false => self.body.len(),
        };
        let body = self.body.slice(..longest.min(self.body.len()));
        LocalReply { status: self.status, body, headers: Box::new(headers), ..own }
    }
}

/// Headers of several fields as one, as authorizers are shown them.
fn joined(headers: &HeaderMap, name: &::http::HeaderName) -> Vec<u8> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    values.join(&b","[..])
}
