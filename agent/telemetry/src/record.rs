//! One proxied connection, from open to close.

use std::{
    borrow::Cow,
    fmt::Display,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use undermesh_model::SpiffeId;

use crate::{
    ByteCounters, CloseReason, ConnectionInfo, Peer, RequestInfo, Telemetry,
    tcp_metrics::HeldSeries,
};

/// RFC 3339 in UTC, always with three digits of a second, so that lines sort as text.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Longest `detail`, in characters: parts of it come from peers.
const MAX_DETAIL: usize = 512;

/// The record of an open connection. It logs and counts the close exactly once: by
/// [`ConnectionRecord::close`], or when it is dropped, with the reason `aborted`.
#[derive(Debug)]
pub struct ConnectionRecord {
    telemetry: Arc<Telemetry>,
    id: u64,
    info: ConnectionInfo,
    series: HeldSeries,
    counters: Arc<ByteCounters>,
    opened: Instant,
    closed: bool,
}

impl ConnectionRecord {
    pub(crate) fn open(telemetry: &Arc<Telemetry>, id: u64, info: ConnectionInfo) -> Self {
        let record = Self::resume(telemetry, id, info, Duration::ZERO);
        telemetry.tcp().open(&record.series);
        telemetry.log(&Line::new("open", id, &record.info));
        record
    }

    pub(crate) fn resume(
        telemetry: &Arc<Telemetry>,
        id: u64,
        info: ConnectionInfo,
        ago: Duration,
    ) -> Self {
        let series = telemetry.tcp().hold(&info);
        let counters = Arc::new(ByteCounters::default());
        telemetry.live().add(id, Arc::clone(&counters), telemetry.tcp().bytes(&series));
        let now = Instant::now();
        Self {
            telemetry: Arc::clone(telemetry),
            id,
            info,
            series,
            counters,
            opened: now.checked_sub(ago).unwrap_or(now),
            closed: false,
        }
    }

    /// Where the bytes are counted.
    pub fn counters(&self) -> &Arc<ByteCounters> {
        &self.counters
    }

    /// Closes the record.
    pub fn close(mut self, reason: CloseReason) {
        self.finish(&reason);
    }

    /// Lets go of a record whose connection goes on under another agent: nothing is logged, and
    /// what has been counted stays counted.
    pub fn hand_over(mut self) {
        self.closed = true;
        self.telemetry.live().remove(self.id);
    }

    fn finish(&mut self, reason: &CloseReason) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.telemetry.live().remove(self.id);
        self.telemetry.tcp().close(&self.series, reason);
        self.telemetry.ended(reason.reason);
        let mut line = Line::new("close", self.id, &self.info);
        line.end(&self.counters, self.opened.elapsed(), reason);
        self.telemetry.log(&line);
        self.telemetry.audit_denial(&self.info, reason.reason, reason.detail.as_deref(), None);
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        self.finish(&CloseReason::new("aborted", "-"));
    }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(TIME).unwrap_or_default()
}

/// Written as it is displayed, without a string of its own.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// One line of the access log. Field names are API (docs/reference/access-log.md).
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    time: String,
    event: &'static str,
    connection: u64,
    reporter: &'static str,
    source: End<'a>,
    destination: End<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialled: Option<Shown<SocketAddr>>,
    transport: &'static str,
    security: &'static str,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_flags: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct End<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Shown<SocketAddr>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    workload: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a SpiffeId>,
}

impl<'a> End<'a> {
    fn new(peer: &'a Peer, address: Option<SocketAddr>) -> Self {
        Self {
            address: address.map(Shown),
            workload: &peer.workload,
            pod: &peer.pod,
            namespace: &peer.namespace,
            identity: peer.principal.as_ref(),
        }
    }
}

impl<'a> Line<'a> {
    pub(crate) fn new(event: &'static str, id: u64, info: &'a ConnectionInfo) -> Self {
        Self {
            time: now(),
            event,
            connection: id,
            reporter: info.reporter.as_str(),
            source: End::new(&info.source, Some(info.source_addr)),
            destination: End::new(&info.destination, info.upstream),
            service: info.service.as_ref().map(|service| service.host.as_str()),
            dialled: info.dialled.map(Shown),
            transport: info.transport.as_str(),
            security: info.security.as_str(),
            generation: info.generation,
            bytes_sent: None,
            bytes_received: None,
            duration_ms: None,
            reason: None,
            response_flags: None,
            detail: None,
        }
    }

    /// What a request's line has in common with others.
    pub(crate) fn of_request(
        connection: u64,
        info: &'a ConnectionInfo,
        request: &'a RequestInfo<'a>,
    ) -> Self {
        let mut line = Self::new("request", connection, info);
        if let Some(endpoint) = request.endpoint {
            line.destination.address = Some(Shown(endpoint));
        }
        line.generation = request.generation;
        line.bytes_sent = Some(request.sent);
        line.bytes_received = Some(request.received);
        line.duration_ms = Some(milliseconds(request.duration));
        line.reason = Some(request.reason);
        line.response_flags = Some(request.flags.text().into());
        line.detail = request.detail.map(|detail| cut(detail, MAX_DETAIL));
        line
    }

    fn end(&mut self, counters: &ByteCounters, duration: Duration, reason: &'a CloseReason) {
        self.bytes_sent = Some(counters.sent());
        self.bytes_received = Some(counters.received());
        self.duration_ms = Some(milliseconds(duration));
        self.because(reason);
    }

    pub(crate) fn because(&mut self, reason: &'a CloseReason) {
        self.reason = Some(reason.reason);
        self.response_flags = Some(reason.flags.into());
        self.detail = reason.detail.as_deref().map(|detail| cut(detail, MAX_DETAIL));
    }
}

/// With three digits after the point.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The first `most` characters.
pub(crate) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    let end = text.char_indices().nth(most).map_or(text.len(), |(index, _)| index);
    Cow::Borrowed(&text[..end])
}
