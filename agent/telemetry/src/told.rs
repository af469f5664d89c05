//! What is told of a connection, or of a request of its: as those give it who have seen it, and as those get it who
//! read it later.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{CloseReason, ConnectionInfo, RequestInfo, line::Ends};

/// A connection that things are told of: what all of them have in common.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    info: ConnectionInfo,
    /// As lines say it, from the first of them on that is written.
    ends: OnceLock<Ends>,
}

impl Connection {
    pub(crate) fn new(id: u64, info: ConnectionInfo) -> Self {
        Self { id, info, ends: OnceLock::new() }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What was known of it when it opened.
    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// As lines say it.
    pub(crate) fn ends(&self) -> &Ends {
        self.ends.get_or_init(|| Ends::new(self.id, &self.info))
    }
}

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

/// When something happens that happens now: milliseconds since 1970, in UTC.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// For tests of who passes records on: what is told, and how it is found again.
#[cfg(test)]
pub(crate) mod samples {
    use std::sync::Arc;

    use serde_json::Value;

    use super::{Connection, Told, Why};
    use crate::{ConnectionInfo, Peer, Reporter, Security, Transport, journal::Journal};

    /// Tells of a connection something with this detail.
    pub(crate) fn tell(journal: &Journal, detail: &str) {
        let connection = ConnectionInfo {
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
        };
        let connection = Arc::new(Connection::new(0, connection));
        let why = Why { reason: "why", flags: "-", detail: Some(detail) };
        journal.push(&connection, &Told::Denied(why));
    }

    /// What the details of these lines were.
    pub(crate) fn details<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Vec<String> {
        let detail = |line: Value| line["detail"].as_str().unwrap().to_owned();
        lines.into_iter().map(|line| detail(serde_json::from_str(line.as_ref()).unwrap())).collect()
    }
}
