//! Istio's standard TCP metrics, under a bound on the number of series.
//!
//! Locks are taken when a connection opens and when it closes, never while it carries bytes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::{CloseReason, ConnectionInfo, tcp_labels::TcpLabels};

/// A label set, stored once for all metrics and connections that have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Series(Arc<TcpLabels>);

impl EncodeLabelSet for Series {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// A label set in use. It is not evicted as long as this lives.
#[derive(Debug)]
pub(crate) struct HeldSeries {
    series: Series,
    _pin: Arc<()>,
}

/// Where the bytes of one label set are counted. Valid as long as its label set is held.
#[derive(Clone, Debug)]
pub(crate) struct ByteSeries {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
}

/// The four counters.
#[derive(Debug)]
pub(crate) struct TcpMetrics {
    opened: Family<Series, Counter>,
    closed: Family<Series, Counter>,
    sent: Family<Series, Counter>,
    received: Family<Series, Counter>,
    overflow: Counter,
    /// Every label set but the overflow's few, each with the pin that its users share.
    known: Mutex<HashMap<Series, Arc<()>>>,
    max_series: usize,
}

impl TcpMetrics {
    pub(crate) fn register(registry: &mut Registry, max_series: usize) -> Self {
        let metrics = Self {
            opened: Family::default(),
            closed: Family::default(),
            sent: Family::default(),
            received: Family::default(),
            overflow: Counter::default(),
            known: Mutex::default(),
            max_series,
        };
        let mut family = |name: &str, help: &str, family: &Family<Series, Counter>| {
            registry.register(name, help, family.clone());
        };
        family("istio_tcp_connections_opened", "TCP connections opened", &metrics.opened);
        family("istio_tcp_connections_closed", "TCP connections closed", &metrics.closed);
        family("istio_tcp_sent_bytes", "Bytes sent from servers to clients", &metrics.sent);
        family(
            "istio_tcp_received_bytes",
            "Bytes received by servers from clients",
            &metrics.received,
        );
        registry.register(
            "undermesh_metric_series_overflow",
            "Openings and ends of connections counted as unknown, for want of room for their labels",
            metrics.overflow.clone(),
        );
        metrics
    }

    /// Holds the series that a connection is counted in.
    pub(crate) fn hold(&self, info: &ConnectionInfo) -> HeldSeries {
        self.hold_labels(TcpLabels::new(info))
    }

    /// Counts the opening of the connection that holds `held`.
    pub(crate) fn open(&self, held: &HeldSeries) {
        self.opened.get_or_create(&held.series).inc();
    }

    /// Where the connection that holds `held` counts its bytes.
    pub(crate) fn bytes(&self, held: &HeldSeries) -> ByteSeries {
        ByteSeries {
            sent: self.sent.get_or_create_owned(&held.series),
            received: self.received.get_or_create_owned(&held.series),
        }
    }

    /// Counts the close of the connection that holds `held`.
    pub(crate) fn close(&self, held: &HeldSeries, reason: &CloseReason) {
        let closing = self.hold_labels(held.series.0.with_flags(reason.flags));
        self.closed.get_or_create(&closing.series).inc();
    }

    /// Drops the series of workloads that `keep` disowns, but for those of open connections, and
    /// says how many label sets those were.
    pub(crate) fn retain(&self, keep: impl Fn(&str, &str) -> bool) -> usize {
        let mut known = self.known();
        let before = known.len();
        known.retain(|series, pin| {
            // New holders come only through `hold_labels`, which needs the lock.
            let stays = Arc::strong_count(pin) > 1 || !series.0.is_gone(&keep);
            if !stays {
                for family in [&self.opened, &self.closed, &self.sent, &self.received] {
                    family.remove(series);
                }
            }
            stays
        });
        before - known.len()
    }

    /// Holds the series of `labels`, or beyond the bound the overflow's.
    fn hold_labels(&self, labels: TcpLabels) -> HeldSeries {
        let mut known = self.known();
        let series = Series(Arc::new(labels));
        if let Some((series, pin)) = known.get_key_value(&series) {
            return HeldSeries { series: series.clone(), _pin: Arc::clone(pin) };
        }
        if known.len() >= self.max_series {
            self.overflow.inc();
            return HeldSeries {
                series: Series(Arc::new(series.0.overflow())),
                _pin: Arc::default(),
            };
        }
        let pin = Arc::default();
        known.insert(series.clone(), Arc::clone(&pin));
        HeldSeries { series, _pin: pin }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Series, Arc<()>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
