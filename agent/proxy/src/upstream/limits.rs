//! What a client pod may have with one destination at a time.
//!
//! Source: Envoy, circuit breakers; Istio sets all of them to 2^32-1 where a rule says nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use undermesh_model::traffic::ConnectionPool;

/// Istio's names of the limits: labels of metrics, and what a refusal says.
pub(crate) const CONNECTIONS: &str = "maxConnections";
pub(crate) const PENDING: &str = "http1MaxPendingRequests";
pub(crate) const REQUESTS: &str = "http2MaxRequests";
pub(crate) const RETRIES: &str = "maxRetries";

/// The limits of one cluster. They outlive snapshots: what is held counts under new numbers too.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) connections: Arc<Limit>,
    pub(super) pending: Arc<Limit>,
    pub(super) requests: Arc<Limit>,
    pub(super) retries: Arc<Limit>,
}

impl Limits {
    pub(super) fn new(pool: &ConnectionPool) -> Self {
        let limits = Self {
            connections: Limit::new(CONNECTIONS),
            pending: Limit::new(PENDING),
            requests: Limit::new(REQUESTS),
            retries: Limit::new(RETRIES),
        };
        limits.set(pool);
        limits
    }

    /// Takes the numbers of a rule over.
    pub(super) fn set(&self, pool: &ConnectionPool) {
        self.connections.set(pool.tcp.max_connections);
        self.pending.set(pool.http.max_pending);
        self.requests.set(pool.http.max_requests);
        self.retries.set(pool.http.max_retries);
    }
}

/// A number of things that may be held at a time.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) name: &'static str,
    max: AtomicU32,
    held: AtomicU32,
}

/// One thing that counts against a limit for as long as it lives.
#[derive(Debug)]
pub(super) struct Held(Arc<Limit>);

impl Limit {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, max: AtomicU32::new(u32::MAX), held: AtomicU32::new(0) })
    }

    /// Istio cannot tell 0 from nothing: both mean no limit.
    fn set(&self, max: Option<u32>) {
        let max = max.filter(|max| *max > 0).unwrap_or(u32::MAX);
        self.max.store(max, Ordering::Relaxed);
    }

    /// One more, or `None` at the limit.
    pub(super) fn take(self: &Arc<Self>) -> Option<Held> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |held: u32| (held < max).then(|| held.saturating_add(1));
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Held(Arc::clone(self)))
    }

    /// One more, beyond the limit if need be.
    pub(super) fn take_anyway(self: &Arc<Self>) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(self))
    }

    pub(super) fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// The most that may be held; `None` for no limit.
    pub(super) fn max(&self) -> Option<u32> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max < u32::MAX)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_exceeded_and_is_free_again_after_a_drop() {
        let limit = Limit::new(REQUESTS);
        limit.set(Some(2));
        let (first, second) = (limit.take(), limit.take());
        assert!(first.is_some() && second.is_some());
        assert!(limit.take().is_none());
        drop(first);
        assert!(limit.take().is_some());
        assert_eq!(limit.held(), 1);
    }

    #[test]
    fn what_is_held_counts_under_a_lower_limit() {
        let limit = Limit::new(REQUESTS);
        let held: Vec<_> = (0..3).map(|_| limit.take()).collect();
        limit.set(Some(2));
        assert!(limit.take().is_none());
        drop(held);
        assert!(limit.take().is_some());
    }

    #[test]
    fn zero_means_no_limit() {
        let limits = Limits::new(&ConnectionPool::default());
        limits.pending.set(Some(0));
        assert_eq!(limits.pending.max(), None);
        assert_eq!(limits.retries.max(), None);
    }
}
