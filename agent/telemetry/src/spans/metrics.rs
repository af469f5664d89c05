//! What is counted about spans.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::Metric;

static EXPORTED: Metric = Metric::counter(
    "undermesh_spans_exported",
    &[],
    "[spans](tracing.md) that the receiver has taken; where tracing is on",
);
static DROPPED: Metric = Metric::counter(
    "undermesh_spans_dropped",
    &["reason"],
    "spans that were lost: `queue_full`, `unavailable` (the receiver, as often as it was \
     asked), `rejected` (it does not want them), `shutdown`",
);

/// Why a span did not get to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// There was no room in the queue.
    QueueFull,
    /// The receiver could not be reached, or had no time, as often as it was asked.
    Unavailable,
    /// The receiver does not want it.
    Rejected,
    /// The process has ended before.
    Shutdown,
}

impl Loss {
    const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Shutdown => "shutdown",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: &'static str,
}

/// Counters, shared by all handles.
#[derive(Clone, Debug, Default)]
pub(super) struct SpanMetrics {
    exported: Counter,
    dropped: Family<Labels, Counter>,
}

impl SpanMetrics {
    /// Registers them; every reason has a series from the beginning.
    pub(super) fn register(&self, registry: &mut Registry) {
        for reason in [Loss::QueueFull, Loss::Unavailable, Loss::Rejected, Loss::Shutdown] {
            self.dropped(reason, 0);
        }
        let exported = self.exported.clone();
        EXPORTED.register(registry, exported);
        DROPPED.register(registry, self.dropped.clone());
    }

    pub(super) fn exported(&self, count: u64) {
        self.exported.inc_by(count);
    }

    pub(super) fn dropped(&self, reason: Loss, count: u64) {
        self.dropped.get_or_create(&Labels { reason: reason.as_str() }).inc_by(count);
    }

    #[cfg(test)]
    pub(super) fn read(&self, reason: Loss) -> (u64, u64) {
        let dropped = self.dropped.get_or_create(&Labels { reason: reason.as_str() }).get();
        (self.exported.get(), dropped)
    }
}
