//! Names whose addresses are endpoints, asked for in the background for all pods of the node.
//!
//! A name is resolved from when a cluster that has it is first used until none has been for a while;
//! whatever snapshot the cluster is from, its addresses stay known. `lookup` asks, `answer` decides what a
//! reply changes and when to ask again, `places` makes endpoints of addresses. None of them knows requests.

mod answer;
mod lookup;
mod metrics;
mod places;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::Instant,
};
use undermesh_snapshot::traffic::ClusterSpec;

use crate::balance::random;
use answer::Answer;
use lookup::Lookups;
pub(crate) use metrics::DnsMetrics;
pub(super) use places::{Families, Place, places};

/// Names that a node resolves, at most.
const MAX_NAMES: usize = 4096;
/// Names that are asked for at a time.
const MAX_ASKED: usize = 64;
/// Requests wait no longer than this for the first answer about a name.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// The names of a node's clusters.
pub(crate) struct Names {
    lookups: Arc<Lookups>,
    metrics: DnsMetrics,
    runtime: Handle,
    names: Mutex<HashMap<String, Weak<Name>>>,
    permits: Arc<Semaphore>,
}

/// A name that is resolved for as long as somebody has it.
pub(super) struct Name {
    name: String,
    state: watch::Sender<State>,
    /// Whoever asks for it again and again.
    asking: OnceLock<AbortHandle>,
    metrics: DnsMetrics,
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Another number whenever the addresses have changed.
    generation: u64,
    addresses: Arc<[IpAddr]>,
    /// Since when these addresses are known to be right; `None` before the first answer.
    answered: Option<Instant>,
    /// It has been asked for, with whatever result.
    asked: bool,
    /// Why the last attempt failed.
    error: Option<String>,
}

/// A name, as the admin dump has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NameStatus {
    /// The name.
    pub name: String,
    /// Its addresses, as last heard.
    pub addresses: Vec<IpAddr>,
    /// Seconds since DNS said so; none where it never answered.
    pub answered_seconds_ago: Option<u64>,
    /// Why the last attempt failed: the addresses are those of the last answer.
    pub error: Option<String>,
}

impl Names {
    /// Asks `servers`, or those of the system where there are none.
    pub(crate) fn new(servers: &[SocketAddr], metrics: DnsMetrics, runtime: &Handle) -> Self {
        Self {
            lookups: Arc::new(Lookups::new(servers)),
            metrics,
            runtime: runtime.clone(),
            names: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_ASKED)),
        }
    }

    /// The names of a cluster, in their order; `None` for those that are too many.
    pub(super) fn of(&self, spec: &ClusterSpec) -> Vec<Option<Arc<Name>>> {
        spec.dns.iter().map(|one| self.get(&one.name)).collect()
    }

    fn get(&self, name: &str) -> Option<Arc<Name>> {
        let mut names = self.lock();
        if let Some(known) = names.get(name).and_then(Weak::upgrade) {
            return Some(known);
        }
        names.retain(|_, name| name.strong_count() > 0);
        if names.len() >= MAX_NAMES {
            tracing::warn!(
                name,
                "more than {MAX_NAMES} names are in use; this one is not resolved"
            );
            return None;
        }
        self.metrics.names.inc();
        let made = Arc::new(Name {
            name: name.to_owned(),
            state: watch::Sender::default(),
            asking: OnceLock::new(),
            metrics: self.metrics.clone(),
        });
        let (lookups, permits) = (Arc::clone(&self.lookups), Arc::clone(&self.permits));
        let asking = keep_asking(Arc::downgrade(&made), lookups, permits);
        // It was empty.
        let _ = made.asking.set(self.runtime.spawn(asking).abort_handle());
        names.insert(name.to_owned(), Arc::downgrade(&made));
        Some(made)
    }

    /// All names that are in use.
    pub(crate) fn status(&self) -> Vec<NameStatus> {
        let names: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let mut all: Vec<_> = names.iter().map(|name| name.status()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Name>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Name {
    /// What is known now.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Another number whenever the addresses have changed.
    pub(super) fn generation(&self) -> u64 {
        self.state.borrow().generation
    }

    /// Whether it has been asked for, with whatever result.
    pub(super) fn is_asked(&self) -> bool {
        self.state.borrow().asked
    }

    async fn asked(&self) {
        // Fails only without a sender, and there is one.
        let _ = self.state.subscribe().wait_for(|state| state.asked).await;
    }

    /// Notes what `answer` has become.
    fn tell(&self, answer: &Answer, error: Option<String>) {
        if let Some(error) = &error
            && self.state.borrow().error.is_none()
        {
            let (name, kept) = (&self.name, answer.addresses().count());
            tracing::warn!(
                name,
                error,
                kept,
                "DNS does not answer; addresses that are known are kept"
            );
        }
        self.state.send_modify(|state| {
            let addresses: Arc<[IpAddr]> = answer.addresses().collect();
            if addresses != state.addresses {
                tracing::debug!(name = self.name, ?addresses, "a name has other addresses");
                state.addresses = addresses;
                state.generation += 1;
            }
            if error.is_none() {
                state.answered = Some(Instant::now());
            }
            state.asked = true;
            state.error = error;
        });
    }

    fn status(&self) -> NameStatus {
        let State { addresses, answered, error, .. } = self.state();
        NameStatus {
            name: self.name.clone(),
            addresses: addresses.to_vec(),
            answered_seconds_ago: answered.map(|at| at.elapsed().as_secs()),
            error,
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(asking) = self.asking.get() {
            asking.abort();
        }
        self.metrics.names.dec();
    }
}

/// Waits until all of these were asked for, no longer than a request may be kept waiting.
pub(super) async fn first_answers(names: &[Arc<Name>]) {
    let all = async {
        for name in names {
            name.asked().await;
        }
    };
    // Whatever is known then is what there is.
    let _ = tokio::time::timeout(FIRST_ANSWER, all).await;
}

async fn keep_asking(name: Weak<Name>, lookups: Arc<Lookups>, permits: Arc<Semaphore>) {
    let mut answer = Answer::default();
    loop {
        let Some(wanted) = name.upgrade().map(|name| name.name.clone()) else { return };
        // Never closed.
        let permit = permits.acquire().await;
        let (v4, v6) = lookups.ask(&wanted).await;
        drop(permit);
        let Some(name) = name.upgrade() else { return };
        let taken = answer.take(v4, v6);
        name.metrics.asked(taken.result);
        name.tell(&answer, taken.error);
        drop(name);
        tokio::time::sleep(jittered(taken.again)).await;
    }
}

/// Up to a tenth later, so that names which were first asked for together do not stay together.
fn jittered(delay: Duration) -> Duration {
    let tenth = usize::try_from(delay.as_millis() / 10).unwrap_or(usize::MAX);
    delay + Duration::from_millis(random(tenth) as u64)
}
