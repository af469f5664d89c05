//! What requests have in common that are alike: sent by clients of one kind to one place, and ended in one way. Most of
//! what is known of a request is that, and it is kept once for many.

use std::{net::SocketAddr, ops::Range, sync::Arc};

use undermesh_model::{ObjectName, ResourceRef, traffic::ClusterKey};

use crate::{
    RequestInfo, ResponseFlags,
    line::cut,
    request_line::{MAX_TEXT, Same},
    texts::{Length, Pack, Unpack},
};

/// A request is compared with so many of the last that were unlike each other.
const COMPARED: usize = 4;

/// A few kinds of requests. They have numbers, from 0.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    kinds: Vec<Kind>,
    texts: String,
    /// Bytes of names that are somebody else's, and that are kept.
    names: usize,
}

/// All of [`RequestInfo`] that is not a request's own.
///
/// To compare texts costs whoever serves a request more than all else that is done for its record: neither they nor the
/// code are in the processor's caches. So names that configuration has given are shared, which makes them the same where
/// they are at the same place; what clients have written is all that is left.
#[derive(Debug)]
struct Kind {
    generation: u64,
    protocol: &'static str,
    grpc: bool,
    status: Option<u16>,
    grpc_status: Option<u16>,
    flags: ResponseFlags,
    reason: &'static str,
    route: Option<Arc<ResourceRef>>,
    route_name: Option<Arc<str>>,
    cluster: Option<Arc<ClusterKey>>,
    endpoint: Option<SocketAddr>,
    attempts: u32,
    /// Where its texts stand, in the order of these fields; what clients have written is shortened.
    texts: Range<usize>,
    method: Length,
    authority: Length,
    user_agent: Option<Length>,
    policy: Option<Object>,
}

#[derive(Debug)]
struct Object {
    kind: Length,
    namespace: Length,
    name: Length,
}

impl Alike {
    /// The number of those that are like this one. It is a new one where no recent one is.
    pub(crate) fn number(&mut self, request: &RequestInfo<'_>) -> u16 {
        let recent = self.kinds.iter().enumerate().rev().take(COMPARED);
        let mut recent = recent.filter(|(_, kind)| kind.is_of(request, &self.texts));
        match recent.next() {
            Some((number, _)) => number as u16,
            None => self.add(request),
        }
    }

    /// What those have in common that have this number.
    pub(crate) fn get(&self, number: u16) -> RequestInfo<'_> {
        let kind = self.kinds.get(usize::from(number));
        kind.map_or_else(RequestInfo::default, |kind| kind.common(&self.texts))
    }

    /// Bytes of its texts, and of names.
    pub(crate) fn bytes(&self) -> usize {
        self.texts.len() + self.names
    }

    /// Bytes that it has room for.
    pub(crate) fn room(&self) -> usize {
        self.texts.capacity()
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.kinds.clear();
        self.texts.clear();
        self.names = 0;
    }

    #[cold]
    fn add(&mut self, request: &RequestInfo<'_>) -> u16 {
        let kind = Kind::of(request, &mut self.texts);
        self.names += kind.names();
        self.kinds.push(kind);
        (self.kinds.len() - 1) as u16
    }
}

impl Kind {
    /// That of a request; its texts are appended to `texts`.
    fn of(request: &RequestInfo<'_>, texts: &mut String) -> Self {
        let begin = texts.len();
        let mut pack = Pack(texts);
        let [method, authority] =
            [request.method, request.authority].map(|text| pack.text(cut(text, MAX_TEXT)));
        let user_agent = request.user_agent.map(|agent| pack.text(cut(agent, MAX_TEXT)));
        let policy = request.policy.map(|policy| Object {
            kind: pack.text(policy.kind),
            namespace: pack.text(policy.namespace),
            name: pack.text(policy.name),
        });
        Self {
            generation: request.generation,
            protocol: request.protocol,
            grpc: request.grpc,
            status: request.status,
            grpc_status: request.grpc_status,
            flags: request.flags,
            reason: request.reason,
            route: request.route.cloned(),
            route_name: request.route_name.cloned(),
            cluster: request.cluster.cloned(),
            endpoint: request.endpoint,
            attempts: request.attempts,
            texts: begin..texts.len(),
            method,
            authority,
            user_agent,
            policy,
        }
    }

    /// Whether it is that of a request. Told apart wrongly, two are only kept twice.
    fn is_of(&self, request: &RequestInfo<'_>, texts: &str) -> bool {
        let RequestInfo {
            generation,
            method,
            authority,
            path: _,
            protocol,
            grpc,
            status,
            grpc_status,
            flags,
            reason,
            detail: _,
            policy,
            request_id: _,
            trace_id: _,
            route,
            route_name,
            cluster,
            endpoint,
            attempts,
            received: _,
            sent: _,
            duration: _,
            upstream_time: _,
            user_agent,
        } = *request;
        let mut texts = self.texts(texts);
        self.generation == generation
            && self.grpc == grpc
            && self.status == status
            && self.grpc_status == grpc_status
            && self.flags == flags
            && self.attempts == attempts
            && self.endpoint == endpoint
            && std::ptr::eq(self.protocol, protocol)
            && std::ptr::eq(self.reason, reason)
            && same(self.cluster.as_ref(), cluster)
            && same(self.route.as_ref(), route)
            && same(self.route_name.as_ref(), route_name)
            && texts.text(self.method) == cut(method, MAX_TEXT)
            && texts.text(self.authority) == cut(authority, MAX_TEXT)
            && texts.known(self.user_agent) == user_agent.map(|agent| cut(agent, MAX_TEXT))
            && match &self.policy {
                None => policy.is_none(),
                Some(own) => policy == Some(own.named(&mut texts)),
            }
    }

    /// What it says.
    fn common<'a>(&'a self, texts: &'a str) -> RequestInfo<'a> {
        let mut texts = self.texts(texts);
        RequestInfo {
            generation: self.generation,
            method: texts.text(self.method),
            authority: texts.text(self.authority),
            user_agent: texts.known(self.user_agent),
            policy: self.policy.as_ref().map(|policy| policy.named(&mut texts)),
            protocol: self.protocol,
            grpc: self.grpc,
            status: self.status,
            grpc_status: self.grpc_status,
            flags: self.flags,
            reason: self.reason,
            route: self.route.as_ref(),
            route_name: self.route_name.as_ref(),
            cluster: self.cluster.as_ref(),
            endpoint: self.endpoint,
            attempts: self.attempts,
            ..RequestInfo::default()
        }
    }

    /// Bytes of the names that it keeps.
    fn names(&self) -> usize {
        let route = self.route.as_ref().map_or(0, |it| it.namespace.len() + it.name.len());
        let name = self.route_name.as_ref().map_or(0, |name| name.len());
        let cluster = self.cluster.as_ref().map_or(0, |key| {
            [&key.host, &key.subset, &key.name, &key.view].into_iter().map(String::len).sum()
        });
        route + name + cluster
    }

    fn texts<'a>(&self, texts: &'a str) -> Unpack<'a> {
        Unpack(texts.get(self.texts.clone()).unwrap_or_default())
    }
}

/// Whether two names are the same. Most are at the same place, or are not looked at any more.
fn same<T: Eq + ?Sized>(own: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    #[cold]
    fn say_the_same<T: Eq + ?Sized>(own: &T, other: &T) -> bool {
        own == other
    }
    match (own, other) {
        (Some(own), Some(other)) => Arc::ptr_eq(own, other) || say_the_same(&**own, &**other),
        (own, other) => own.is_none() && other.is_none(),
    }
}

impl Object {
    #[cold]
    fn named<'a>(&self, texts: &mut Unpack<'a>) -> ObjectName<'a> {
        ObjectName {
            kind: texts.text(self.kind),
            namespace: texts.text(self.namespace),
            name: texts.text(self.name),
        }
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
            RequestInfo { route_name: None, ..first },
            RequestInfo { authority: "other", ..first },
        ];
        assert_eq!(unlike.map(|request| alike.number(&request)), [1, 2, 3, 4]);
        // Too long ago.
        assert_eq!([alike.number(&first), alike.number(&unlike[3])], [5, 4]);
        let bytes = alike.bytes();
        alike.number(&first);
        assert_eq!(alike.bytes(), bytes);
    }

    #[test]
    fn names_are_the_same_wherever_they_stand() {
        let mut alike = Alike::default();
        let first = request();
        let route = first.route.map(|route| Arc::new(ResourceRef::clone(route)));
        let cluster = first.cluster.map(|key| Arc::new(ClusterKey::clone(key)));
        let copied = RequestInfo { route: route.as_ref(), cluster: cluster.as_ref(), ..first };
        let other = ClusterKey { subset: "v2".to_owned(), ..ClusterKey::new("cart", 80) }.into();
        let unlike = RequestInfo { cluster: Some(&other), ..first };
        assert_eq!([&first, &copied, &unlike].map(|request| alike.number(request)), [0, 0, 1]);
    }

    #[test]
    fn names_that_are_kept_count() {
        let mut alike = Alike::default();
        let name: Arc<str> = "canary".into();
        alike.number(&RequestInfo { route_name: Some(&name), method: "GET", ..Default::default() });
        assert_eq!((alike.bytes(), Arc::strong_count(&name)), (9, 2));
        alike.clear();
        assert_eq!((alike.bytes(), Arc::strong_count(&name)), (0, 1));
    }
}
