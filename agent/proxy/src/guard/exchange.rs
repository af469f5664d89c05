//! One judged request and its answer: head -> readings -> ask -> authenticate -> judge -> link -> answer.

use std::sync::Arc;

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, UPGRADE},
    uri::PathAndQuery,
};
use http_body_util::BodyExt;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use undermesh_snapshot::{CompiledPolicy, Decision, evaluate_request};

use super::{
    Visit,
    attributes::described,
    ext_authz::{self, Kept},
    limit::{self, Within},
    limited::Limited,
    link::Link,
    path::Readings,
    service::Visited,
    token::{Claims, authenticate},
};
use crate::{
    http::{
        AnswerBody, Cut, Happened, Head, LocalReply, Metered, Pace, Patient, RequestLog, Streams,
        Switch, UntilEnd, clean_answer, cleaned, unreadable, upgrade,
    },
    pod::Pod,
    upstream::Body,
};

const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";

/// Judges and passes on the requests of one connection.
pub(super) struct Guard {
    visit: Visit,
    link: Link,
    switch: Switch,
    visited: Visited,
    cut: Arc<Cut>,
    pub(super) streams: Arc<Streams>,
}

impl Guard {
    pub(super) fn new(
        visit: Visit,
        (visited, cut): (Visited, Arc<Cut>),
        http2: bool,
        switch: Switch,
    ) -> Self {
        let streams = Arc::default();
        Self { visit, link: Link::new(http2), switch, visited, cut, streams }
    }

    /// The pod that is visited.
    pub(super) fn pod(&self) -> &Arc<Pod> {
        &self.visit.pod
    }

    /// The connection has ended in this way.
    pub(super) fn ended(&self, error: &hyper::Error) {
        tracing::debug!(client = %self.visit.client, %error, "judged HTTP connection ended");
        let metrics = &self.visit.pod.shared.metrics;
        unreadable(&self.visited.requests(""), metrics, self.generation(), error);
    }

    fn generation(&self) -> u64 {
        self.visit.pod.shared.snapshot.load().generation.0
    }

    /// Serves one request.
    pub(super) async fn serve(&self, mut request: Request<Incoming>) -> Response<AnswerBody> {
        let client = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let version = parts.version;
        let asks = parts.method == Method::CONNECT || parts.headers.contains_key(UPGRADE);
        let is_head = parts.method == Method::HEAD;
        let connection = (&self.visit.pod, &self.cut, &self.streams);
        let requests = self.visited.requests("");
        let mut log = RequestLog::new(&requests, connection, self.generation(), &parts);
        let limits = self.visit.pod.shared.config.head;
        let answer = match Head::within(limits, parts, self.visit.destination) {
            Ok(head) => {
                log.read(&head);
                log.requests = self.visited.requests(&log.authority);
                Box::pin(self.answer(head, body, &mut log)).await
            }
            Err(reply) => Err(reply),
        };
        if asks && version <= Version::HTTP_11 {
            self.switch.decide(answer.as_ref().is_ok_and(|answer| answer.upgraded.is_some()));
        }
        // Nobody knows what comes after such a request.
        let broken = matches!(&answer, Err(reply) if reply.is_protocol_error());
        let mut response = match answer {
            Ok(answer) => self.passed_on(answer, client, log),
            Err(reply) => reply.answer(log),
        };
        *response.version_mut() = Version::HTTP_11;
        if is_head {
            response.body_mut().omit();
        }
        let last = broken || self.visit.pod.stop.is_cancelled();
        if last && version <= Version::HTTP_11 && !is_switched(response.status()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The application's answer, on its way to the client.
    fn passed_on(
        &self,
        answer: Answer,
        client: OnUpgrade,
        mut log: RequestLog,
    ) -> Response<AnswerBody> {
        let Answer { response, upgraded } = answer;
        log.answered(&response);
        if let Some(upstream) = upgraded {
            self.join(client, upstream, log);
            return response.map(|_| AnswerBody::local(bytes::Bytes::new()));
        }
        let mut response = response.map(AnswerBody::upstream);
        response.body_mut().hold(UntilEnd::of(log));
        response
    }

    async fn answer(
        &self,
        mut head: Head,
        body: Incoming,
        log: &mut RequestLog,
    ) -> Result<Answer, LocalReply> {
        can_be_judged(&head)?;
        let (policy, visit) = (self.visit.policy(), &self.visit);
        let shared = &visit.pod.shared;
        if !shared.overload.admits_request(visit.pod.priority) {
            return Err(LocalReply::overloaded());
        }
        let late = log.late.clone();
        let body = Patient::new(body, Pace::of(&shared.config), &late);
        let body = Metered::new(body, &log.upload);
        let readings = Readings::new(head.parts.uri.path());
        normalise(&mut head, &readings)?;
        self.attest(&mut head.parts.headers);
        let asked = ext_authz::ask(visit, &policy, &readings, &mut head, body);
        let (body, consent) =
            Box::pin(asked).await.map_err(|reply| late.reply().unwrap_or(reply))?;
        let claims = authenticate(shared, &policy.tokens, &mut head).await?;
        let within = self.judge(&policy, &readings, &head, claims.as_ref())?;
        if let Some(trace) = &log.trace {
            trace.context.write(&mut head.parts.headers);
        }
        let upgraded = head.upgrade.is_some();
        let extended = head.extended;
        let exceeded = Happened::default();
        let request = outgoing(head, bounded(body, within.body, &exceeded));
        log.attempts = 1;
        let answer = self.link.send(&self.visit, request, upgraded).await;
        let too_large = within.body.filter(|_| exceeded.is_true()).map(limit::too_large);
        let late = || late.reply();
        let mut response = answer.map_err(|reply| too_large.or_else(late).unwrap_or(reply))?;
        consent.apply(response.headers_mut());
        if upgraded && is_switched(response.status()) {
            let upstream = hyper::upgrade::on(&mut response);
            if extended {
                upgrade::as_http2(&mut response);
            }
            return Ok(Answer { response, upgraded: Some(upstream) });
        }
        clean_answer(response.headers_mut());
        response.headers_mut().extend(within.headers);
        Ok(Answer { response, upgraded: None })
    }

    /// Whether the request may be answered, and answered now, once everybody has agreed who had to be asked.
    fn judge(
        &self,
        policy: &CompiledPolicy,
        readings: &Readings,
        head: &Head,
        claims: Option<&Claims>,
    ) -> Result<Within, LocalReply> {
        let visit = &self.visit;
        let connection = visit.attributes();
        described(visit.client.ip(), readings, head, claims, |request| {
            let decision = evaluate_request(policy, &connection, request);
            self.report(&decision);
            admission(&decision)?;
            limit::request(visit, policy, &connection, request)
        })
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
    fn join(&self, client: OnUpgrade, upstream: OnUpgrade, mut log: RequestLog) {
        let (visit, cut) = (self.visit.clone(), Arc::clone(&self.cut));
        let mut policies = visit.pod.policy.subscribe();
        let copy = async move {
            let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            tokio::select! {
                ended = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {
                    match ended {
                        Ok((received, sent)) => {
                            log.upload.add(received);
                            log.download.add(sent);
                        }
                        Err(error) => tracing::debug!(%error, "an upgraded connection broke"),
                    }
                    UntilEnd::of(log).end(None);
                }
                denial = visit.revoked(&mut policies) => {
                    tracing::debug!(detail = %denial.detail, "an upgraded connection was revoked");
                    cut.set(&denial);
                }
                () = visit.pod.kill.cancelled() => {}
            }
        };
        let pod = &self.visit.pod;
        pod.spawn(copy);
    }
}

/// What is inside a tunnel would be judged by nobody.
pub(super) fn can_be_judged(head: &Head) -> Result<(), LocalReply> {
    if head.parts.method != Method::CONNECT {
        return Ok(());
    }
    let detail = "CONNECT is not passed to a pod whose policy looks at requests";
    Err(LocalReply::denied("connect_not_passed", None, detail.to_owned()))
}

/// What a decision of policy means for a request.
pub(super) fn admission(decision: &Decision<'_>) -> Result<(), LocalReply> {
    if decision.allowed {
        return Ok(());
    }
    Err(LocalReply::denied("policy_denied", decision.policy, decision.to_string()))
}

/// The application's answer.
struct Answer {
    response: Response<Incoming>,
    /// The client's connection becomes the application's.
    upgraded: Option<OnUpgrade>,
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

/// The body, no longer than it may be.
fn bounded(body: Kept, most: Option<u64>, exceeded: &Happened) -> Body {
    match most {
        Some(most) => Limited::new(body, most, exceeded).map_frame(cleaned).boxed_unsync(),
        None => body.map_frame(cleaned).boxed_unsync(),
    }
}

/// Gives the request the path that is judged.
pub(super) fn normalise(head: &mut Head, readings: &Readings) -> Result<(), LocalReply> {
    let uri = &head.parts.uri;
    // `OPTIONS *` is about no path.
    if readings.base() == uri.path() || uri.path() == "*" {
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
