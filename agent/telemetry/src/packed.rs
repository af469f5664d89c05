//! A record as the journal keeps it: numbers in their places, and texts one after the other in a text that its
//! neighbours share. Who serves a request only puts it down so; it becomes a line when somebody reads it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use undermesh_model::ObjectName;

use crate::{
    ClusterName, RequestInfo, ResponseFlags,
    ends::Connection,
    line::{Lines, MAX_DETAIL, cut},
    request_line::{MAX_TEXT, path_as_logged},
    texts::{Length, Pack, Unpack},
    told::{Carried, Told, Why},
};

/// A record, without its texts.
#[derive(Debug)]
pub(crate) struct Packed {
    connection: Arc<Connection>,
    /// When: milliseconds since 1970.
    at: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Opened,
    Denied(End),
    Closed(Carried, End),
    Request(Request),
}

#[derive(Debug)]
struct End {
    reason: &'static str,
    flags: &'static str,
    detail: Option<Length>,
}

/// [`RequestInfo`], its texts in the order of these fields.
#[derive(Debug)]
struct Request {
    generation: u64,
    method: Length,
    authority: Length,
    path: Length,
    protocol: &'static str,
    grpc: bool,
    status: Option<u16>,
    grpc_status: Option<u16>,
    flags: ResponseFlags,
    reason: &'static str,
    detail: Option<Length>,
    policy: Option<Object>,
    request_id: Option<Length>,
    trace_id: Option<Length>,
    route: Option<Object>,
    route_name: Length,
    cluster: Option<Cluster>,
    endpoint: Option<SocketAddr>,
    attempts: u32,
    received: u64,
    sent: u64,
    duration: Duration,
    upstream_time: Option<Duration>,
    user_agent: Option<Length>,
}

#[derive(Debug)]
struct Object {
    kind: Length,
    namespace: Length,
    name: Length,
}

#[derive(Debug)]
struct Cluster {
    port: u16,
    subset: Length,
    host: Length,
}

impl Packed {
    /// Something that has happened to this connection; its texts are appended to `texts`.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        at: u64,
        told: &Told<'_>,
        texts: &mut String,
    ) -> Self {
        let mut texts = Pack(texts);
        let what = match told {
            Told::Opened => What::Opened,
            Told::Denied(why) => What::Denied(texts.end(why)),
            Told::Closed(carried, why) => What::Closed(*carried, texts.end(why)),
            Told::Request(request) => What::Request(texts.request(request)),
        };
        Self { connection: Arc::clone(connection), at, what }
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Writes its line, given its texts.
    pub(crate) fn write(&self, texts: &str, lines: &mut Lines, text: &mut String) {
        let mut texts = Unpack(texts);
        let mut write = |told: &Told<'_>| lines.write(text, self.at, &self.connection, told);
        match &self.what {
            What::Opened => write(&Told::Opened),
            What::Denied(end) => write(&Told::Denied(texts.why(end))),
            What::Closed(carried, end) => write(&Told::Closed(*carried, texts.why(end))),
            What::Request(request) => write(&Told::Request(&texts.request(request))),
        }
    }
}

/// What clients have written is shortened, and goes without values that are nobody's business.
impl Pack<'_> {
    fn request(&mut self, request: &RequestInfo<'_>) -> Request {
        Request {
            generation: request.generation,
            method: self.words(request.method),
            authority: self.words(request.authority),
            path: self.text(&path_as_logged(request.path)),
            protocol: request.protocol,
            grpc: request.grpc,
            status: request.status,
            grpc_status: request.grpc_status,
            flags: request.flags,
            reason: request.reason,
            detail: request.detail.map(|detail| self.detail(detail)),
            policy: request.policy.map(|policy| self.object(policy)),
            request_id: request.request_id.map(|id| self.words(id)),
            trace_id: request.trace_id.map(|id| self.words(id)),
            route: request.route.map(|route| self.object(route)),
            route_name: self.text(request.route_name),
            cluster: request.cluster.map(|ClusterName { port, subset, host }| Cluster {
                port,
                subset: self.text(subset),
                host: self.text(host),
            }),
            endpoint: request.endpoint,
            attempts: request.attempts,
            received: request.received,
            sent: request.sent,
            duration: request.duration,
            upstream_time: request.upstream_time,
            user_agent: request.user_agent.map(|agent| self.words(agent)),
        }
    }

    fn end(&mut self, Why { reason, flags, detail }: &Why<'_>) -> End {
        End { reason, flags, detail: detail.map(|detail| self.detail(detail)) }
    }

    fn object(&mut self, ObjectName { kind, namespace, name }: ObjectName<'_>) -> Object {
        Object { kind: self.text(kind), namespace: self.text(namespace), name: self.text(name) }
    }

    fn detail(&mut self, detail: &str) -> Length {
        self.text(cut(detail, MAX_DETAIL))
    }

    fn words(&mut self, words: &str) -> Length {
        self.text(cut(words, MAX_TEXT))
    }
}

impl<'a> Unpack<'a> {
    fn request(&mut self, request: &Request) -> RequestInfo<'a> {
        RequestInfo {
            generation: request.generation,
            method: self.text(request.method),
            authority: self.text(request.authority),
            path: self.text(request.path),
            protocol: request.protocol,
            grpc: request.grpc,
            status: request.status,
            grpc_status: request.grpc_status,
            flags: request.flags,
            reason: request.reason,
            detail: self.known(request.detail),
            policy: request.policy.as_ref().map(|policy| self.object(policy)),
            request_id: self.known(request.request_id),
            trace_id: self.known(request.trace_id),
            route: request.route.as_ref().map(|route| self.object(route)),
            route_name: self.text(request.route_name),
            cluster: request.cluster.as_ref().map(|cluster| ClusterName {
                port: cluster.port,
                subset: self.text(cluster.subset),
                host: self.text(cluster.host),
            }),
            endpoint: request.endpoint,
            attempts: request.attempts,
            received: request.received,
            sent: request.sent,
            duration: request.duration,
            upstream_time: request.upstream_time,
            user_agent: self.known(request.user_agent),
        }
    }

    fn why(&mut self, end: &End) -> Why<'a> {
        Why { reason: end.reason, flags: end.flags, detail: self.known(end.detail) }
    }

    fn object(&mut self, object: &Object) -> ObjectName<'a> {
        ObjectName {
            kind: self.text(object.kind),
            namespace: self.text(object.namespace),
            name: self.text(object.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let object = |name| Some(ObjectName { kind: "VirtualService", namespace: "shop", name });
        let all = RequestInfo {
            generation: 7,
            method: "GET",
            authority: "cart",
            path: "/ä",
            protocol: "HTTP/2",
            grpc: true,
            status: Some(200),
            grpc_status: Some(0),
            reason: "answered",
            detail: Some(""),
            policy: object("guard"),
            request_id: Some("id"),
            trace_id: Some("trace"),
            route: object("cart"),
            route_name: "canary",
            cluster: Some(ClusterName { port: 80, subset: "v1", host: "cart.shop" }),
            endpoint: Some("[fd00::1]:80".parse().unwrap()),
            attempts: 3,
            received: 1,
            sent: u64::MAX,
            duration: Duration::from_nanos(1),
            upstream_time: Some(Duration::ZERO),
            user_agent: Some("curl"),
            ..RequestInfo::default()
        };
        for request in [all, RequestInfo::default()] {
            let mut texts = "of another".to_owned();
            let begin = texts.len();
            let packed = Pack(&mut texts).request(&request);
            let mut unpack = Unpack(&texts[begin..]);
            assert_eq!(unpack.request(&packed), request);
            assert_eq!(unpack.0, "");
        }
    }
}
