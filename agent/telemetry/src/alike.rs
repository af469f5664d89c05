//! What requests have in common that are alike: sent by clients of one kind to one place, and ended in one way. Most of
//! what is known of a request is that, and it is kept once for many.

use std::{net::SocketAddr, time::Duration};

use undermesh_model::ObjectName;

use crate::{
    ClusterName, RequestInfo, ResponseFlags,
    line::cut,
    request_line::{MAX_TEXT, Same},
    texts::{Length, Pack, Unpack},
};

/// A request is compared with so many of the last that were unlike each other.
const COMPARED: usize = 4;

/// A few kinds of requests. They have numbers, from 0.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    /// Each, and where its texts end.
    kinds: Vec<(Kind, usize)>,
    texts: String,
}

/// [`common`], its texts in the order of these fields.
#[derive(Debug)]
struct Kind {
    generation: u64,
    method: Length,
    authority: Length,
    protocol: &'static str,
    grpc: bool,
    status: Option<u16>,
    grpc_status: Option<u16>,
    flags: ResponseFlags,
    reason: &'static str,
    policy: Option<Object>,
    route: Option<Object>,
    route_name: Length,
    cluster: Option<Cluster>,
    endpoint: Option<SocketAddr>,
    attempts: u32,
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

/// A request without what is its own. What clients have written is shortened.
fn common<'a>(request: &RequestInfo<'a>) -> RequestInfo<'a> {
    RequestInfo {
        method: cut(request.method, MAX_TEXT),
        authority: cut(request.authority, MAX_TEXT),
        user_agent: request.user_agent.map(|agent| cut(agent, MAX_TEXT)),
        path: "",
        detail: None,
        request_id: None,
        trace_id: None,
        received: 0,
        sent: 0,
        duration: Duration::ZERO,
        upstream_time: None,
        ..*request
    }
}

impl Alike {
    /// The number of those that are like this one. It is a new one where no recent one is.
    pub(crate) fn number(&mut self, request: &RequestInfo<'_>) -> u16 {
        let request = common(request);
        let recent = (0..self.kinds.len()).rev().take(COMPARED);
        let known = recent.map(|at| at as u16).find(|&at| self.get(at) == request);
        known.unwrap_or_else(|| {
            let kind = Pack(&mut self.texts).kind(&request);
            self.kinds.push((kind, self.texts.len()));
            (self.kinds.len() - 1) as u16
        })
    }

    /// What those have in common that have this number.
    pub(crate) fn get(&self, number: u16) -> RequestInfo<'_> {
        let number = usize::from(number);
        let Some((kind, end)) = self.kinds.get(number) else { return RequestInfo::default() };
        let begin = number.checked_sub(1).map_or(0, |before| self.kinds[before].1);
        Unpack(&self.texts[begin..*end]).kind(kind)
    }

    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        self.texts.len()
    }

    /// Bytes that it has room for.
    pub(crate) fn room(&self) -> usize {
        self.texts.capacity()
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.kinds.clear();
        self.texts.clear();
    }
}

/// The same, for whoever writes lines of many.
pub(crate) struct Written<'a> {
    alike: &'a Alike,
    /// By number, once it was asked for.
    known: Vec<Option<Same>>,
}

impl<'a> Written<'a> {
    pub(crate) fn of(alike: &'a Alike) -> Self {
        Self { alike, known: Vec::new() }
    }

    /// What those have in common that have this number, and how lines say it.
    pub(crate) fn get(&mut self, number: u16) -> (RequestInfo<'a>, &Same) {
        let common = self.alike.get(number);
        let index = usize::from(number);
        if self.known.len() <= index {
            self.known.resize_with(index + 1, || None);
        }
        (common, self.known[index].get_or_insert_with(|| Same::of(&common)))
    }
}

impl Pack<'_> {
    fn kind(&mut self, request: &RequestInfo<'_>) -> Kind {
        Kind {
            generation: request.generation,
            method: self.text(request.method),
            authority: self.text(request.authority),
            protocol: request.protocol,
            grpc: request.grpc,
            status: request.status,
            grpc_status: request.grpc_status,
            flags: request.flags,
            reason: request.reason,
            policy: request.policy.map(|policy| self.object(policy)),
            route: request.route.map(|route| self.object(route)),
            route_name: self.text(request.route_name),
            cluster: request.cluster.map(|ClusterName { port, subset, host }| Cluster {
                port,
                subset: self.text(subset),
                host: self.text(host),
            }),
            endpoint: request.endpoint,
            attempts: request.attempts,
            user_agent: request.user_agent.map(|agent| self.text(agent)),
        }
    }

    fn object(&mut self, ObjectName { kind, namespace, name }: ObjectName<'_>) -> Object {
        Object { kind: self.text(kind), namespace: self.text(namespace), name: self.text(name) }
    }
}

impl<'a> Unpack<'a> {
    fn kind(&mut self, kind: &Kind) -> RequestInfo<'a> {
        RequestInfo {
            generation: kind.generation,
            method: self.text(kind.method),
            authority: self.text(kind.authority),
            protocol: kind.protocol,
            grpc: kind.grpc,
            status: kind.status,
            grpc_status: kind.grpc_status,
            flags: kind.flags,
            reason: kind.reason,
            policy: kind.policy.as_ref().map(|policy| self.object(policy)),
            route: kind.route.as_ref().map(|route| self.object(route)),
            route_name: self.text(kind.route_name),
            cluster: kind.cluster.as_ref().map(|cluster| ClusterName {
                port: cluster.port,
                subset: self.text(cluster.subset),
                host: self.text(cluster.host),
            }),
            endpoint: kind.endpoint,
            attempts: kind.attempts,
            user_agent: self.known(kind.user_agent),
            ..RequestInfo::default()
        }
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
    use crate::told::samples::request;

    #[test]
    fn it_is_all_that_is_not_a_requests_own() {
        let mut alike = Alike::default();
        for request in [request(), RequestInfo::default()] {
            let number = alike.number(&request);
            let own = RequestInfo {
                path: request.path,
                detail: request.detail,
                request_id: request.request_id,
                trace_id: request.trace_id,
                received: request.received,
                sent: request.sent,
                duration: request.duration,
                upstream_time: request.upstream_time,
                ..alike.get(number)
            };
            assert_eq!(own, request);
        }
    }

    #[test]
    fn requests_are_alike_that_differ_in_what_is_their_own() {
        let mut alike = Alike::default();
        let first = request();
        let other = RequestInfo { path: "/other", sent: 1, request_id: None, ..first };
        assert_eq!([alike.number(&first), alike.number(&other)], [0, 0]);
        let unlike = [
            RequestInfo { status: Some(503), ..first },
            RequestInfo { endpoint: None, ..first },
            RequestInfo { route_name: "", ..first },
            RequestInfo { authority: "other", ..first },
        ];
        assert_eq!(unlike.map(|request| alike.number(&request)), [1, 2, 3, 4]);
        // Too long ago.
        assert_eq!([alike.number(&first), alike.number(&unlike[3])], [5, 4]);
        let bytes = alike.bytes();
        alike.number(&first);
        assert_eq!(alike.bytes(), bytes);
    }
}
