//! What is told of a connection, or of a request of its: as those give it who have seen it, and as those get it who
//! read it later.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{CloseReason, RequestInfo};

/// Of the times that [`now`] gives, in one of those that lines do.
pub(crate) const NANOS_PER_MILLI: u64 = 1_000_000;

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told<'a> {
    /// The connection was opened.
    Opened,
    /// It never was.
    Denied(Why<'a>),
    /// It is closed.
    Closed(Carried, Why<'a>),
    /// A request is over.
    Request(&'a RequestInfo<'a>),
}

/// How something has gone on until it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Bytes from the server to the client.
    pub(crate) sent: u64,
    /// Bytes from the client to the server.
    pub(crate) received: u64,
    /// From its beginning to its end.
    pub(crate) duration: Duration,
}

/// Why it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Why<'a> {
    pub(crate) reason: &'static str,
    pub(crate) flags: &'static str,
    pub(crate) detail: Option<&'a str>,
}

impl<'a> From<&'a CloseReason> for Why<'a> {
    fn from(CloseReason { reason, flags, detail }: &'a CloseReason) -> Self {
        Self { reason, flags, detail: detail.as_deref() }
    }
}

/// When something happens that happens now: nanoseconds since 1970, in UTC.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// For tests of who passes records on: what is told, and how it is found again.
#[cfg(test)]
pub(crate) mod samples {
    use std::{
        sync::{Arc, LazyLock},
        time::Duration,
    };

    use serde_json::Value;
    use undermesh_model::{ObjectName, ResourceRef, traffic::ClusterKey};

    use super::{Told, Why};
    use crate::{
        ConnectionInfo, Peer, Reporter, RequestInfo, Security, TraceId, TraceName, Transport,
        ends::Connection, journal::Journal,
    };

    /// A connection of which little is known.
    pub(crate) fn connection() -> ConnectionInfo {
        ConnectionInfo {
            reporter: Reporter::Source,
            source: Peer::unknown(),
            destination: Peer::unknown(),
            service: None,
            security: Security::None,
            transport: Transport::Plain,
            source_addr: ([127, 0, 0, 1], 1).into(),
            dialled: None,
            upstream: None,
            generation: 0,
        }
    }

    static ROUTE: LazyLock<Arc<ResourceRef>> =
        LazyLock::new(|| Arc::new(ResourceRef::namespaced("VirtualService", "shop", "cart")));
    static ROUTE_NAME: LazyLock<Arc<str>> = LazyLock::new(|| "canary".into());
    static CLUSTER: LazyLock<Arc<ClusterKey>> = LazyLock::new(|| {
        let whole = ClusterKey::new("cart.shop.svc.cluster.local", 80);
        Arc::new(ClusterKey { subset: "v1".to_owned(), ..whole })
    });

    /// A request of which all is known.
    pub(crate) fn request() -> RequestInfo<'static> {
        RequestInfo {
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
            policy: Some(ObjectName {
                kind: "AuthorizationPolicy",
                namespace: "shop",
                name: "guard",
            }),
            request_id: Some("id"),
            trace_id: TraceId::new([7; 16]).map(|id| TraceName::new(id, true)),
            route: Some(&ROUTE),
            route_name: Some(&ROUTE_NAME),
            cluster: Some(&CLUSTER),
            endpoint: Some(([10, 0, 0, 1], 80).into()),
            attempts: 3,
            received: 1,
            sent: u64::MAX,
            duration: Duration::from_nanos(1),
            upstream_time: Some(Duration::ZERO),
            user_agent: Some("curl"),
            ..RequestInfo::default()
        }
    }

    /// Tells of one something with this detail.
    pub(crate) fn tell(journal: &Journal, detail: &str) {
        let connection = Arc::new(Connection::new(0, &connection()));
        let why = Why { reason: "why", flags: "-", detail: Some(detail) };
        journal.push(&connection, &Told::Denied(why));
    }

    /// What the details of these lines were.
    pub(crate) fn details<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Vec<String> {
        let detail = |line: Value| line["detail"].as_str().unwrap().to_owned();
        lines.into_iter().map(|line| detail(serde_json::from_str(line.as_ref()).unwrap())).collect()
    }
}
