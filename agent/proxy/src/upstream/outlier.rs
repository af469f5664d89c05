//! Outlier detection: endpoints that fail again and again are left out for a while.
//!
//! What one pod of the node learns about an endpoint, all of its pods know that reach it through the same
//! rule.
//!
//! Source: Envoy, outlier detection; of its detectors those for failures in a row, as Istio sets them.

mod counts;
mod rule;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;
use undermesh_model::traffic::{ClusterKey, OutlierDetection};

use super::{Outcome, metrics::ClusterMetrics};
pub(super) use counts::Cause;
use counts::Counts;
use rule::Rule;

/// Watches the endpoints of one cluster, for all pods of the node.
pub(super) struct Detector {
    key: Arc<ClusterKey>,
    metrics: Arc<ClusterMetrics>,
    rule: ArcSwap<Rule>,
    state: Mutex<State>,
    /// Goes up whenever an endpoint is ejected or comes back.
    ejections: AtomicU64,
}

struct State {
    endpoints: HashMap<SocketAddr, Arc<Health>>,
    next_sweep: Instant,
}

/// What is known about one endpoint.
#[derive(Debug)]
pub(super) struct Health {
    address: SocketAddr,
    ejected: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    counts: Counts,
    /// What the base time is taken times: one more with each ejection, one less with each interval
    /// without.
    backoff: u32,
    /// How often it was ejected.
    ejections: u64,
    ejected_at: Option<Instant>,
    /// Why it was ejected last.
    cause: Option<Cause>,
    returned_at: Option<Instant>,
}

/// An ejected endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ejected {
    /// How often it was ejected.
    pub(super) ejections: u64,
    /// Why the last time.
    pub(super) cause: Cause,
    /// Until when, at the earliest.
    pub(super) returns_in: Duration,
}

impl Detector {
    pub(super) fn new(
        key: Arc<ClusterKey>,
        settings: &OutlierDetection,
        metrics: Arc<ClusterMetrics>,
    ) -> Self {
        let rule = Rule::new(settings);
        let next_sweep = Instant::now() + rule.interval;
        let state = Mutex::new(State { endpoints: HashMap::new(), next_sweep });
        Self {
            key,
            metrics,
            rule: ArcSwap::from_pointee(rule),
            state,
            ejections: AtomicU64::new(0),
        }
    }

    /// Takes the endpoints and the rule of a snapshot over. What is known of those that stay is kept.
    pub(super) fn watch(
        &self,
        endpoints: impl ExactSizeIterator<Item = SocketAddr>,
        settings: &OutlierDetection,
    ) -> Vec<Arc<Health>> {
        let rule = Rule::new(settings);
        let mut state = self.lock();
        state.next_sweep = state.next_sweep.min(Instant::now() + rule.interval);
        self.rule.store(Arc::new(rule));
        let mut known = std::mem::take(&mut state.endpoints);
        let mut watched = Vec::with_capacity(endpoints.len());
        for address in endpoints {
            let health = state
                .endpoints
                .entry(address)
                .or_insert_with(|| known.remove(&address).unwrap_or_else(|| Health::new(address)));
            watched.push(Arc::clone(health));
        }
        let gone = known.values().filter(|health| health.is_ejected()).count();
        (0..gone).for_each(|_| self.metrics.returned());
        watched
    }

    /// The state of ejections: another number whenever one endpoint is ejected or comes back.
    pub(super) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Acquire)
    }

    /// An attempt at this endpoint has ended. Ejects the endpoint if it was one too many.
    pub(super) fn record(&self, health: &Health, outcome: Outcome) {
        // Most attempts change nothing that others have to know.
        let cause = health.lock().counts.record(outcome, &self.rule.load());
        if let Some(cause) = cause {
            self.eject(health, cause);
        }
    }

    fn eject(&self, health: &Health, cause: Cause) {
        let state = self.lock();
        let rule = self.rule.load();
        let watched = state.endpoints.get(&health.address);
        if health.is_ejected() || !watched.is_some_and(|one| std::ptr::eq(&**one, health)) {
            return;
        }
        let ejected = state.endpoints.values().filter(|one| one.is_ejected()).count();
        let (host, address) = (&self.key.host, health.address);
        if !rule.may_eject(ejected, state.endpoints.len()) {
            self.metrics.ejection_refused();
            tracing::info!(%host, %address, cause = cause.as_str(), "not ejected: too many are");
            return;
        }
        let now = Instant::now();
        let mut record = health.lock();
        record.ejected_at = Some(now);
        record.cause = Some(cause);
        record.ejections += 1;
        record.backoff = rule.next_backoff(record.backoff);
        let time = rule.ejection_time(record.backoff);
        drop(record);
        health.ejected.store(true, Ordering::Release);
        self.ejections.fetch_add(1, Ordering::AcqRel);
        self.metrics.ejected(cause.as_str());
        tracing::warn!(%host, %address, cause = cause.as_str(), ?time, "endpoint ejected");
    }

    /// Lets endpoints come back whose time is over, if a sweep is due. When the next one is.
    pub(super) fn sweep(&self, now: Instant) -> Instant {
        let mut state = self.lock();
        if now < state.next_sweep {
            return state.next_sweep;
        }
        let rule = self.rule.load();
        for health in state.endpoints.values() {
            if health.sweep(&rule, now) {
                self.ejections.fetch_add(1, Ordering::AcqRel);
                self.metrics.returned();
                let (host, address) = (&self.key.host, health.address);
                tracing::info!(%host, %address, "ejected endpoint is used again");
            }
        }
        state.next_sweep = now + rule.interval;
        state.next_sweep
    }

    /// The ejection of an endpoint that is ejected.
    pub(super) fn ejected(&self, health: &Health) -> Option<Ejected> {
        let record = health.lock();
        let since = record.ejected_at.filter(|_| health.is_ejected())?;
        let returns_in =
            self.rule.load().ejection_time(record.backoff).saturating_sub(since.elapsed());
        Some(Ejected { ejections: record.ejections, cause: record.cause?, returns_in })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        let ejected = self.lock().endpoints.values().filter(|one| one.is_ejected()).count();
        (0..ejected).for_each(|_| self.metrics.returned());
    }
}

impl Health {
    fn new(address: SocketAddr) -> Arc<Self> {
        Self::known(address, false)
    }

    /// Of an endpoint of which this alone is known.
    pub(super) fn known(address: SocketAddr, ejected: bool) -> Arc<Self> {
        let ejected = AtomicBool::new(ejected);
        Arc::new(Self { address, ejected, record: Mutex::default() })
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it comes back now.
    fn sweep(&self, rule: &Rule, now: Instant) -> bool {
        let mut record = self.lock();
        let passed =
            |since: Option<Instant>| since.map(|since| now.saturating_duration_since(since));
        if self.is_ejected() {
            let time = rule.ejection_time(record.backoff);
            if passed(record.ejected_at).is_some_and(|passed| passed < time) {
                return false;
            }
            // A count that was about to trigger would eject it again for next to nothing.
            record.counts = Counts::default();
            record.returned_at = Some(now);
            self.ejected.store(false, Ordering::Release);
            return true;
        }
        if passed(record.returned_at).is_some_and(|passed| passed >= rule.interval) {
            record.backoff = record.backoff.saturating_sub(1);
        }
        false
    }
}

#[cfg(test)]
mod tests;
