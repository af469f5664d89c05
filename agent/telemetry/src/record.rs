//! One proxied connection, from open to close.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    ByteCounters, CloseReason, ConnectionInfo, Telemetry,
    tcp_metrics::HeldSeries,
    told::{Carried, Connection, Told},
};

/// The record of an open connection. It logs and counts the close exactly once: by
/// [`ConnectionRecord::close`], or when it is dropped, with the reason `aborted`.
#[derive(Debug)]
pub struct ConnectionRecord {
    telemetry: Arc<Telemetry>,
    connection: Arc<Connection>,
    series: HeldSeries,
    counters: Arc<ByteCounters>,
    opened: Instant,
    closed: bool,
}

impl ConnectionRecord {
    pub(crate) fn open(telemetry: &Arc<Telemetry>, id: u64, info: ConnectionInfo) -> Self {
        let record = Self::resume(telemetry, id, info, Duration::ZERO);
        telemetry.tcp().open(&record.series);
        telemetry.log(&record.connection, &Told::Opened);
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
            connection: Arc::new(Connection::new(id, info)),
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
        self.telemetry.live().remove(self.connection.id());
    }

    fn finish(&mut self, reason: &CloseReason) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.telemetry.live().remove(self.connection.id());
        self.telemetry.tcp().close(&self.series, reason);
        self.telemetry.ended(reason.reason);
        let how = Carried {
            sent: self.counters.sent(),
            received: self.counters.received(),
            duration: self.opened.elapsed(),
        };
        self.telemetry.log(&self.connection, &Told::Closed(how, reason.into()));
        let detail = reason.detail.as_deref();
        self.telemetry.audit_denial(self.connection.info(), reason.reason, detail, None);
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        self.finish(&CloseReason::new("aborted", "-"));
    }
}
