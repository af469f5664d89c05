//! One request and its answer: head -> route -> cors -> fault -> (redirect | direct | rewrite ->
//! mirror -> forward) -> answer.

use std::sync::Arc;

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, SET_COOKIE, UPGRADE},
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use undermesh_snapshot::traffic::{CompiledRoute, Matched, RouteAction, Target};
use undermesh_telemetry::path_as_logged;

use super::{
    body::{AnswerBody, UntilEnd},
    cors,
    deadline::arrival,
    edits, fault,
    forward::{ATTEMPT_COUNT, Answered, Forward},
    front::{Front, Rules},
    head::Head,
    local_reply::LocalReply,
    log::RequestLog,
    mirror,
    patient::{Pace, Patient},
    redirect,
    replay::Replay,
    timeout, upgrade,
    way::{Way, choose, find, unusable},
};
use crate::{
    follow::note,
    upstream::hash::{self, Key},
};

/// Serves one request.
pub(crate) async fn serve(
    front: Arc<Front>,
    mut request: Request<Incoming>,
) -> Response<AnswerBody> {
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let version = parts.version;
    let asks = parts.method == Method::CONNECT || parts.headers.contains_key(UPGRADE);
    let is_head = parts.method == Method::HEAD;
    let rules = front.rules();
    let connection = (&front.pod, &front.cut, &front.streams);
    let requests = front.places.nowhere();
    let mut log = RequestLog::new(requests, connection, rules.generation, &parts);
    let exchange = Exchange { front: &front, rules: &rules };
    let answer = Box::pin(exchange.answer(parts, body, &mut log)).await;
    if asks && version <= Version::HTTP_11 {
        front.switch.decide(answer.as_ref().is_ok_and(|answer| answer.upgraded.is_some()));
    }
    // Nobody knows what comes after such a request.
    let broken = matches!(&answer, Err(reply) if reply.is_protocol_error());
    let mut response = match answer {
        Ok(answer) => passed_on(&front, answer, on_upgrade, log),
        Err(reply) => {
            note("answered", || format!("{} by the mesh: {}", reply.status, reply.reason));
            reply.answer(log)
        }
    };
    // What the endpoint speaks is between it and us (RFC 9110, section 2.5).
    *response.version_mut() = Version::HTTP_11;
    if is_head {
        response.body_mut().omit();
    }
    let last = rules.leaving || broken;
    if last && version <= Version::HTTP_11 && !is_upgrade(response.status()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An endpoint's answer, changed as the route says.
struct Answer {
    upstream: Answered,
    replay: Replay,
    /// The client's connection becomes the endpoint's.
    upgraded: Option<OnUpgrade>,
}

fn passed_on(
    front: &Arc<Front>,
    answer: Answer,
    client: OnUpgrade,
    mut log: RequestLog,
) -> Response<AnswerBody> {
    let Answer { upstream, replay, upgraded } = answer;
    let Answered { response, lease, deadline } = upstream;
    log.answered(&response);
    let until_end = UntilEnd { log, lease: Some(lease), deadline, replay: Some(replay) };
    if let Some(upstream) = upgraded {
        // Both ends have agreed on something that no time limit of a request is about.
        upgrade::join(front, client, upstream, UntilEnd { deadline: None, ..until_end });
        return response.map(|_| AnswerBody::local(bytes::Bytes::new()));
    }
    let mut response = response.map(AnswerBody::upstream);
    response.body_mut().hold(until_end);
    response
}

fn is_upgrade(status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS
}

/// A request while it is being answered.
struct Exchange<'a> {
    front: &'a Front,
    rules: &'a Rules,
}

impl Exchange<'_> {
    async fn answer(
        &self,
        parts: http::request::Parts,
        body: Incoming,
        log: &mut RequestLog,
    ) -> Result<Answer, LocalReply> {
        let limits = self.front.pod.shared.config.head;
        let head = Head::within(limits, parts, self.front.dialled)?;
        log.read(&head);
        note("request", || format!("{} {}", head.parts.method, path_as_logged(head.view().path)));
        let pod = &self.front.pod;
        if !pod.shared.overload.admits_request(pod.priority) {
            return Err(LocalReply::overloaded());
        }
        let matched = find(&self.rules.traffic, &self.front.as_client(), &head.view())?;
        let Some(Matched { route, path_len, .. }) = matched else {
            let spec = &self.rules.traffic.default;
            let way = Way { route: None, path_len: 0, spec, edits: None };
            return self.forward(way, head, body, log).await;
        };
        note("route", || format!("{} rule {}", route.origin, route.name));
        log.route = Some(Arc::clone(route));
        let allowed = route.cors.as_ref().map(|rule| cors::judge(rule, &head)).transpose()?;
        let answer = self.by_route(route, path_len, head, body, log).await;
        match (answer, allowed.flatten()) {
            (answer, None) => answer,
            (Ok(mut answer), Some(allowed)) => {
                allowed.apply(answer.upstream.response.headers_mut());
                Ok(answer)
            }
            (Err(mut reply), Some(allowed)) => {
                allowed.apply(&mut reply.headers);
                Err(reply)
            }
        }
    }

    async fn by_route(
        &self,
        route: &CompiledRoute,
        path_len: usize,
        head: Head,
        body: Incoming,
        log: &mut RequestLog,
    ) -> Result<Answer, LocalReply> {
        if let Some(fault) = &route.fault {
            fault::inject(fault, log).await?;
        }
        let mut reply = match &route.action {
            RouteAction::Forward(targets) => {
                let chosen = choose(targets)?;
                let Target::Cluster(spec) = &chosen.target else {
                    return Err(unusable(&chosen.target));
                };
                let edits = Some(&chosen.headers);
                let way = Way { route: Some(route), path_len, spec, edits };
                return self.forward(way, head, body, log).await;
            }
            RouteAction::Redirect(rule) => {
                redirect::redirect(rule, &head, path_len, self.front.dialled.port())
            }
            RouteAction::Direct(rule) => redirect::direct(rule),
        };
        edits::response(&[&route.headers], &mut reply.headers);
        Err(reply)
    }

    async fn forward(
        &self,
        way: Way<'_>,
        mut head: Head,
        body: Incoming,
        log: &mut RequestLog,
    ) -> Result<Answer, LocalReply> {
        log.cluster = Some(Arc::clone(way.spec));
        log.requests = self.front.places.of(&way.spec.key.host);
        let rule = way.spec.settings.balancer.hash.as_ref();
        let key = rule.map(|rule| hash::key(&rule.key, &head.view(), self.front.client.ip()));
        let Key { hash, set_cookie } = key.unwrap_or_default();
        way.change(&mut head);
        if let Some(trace) = &log.trace {
            trace.context.write(&mut head.parts.headers);
        }
        let forward = self.prepare(&way, head, hash, (body, log));
        let mut upstream = forward.send(log).await?;
        note("answered", || upstream.response.status().to_string());
        // Nothing is sent again from here on.
        forward.replay.last();
        let upgraded = upgraded(&forward.head, &mut upstream.response);
        let headers = upstream.response.headers_mut();
        way.change_answer(headers, upgraded.is_some());
        if forward.head.extended && upgraded.is_some() {
            upgrade::as_http2(&mut upstream.response);
        }
        let headers = upstream.response.headers_mut();
        if let Some(cookie) = set_cookie {
            headers.append(SET_COOKIE, cookie);
        }
        Ok(Answer { upstream, replay: forward.replay, upgraded })
    }

    /// Everything that an attempt needs; copies of the request are on their way after this.
    fn prepare<'a>(
        &'a self,
        way: &Way<'a>,
        mut head: Head,
        hash: Option<u64>,
        (body, log): (Incoming, &RequestLog),
    ) -> Forward<'a> {
        let host = &self.rules.host;
        let retries = way.retries();
        let limit = way.route.and_then(|route| route.timeout);
        let timeout = timeout::of(limit, head.grpc, &mut head.parts.headers);
        let (arrived, arrival) = arrival(false);
        let pace = Pace::of(&self.front.pod.shared.config);
        let copies = mirror::start(self.front, host, way.route, &head, &body);
        // Each attempt sends a copy, which has no room for one more.
        head.parts.headers.insert(ATTEMPT_COUNT, HeaderValue::from_static("1"));
        let body = Patient::new(body, pace, &log.late);
        let keep = retries.as_ref().is_some_and(|retries| retries.attempts > 0);
        let replay =
            Replay::new((body, &log.upload), keep && head.upgrade.is_none(), arrived, copies);
        Forward {
            front: self.front,
            host,
            spec: way.spec,
            head,
            hash,
            replay,
            arrival,
            timeout,
            retries,
        }
    }
}

/// The endpoint's end of a connection that is no longer about requests.
fn upgraded(head: &Head, response: &mut Response<Incoming>) -> Option<OnUpgrade> {
    let status = response.status();
    let switched = head.upgrade.is_some() && is_upgrade(status);
    let connected = head.parts.method == Method::CONNECT && status.is_success();
    (switched || connected).then(|| hyper::upgrade::on(response))
}
