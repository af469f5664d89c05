//! Open connections, so that their bytes are in the metrics before they close.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{ByteCounters, tcp_metrics::ByteSeries};

/// Every open connection by its number. Bounded by the sockets that the process may open.
#[derive(Debug, Default)]
pub(crate) struct LiveConnections(Mutex<HashMap<u64, Live>>);

/// An open connection, and what of its bytes is in the metrics already.
#[derive(Debug)]
struct Live {
    counters: Arc<ByteCounters>,
    series: ByteSeries,
    sent: u64,
    received: u64,
}

impl LiveConnections {
    /// From now on the bytes in `counters` go into `series`.
    pub(crate) fn add(&self, id: u64, counters: Arc<ByteCounters>, series: ByteSeries) {
        self.lock().insert(id, Live { counters, series, sent: 0, received: 0 });
    }

    /// Moves what is left of a connection's bytes and forgets it.
    pub(crate) fn remove(&self, id: u64) {
        if let Some(mut live) = self.lock().remove(&id) {
            live.flush();
        }
    }

    /// Moves the bytes of all connections into the metrics.
    pub(crate) fn flush(&self) {
        for live in self.lock().values_mut() {
            live.flush();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Moves what has been carried since the last time. Its exclusive access is what keeps bytes
    /// from being counted twice.
    fn flush(&mut self) {
        let (sent, received) = (self.counters.sent(), self.counters.received());
        self.series.sent.inc_by(sent - self.sent);
        self.series.received.inc_by(received - self.received);
        (self.sent, self.received) = (sent, received);
    }
}
