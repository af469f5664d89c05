//! One proxied connection, from open to close.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    ByteCounters, CloseReason, ConnectionInfo, Telemetry,
    ends::Connection,
    tcp_metrics::HeldSeries,
    told::{Carried, Told},
};

/// The record of an open connection. It logs and counts the close exactly once: by
/// [`ConnectionRecord::close`], or when it is dropped, with the reason `aborted`.
#[derive(Debug)]
pub struct ConnectionRecord {
    telemetry: Arc<Telemetry>,
    id: u64,
    info: ConnectionInfo,
    /// What is told of it has this in common, if anybody is to hear of it.
    connection: Option<Arc<Connection>>,
    series: HeldSeries,
    counters: Arc<ByteCounters>,
    opened: Instant,
    closed: bool,
}

impl ConnectionRecord {
    pub(crate) fn open(telemetry: &Arc<Telemetry>, id: u64, info: ConnectionInfo) -> Self {
        let record = Self::resume(telemetry, id, info, Duration::ZERO);
        telemetry.tcp().open(&record.series);
        record.tell(&Told::Opened);
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
            connection: telemetry.is_logging().then(|| Arc::new(Connection::new(id, &info))),
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
        let how = Carried {
            sent: self.counters.sent(),
            received: self.counters.received(),
            duration: self.opened.elapsed(),
        };
        self.tell(&Told::Closed(how, reason.into()));
        self.telemetry.audit_denial(&self.info, reason.reason, reason.detail.as_deref(), None);
    }

    fn tell(&self, told: &Told<'_>) {
        if let Some(connection) = &self.connection {
            self.telemetry.log(connection, told);
        }
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        self.finish(&CloseReason::new("aborted", "-"));
    }
}
