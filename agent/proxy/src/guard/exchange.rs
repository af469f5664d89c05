//! One judged request and its answer: head -> readings -> ask -> authenticate -> judge -> link -> answer.

use std::net::IpAddr;

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, UPGRADE},
    uri::PathAndQuery,
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use undermesh_snapshot::{CompiledPolicy, Decision, RequestAttributes, evaluate_request};

use super::{
    Visit, ext_authz,
    link::Link,
    path::Readings,
    token::{Claims, authenticate},
};
use crate::{
    http::{AnswerBody, Head, LocalReply, Switch, remove_hop_by_hop, upgrade},
    upstream::Body,
};

const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Judges and passes on the requests of one connection.
pub(super) struct Guard {
    visit: Visit,
    link: Link,
    switch: Switch,
}

impl Guard {
    pub(super) fn new(visit: Visit, http2: bool, switch: Switch) -> Self {
        Self { visit, link: Link::new(http2), switch }
    }

    /// Serves one request.
    pub(super) async fn serve(&self, mut request: Request<Incoming>) -> Response<AnswerBody> {
        let client = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let version = parts.version;
        let asks = parts.method == Method::CONNECT || parts.headers.contains_key(UPGRADE);
        let (answer, grpc) = match Head::new(parts, self.visit.destination) {
            Ok(head) => {
                let grpc = head.grpc;
                (Box::pin(self.answer(head, body, client)).await, grpc)
            }
            Err(reply) => (Err(reply), false),
        };
        if asks && version <= Version::HTTP_11 {
            let switched = |answer: &Response<AnswerBody>| is_switched(answer.status());
            self.switch.decide(answer.as_ref().is_ok_and(switched));
        }
        let mut response = answer.unwrap_or_else(|reply| {
            tracing::debug!(client = %self.visit.client, detail = reply.detail, "answered here");
            reply.into_response(grpc)
        });
        let leaving = self.visit.pod.stop.is_cancelled();
        if leaving && version <= Version::HTTP_11 && !is_switched(response.status()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer(
        &self,
        mut head: Head,
        body: Incoming,
        client: OnUpgrade,
    ) -> Result<Response<AnswerBody>, LocalReply> {
        if head.parts.method == Method::CONNECT {
            // What is inside would be judged by nobody.
            return Err(LocalReply::denied(
                "CONNECT is not passed to a pod whose policy looks at requests",
            ));
        }
        let (policy, visit) = (self.visit.policy(), &self.visit);
        let readings = Readings::new(head.parts.uri.path());
        normalise(&mut head, &readings)?;
        self.attest(&mut head.parts.headers);
        let asked = ext_authz::ask(visit, &policy, &readings, &mut head, body);
        let (body, consent) = Box::pin(asked).await?;
        let claims = authenticate(&visit.pod.shared, &policy.tokens, &mut head).await?;
        self.judge(&policy, &readings, &head, claims.as_ref())?;
        let upgraded = head.upgrade.is_some();
        let extended = head.extended;
        let request = outgoing(head, body);
        let mut response = self.link.send(&self.visit, request, upgraded).await?;
        consent.apply(response.headers_mut());
        if upgraded && is_switched(response.status()) {
            let upstream = hyper::upgrade::on(&mut response);
            self.join(client, upstream);
            if extended {
                upgrade::as_http2(&mut response);
            }
            return Ok(response.map(|_| AnswerBody::local(bytes::Bytes::new())));
        }
        remove_hop_by_hop(response.headers_mut());
        Ok(response.map(AnswerBody::upstream))
    }

    /// Whether the request may be answered, once everybody has agreed who had to be asked.
    fn judge(
        &self,
        policy: &CompiledPolicy,
        readings: &Readings,
        head: &Head,
        claims: Option<&Claims>,
    ) -> Result<(), LocalReply> {
        let visit = &self.visit;
        let view = head.view();
        let hosts = hosts(view.authority);
        let request = RequestAttributes {
            method: view.method.as_str(),
            hosts: &hosts,
            paths: &readings.all,
            headers: view.headers,
            claims,
            remote: remote(view.headers).unwrap_or(visit.client.ip()),
        };
        let decision = evaluate_request(policy, &visit.attributes(), &request);
        self.report(&decision);
        if decision.allowed { Ok(()) } else { Err(LocalReply::denied(&decision.to_string())) }
    }

    fn report(&self, decision: &Decision<'_>) {
        let metrics = &self.visit.pod.shared.metrics;
        if !decision.allowed {
            metrics.record_policy_denial(decision);
        }
        for finding in &decision.findings {
            metrics.record_policy_finding(finding);
            tracing::info!(
                source = self.visit.source.as_ref().map(ToString::to_string),
                from = %self.visit.source_addr,
                to = %self.visit.destination,
                policy = %finding.policy,
                rule = finding.rule,
                finding = finding.kind.as_str(),
                "policy has a finding"
            );
        }
    }

    /// Tells the application who its client is; what the client says about that was removed.
    fn attest(&self, headers: &mut HeaderMap) {
        headers.remove(FORWARDED_CLIENT_CERT);
        let Some(source) = &self.visit.source else { return };
        let own = &self.visit.pod.workload.identity;
        if let Ok(value) = HeaderValue::try_from(format!("By={own};URI={source}")) {
            headers.insert(FORWARDED_CLIENT_CERT, value);
        }
    }

    /// Copies bytes between both ends of a connection that is no longer about requests.
    fn join(&self, client: OnUpgrade, upstream: OnUpgrade) {
        let visit = self.visit.clone();
        let mut policies = visit.pod.policy.subscribe();
        let copy = async move {
            let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            tokio::select! {
                ended = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "an upgraded connection broke");
                    }
                }
                denial = visit.revoked(&mut policies) => {
                    tracing::debug!(detail = %denial.detail, "an upgraded connection was revoked");
                }
                () = visit.pod.kill.cancelled() => {}
            }
        };
        let pod = &self.visit.pod;
        pod.tasks.spawn_on(copy, &pod.shared.runtime);
    }
}

fn is_switched(status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS
}

/// The request as it goes to the application.
fn outgoing(head: Head, body: Body) -> Request<Body> {
    let Head { mut parts, upgrade, .. } = head;
    if let Some(upgrade) = upgrade {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, upgrade);
    }
    parts.extensions.clear();
    Request::from_parts(parts, body)
}

/// Gives the request the path that is judged.
fn normalise(head: &mut Head, readings: &Readings) -> Result<(), LocalReply> {
    let uri = &head.parts.uri;
    if readings.base() == uri.path() {
        return Ok(());
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    let path = PathAndQuery::try_from(format!("{}{query}", readings.base()));
    parts.path_and_query = path.ok();
    let uri = Uri::from_parts(parts).ok().filter(|uri| uri.path() == readings.base());
    head.parts.uri = uri.ok_or_else(|| LocalReply::bad_request("the path cannot be normalised"))?;
    Ok(())
}

/// An authority as servers compare it: with its port, without it, and without the dot that may end a name.
pub(super) fn hosts(authority: &str) -> Vec<String> {
    let full = authority.to_ascii_lowercase();
    let bare = match full.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => &full,
    };
    let plain = bare.strip_suffix('.').unwrap_or(bare);
    let mut hosts = vec![full.clone()];
    for host in [bare, plain] {
        if hosts.iter().all(|known| known != host) {
            hosts.push(host.to_owned());
        }
    }
    hosts
}

/// Where a request comes from originally, as Istio's sidecars have it: the last address that was added to
/// `x-forwarded-for`.
pub(super) fn remote(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
    let last = last.rsplit(',').next()?.trim();
    last.parse().ok().map(|address: IpAddr| address.to_canonical())
}
