//! The tunnels of one pod, ready to be shared.
//!
//! **Invariant**: the lock is held to look and to book, never across a handshake. However many
//! connections want the same cold destination, as few handshakes run as there are tunnels needed.

mod drive;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    error::Failure,
    fair,
    follow::note,
    metrics::PoolResult,
    tunnel::{Dialer, Permit, Tunnel, TunnelKey},
};

/// How often a caller may find a tunnel full that it waited for. More than that, and the peer
/// allows no streams at all.
const MAX_ROUNDS: usize = 4;

/// What a handshake led to, once it did.
type Outcome = Option<Result<Arc<Tunnel>, Failure>>;

/// A pod's tunnels.
pub(crate) struct Pool {
    state: Arc<PoolState>,
}

/// The part that outlives single calls; drivers of tunnels hold it weakly.
pub(crate) struct PoolState {
    dialer: Dialer,
    slots: Mutex<HashMap<TunnelKey, Slot>>,
}

/// The tunnels of one key.
#[derive(Default)]
struct Slot {
    open: Vec<Arc<Tunnel>>,
    opening: Vec<Opening>,
}

/// A handshake that is running.
struct Opening {
    id: u64,
    outcome: watch::Receiver<Outcome>,
    /// Callers that will want a stream of it.
    waiting: usize,
}

/// What a look into the pool gives.
enum Found {
    Stream(Permit),
    Wait(watch::Receiver<Outcome>),
}

impl Pool {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self { state: Arc::new(PoolState { dialer, slots: Mutex::default() }) }
    }

    /// The right to a stream of a tunnel for `key` that was opened after `newer_than` (a tunnel's
    /// id; 0 for any). Opens a tunnel where none has room.
    pub(crate) async fn acquire(
        &self,
        key: &TunnelKey,
        newer_than: u64,
    ) -> Result<Permit, Failure> {
        for _ in 0..MAX_ROUNDS {
            let outcome = match self.state.look(key, newer_than) {
                Found::Stream(permit) => {
                    note("pool", || format!("hit: the tunnel to {}", key.address));
                    return Ok(permit);
                }
                Found::Wait(outcome) => outcome,
            };
            note("pool", || format!("miss: a tunnel to {} is waited for", key.address));
            let tunnel = wait_for(key, outcome).await?;
            if let Some(permit) = tunnel.reserve() {
                return Ok(permit);
            }
            // Asking again would only be refused again.
            if let Some(failure) = tunnel.refusal() {
                return Err(failure);
            }
        }
        Err(Failure::TunnelLost { to: key.address, detail: "the peer allows no streams".into() })
    }

    /// Forgets a tunnel that failed; its streams live on if they can.
    pub(crate) fn remove(&self, tunnel: &Tunnel) {
        self.state.remove(tunnel);
    }

    /// Closes tunnels without a stream.
    pub(crate) fn trim(&self) {
        for tunnel in self.tunnels() {
            self.state.remove_unused(&tunnel);
        }
    }

    /// The open tunnels, in the order of their ids.
    pub(crate) fn tunnels(&self) -> Vec<Arc<Tunnel>> {
        let slots = self.state.lock();
        let mut tunnels: Vec<_> = slots.values().flat_map(|slot| slot.open.clone()).collect();
        tunnels.sort_by_key(|tunnel| tunnel.id);
        tunnels
    }
}

/// Waits for a handshake that somebody may have started earlier.
async fn wait_for(
    key: &TunnelKey,
    mut outcome: watch::Receiver<Outcome>,
) -> Result<Arc<Tunnel>, Failure> {
    let gone =
        || Failure::TunnelLost { to: key.address, detail: "the pod is no longer served".into() };
    let outcome = outcome.wait_for(Option::is_some).await;
    let outcome = outcome.map_err(|_| gone())?;
    outcome.clone().unwrap_or_else(|| Err(gone()))
}

impl PoolState {
    fn lock(&self) -> MutexGuard<'_, HashMap<TunnelKey, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Books a stream, or a place in the queue of a handshake, starting one if need be.
    fn look(self: &Arc<Self>, key: &TunnelKey, newer_than: u64) -> Found {
        let shared = &self.dialer.shared;
        let mut slots = self.lock();
        // Looked up before it is inserted: the key of a hit need not be cloned.
        let slot = match slots.get_mut(key) {
            Some(slot) => slot,
            None => slots.entry(key.clone()).or_default(),
        };
        let newer = slot.open.iter().filter(|tunnel| tunnel.id > newer_than);
        if let Some(permit) = newer.into_iter().find_map(Tunnel::reserve) {
            shared.metrics.record_pool(PoolResult::Hit);
            return Found::Stream(permit);
        }
        let max_streams = shared.config.pool.max_streams;
        let joinable = slot.opening.iter_mut();
        if let Some(opening) = joinable.into_iter().find(|o| o.waiting < max_streams) {
            opening.waiting += 1;
            shared.metrics.record_pool(PoolResult::Joined);
            return Found::Wait(opening.outcome.clone());
        }
        shared.metrics.record_pool(PoolResult::Miss);
        Found::Wait(self.start(key, slot))
    }

    /// Starts a handshake in a task of its own, so that it outlives the caller that asked first.
    fn start(self: &Arc<Self>, key: &TunnelKey, slot: &mut Slot) -> watch::Receiver<Outcome> {
        let (sender, outcome) = watch::channel(None);
        let id = slot.opening.iter().map(|o| o.id).max().unwrap_or(0) + 1;
        slot.opening.push(Opening { id, outcome: outcome.clone(), waiting: 1 });
        let state = Arc::clone(self);
        let key = key.clone();
        let runtime = self.dialer.shared.runtime.clone();
        runtime.spawn(fair::inherit(async move { state.open(key, id, sender).await }));
        outcome
    }

    /// Opens a tunnel, publishes it and drives it to its end.
    async fn open(self: Arc<Self>, key: TunnelKey, id: u64, sender: watch::Sender<Outcome>) {
        let kill = self.dialer.kill.clone();
        let dialled = tokio::select! {
            dialled = self.dialer.dial(&key) => dialled,
            () = kill.cancelled() => Err(Failure::TunnelLost {
                to: key.address,
                detail: "the pod is no longer served".into(),
            }),
        };
        let (tunnel, connection) = match dialled {
            Ok((tunnel, connection)) => (Ok(tunnel), Some(connection)),
            Err(failure) => (Err(failure), None),
        };
        self.opened(&key, id, tunnel.as_ref().ok());
        let weak_tunnel = tunnel.as_ref().map(Arc::downgrade).unwrap_or_default();
        sender.send_replace(Some(tunnel));
        drop(sender);
        if let Some(connection) = connection {
            let shared = Arc::clone(&self.dialer.shared);
            let weak_pool = Arc::downgrade(&self);
            drop(self);
            drive::drive(connection, weak_tunnel, weak_pool, &shared, kill).await;
        }
    }

    /// Moves a handshake from `opening` to `open`, or away.
    fn opened(&self, key: &TunnelKey, id: u64, tunnel: Option<&Arc<Tunnel>>) {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(key) else {
            return;
        };
        slot.opening.retain(|opening| opening.id != id);
        slot.open.extend(tunnel.map(Arc::clone));
        if slot.is_empty() {
            slots.remove(key);
        }
    }

    /// Forgets a tunnel.
    fn remove(&self, tunnel: &Tunnel) {
        forget(&mut self.lock(), tunnel);
    }

    /// Forgets a tunnel unless somebody has just booked a stream of it.
    fn remove_unused(&self, tunnel: &Tunnel) -> bool {
        let mut slots = self.lock();
        let unused = tunnel.streams() == 0;
        if unused {
            forget(&mut slots, tunnel);
        }
        unused
    }
}

fn forget(slots: &mut HashMap<TunnelKey, Slot>, tunnel: &Tunnel) {
    if let Some(slot) = slots.get_mut(&tunnel.key) {
        slot.open.retain(|open| open.id != tunnel.id);
        if slot.is_empty() {
            slots.remove(&tunnel.key);
        }
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.opening.is_empty()
    }
}
