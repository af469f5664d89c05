//! What came of asking, by provider.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::Serialize;

use crate::metrics::Metrics;

/// Providers that are remembered; more than that would be a configuration out of hand.
const MAX_PROVIDERS: usize = 1024;
/// Longest text of an error that is kept.
const MAX_ERROR: usize = 256;

/// Everybody who was asked.
#[derive(Debug, Default)]
pub(crate) struct Authorizers(Mutex<BTreeMap<String, Arc<State>>>);

/// What one has answered.
#[derive(Debug)]
pub(crate) struct State {
    provider: String,
    allowed: AtomicU64,
    denied: AtomicU64,
    refused: AtomicU64,
    passed: AtomicU64,
    /// The last failure, unless there was an answer since.
    failing: Mutex<Option<(String, Instant)>>,
}

/// What one has answered, for the status page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizerStatus {
    /// The provider's name.
    pub provider: String,
    /// Requests that it has let pass.
    pub allowed: u64,
    /// Requests that it has refused.
    pub denied: u64,
    /// Requests that were refused because it gave no answer.
    pub failed_closed: u64,
    /// Requests that have passed although it gave no answer (`failOpen`).
    pub failed_open: u64,
    /// Why it gave no answer the last time that it was asked; absent where it has given one.
    pub error: Option<String>,
    /// How many seconds ago that was.
    pub error_seconds: Option<u64>,
}

impl Authorizers {
    /// The state of a provider.
    pub(super) fn of(&self, provider: &str) -> Arc<State> {
        let mut all = self.lock();
        if let Some(state) = all.get(provider) {
            return Arc::clone(state);
        }
        if all.len() >= MAX_PROVIDERS {
            all.clear();
        }
        let state = Arc::new(State::new(provider));
        all.insert(provider.to_owned(), Arc::clone(&state));
        state
    }

    /// Everybody who was asked.
    pub(crate) fn status(&self) -> Vec<AuthorizerStatus> {
        self.lock().values().map(|state| state.status()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            allowed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            failing: Mutex::default(),
        }
    }

    pub(super) fn allowed(&self, metrics: &Metrics) {
        self.allowed.fetch_add(1, Ordering::Relaxed);
        *self.failing() = None;
        metrics.record_check(&self.provider, "allowed");
    }

    pub(super) fn denied(&self, metrics: &Metrics) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        *self.failing() = None;
        metrics.record_check(&self.provider, "denied");
    }

    /// It gave no answer; `passed` if the request passes nevertheless.
    pub(super) fn failed(&self, metrics: &Metrics, why: &str, passed: bool) {
        let (counter, result) =
            if passed { (&self.passed, "failed_open") } else { (&self.refused, "failed_closed") };
        counter.fetch_add(1, Ordering::Relaxed);
        let why = why.chars().take(MAX_ERROR).collect();
        *self.failing() = Some((why, Instant::now()));
        metrics.record_check(&self.provider, result);
    }

    fn failing(&self) -> MutexGuard<'_, Option<(String, Instant)>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> AuthorizerStatus {
        let failing = self.failing().clone();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AuthorizerStatus {
            provider: self.provider.clone(),
            allowed: count(&self.allowed),
            denied: count(&self.denied),
            failed_closed: count(&self.refused),
            failed_open: count(&self.passed),
            error_seconds: failing.as_ref().map(|(_, when)| when.elapsed().as_secs()),
            error: failing.map(|(why, _)| why),
        }
    }
}
