//! The idle connections of one pod, and those that are made before they are asked for.
//!
//! **Invariant**: the lock is held to look and to book, never across a handshake. What is handed
//! out was made with the certificate and the trust bundle in force, for exactly the identity that
//! is asked for, to a peer whose certificate is valid.

mod rate;
mod tend;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::dial::{DialError, Dialled, dial};
use crate::{
    metrics::Origin,
    tunnel::{Dialer, TunnelKey},
};
use rate::Rate;

/// After a failure, nothing is made in advance for this long.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Destinations that are remembered for not speaking the native wire.
const MAX_HBONE_ONLY: usize = 4096;

/// A pod's connections of the native wire.
pub(crate) struct Pool {
    state: Arc<PoolState>,
}

struct PoolState {
    dialer: Dialer,
    slots: Mutex<Slots>,
    /// Destinations to be reached over HBONE, and until when.
    hbone_only: Mutex<HashMap<TunnelKey, Instant>>,
    /// Somebody looks after the idle connections.
    tended: AtomicBool,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<TunnelKey, Slot>,
    /// Idle connections of all slots.
    idle: usize,
}

/// The connections to one destination that carry no session.
struct Slot {
    /// The one that was used last is at the end, and is used first.
    idle: Vec<Idle>,
    opens: Rate,
    /// Handshakes that run in advance.
    warming: usize,
    /// None is started before this moment.
    not_before: Instant,
}

struct Idle {
    dialled: Dialled,
    since: Instant,
    origin: Origin,
}

impl Pool {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self {
            state: Arc::new(PoolState {
                dialer,
                slots: Mutex::default(),
                hbone_only: Mutex::default(),
                tended: AtomicBool::new(false),
            }),
        }
    }

    /// A connection to `key`: an idle one, where there is one, else a fresh one.
    pub(crate) async fn take(&self, key: &TunnelKey) -> Result<(Dialled, Origin), DialError> {
        let taken = self.state.take_idle(key);
        self.state.warm(key);
        match taken {
            Some(Idle { dialled, origin, .. }) => Ok((dialled, origin)),
            None => self.fresh(key).await.map(|dialled| (dialled, Origin::Fresh)),
        }
    }

    /// A connection that nobody has used.
    pub(crate) async fn fresh(&self, key: &TunnelKey) -> Result<Dialled, DialError> {
        dial(&self.state.dialer, key).await
    }

    /// Keeps a connection whose session has ended for the next one.
    pub(crate) fn put_back(&self, key: &TunnelKey, dialled: Dialled) {
        self.state.put(key, dialled, Origin::Reused);
    }

    /// True where a destination was found to speak only HBONE, not long ago.
    pub(crate) fn is_hbone_only(&self, key: &TunnelKey) -> bool {
        let mut known = self.state.hbone_only();
        match known.get(key) {
            Some(until) if *until > Instant::now() => true,
            Some(_) => {
                known.remove(key);
                false
            }
            None => false,
        }
    }

    /// Remembers that a destination speaks only HBONE; true if that is new.
    pub(crate) fn remember_hbone_only(&self, key: &TunnelKey) -> bool {
        let now = Instant::now();
        let mut known = self.state.hbone_only();
        known.retain(|_, until| *until > now);
        if known.len() >= MAX_HBONE_ONLY {
            return false;
        }
        known.insert(key.clone(), now + self.state.dialer.shared.config.native.hbone_only).is_none()
    }

    /// Closes all idle connections.
    pub(crate) fn trim(&self) {
        let mut slots = self.state.lock();
        let idle: Vec<Idle> =
            slots.by_key.values_mut().flat_map(|slot| slot.idle.drain(..)).collect();
        slots.idle = 0;
        drop(slots);
        drop(idle);
    }

    /// Idle connections now.
    pub(crate) fn idle(&self) -> usize {
        self.state.lock().idle
    }
}

impl PoolState {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hbone_only(&self) -> MutexGuard<'_, HashMap<TunnelKey, Instant>> {
        self.hbone_only.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last connection that was left idle and can still be used; those that cannot are closed.
    fn take_idle(&self, key: &TunnelKey) -> Option<Idle> {
        let now = Instant::now();
        let mut slots = self.lock();
        let Slots { by_key, idle } = &mut *slots;
        let slot = match by_key.get_mut(key) {
            Some(slot) => slot,
            None => by_key.entry(key.clone()).or_insert_with(|| Slot::new(now)),
        };
        slot.opens.note(now);
        while let Some(mut found) = slot.idle.pop() {
            *idle -= 1;
            if found.is_usable(&self.dialer, key, now) {
                return Some(found);
            }
        }
        None
    }

    /// Keeps a connection, or closes it where there are enough.
    fn put(self: &Arc<Self>, key: &TunnelKey, dialled: Dialled, origin: Origin) {
        let now = Instant::now();
        let config = &self.dialer.shared.config.native;
        let mut found = Idle { dialled, since: now, origin };
        if self.dialer.stop.is_cancelled() || !found.is_usable(&self.dialer, key, now) {
            return;
        }
        let mut slots = self.lock();
        let Slots { by_key, idle } = &mut *slots;
        let slot = by_key.entry(key.clone()).or_insert_with(|| Slot::new(now));
        if config.max_idle == 0 || *idle >= config.max_idle_in_all {
            return;
        }
        *idle += 1;
        // What was used last is used first: so the others come of age.
        match origin {
            Origin::Prewarmed => slot.idle.insert(0, found),
            Origin::Fresh | Origin::Reused => slot.idle.push(found),
        }
        drop(slots);
        self.tend();
    }

    /// Makes as many connections in advance as the destination's rate asks for.
    fn warm(self: &Arc<Self>, key: &TunnelKey) {
        let now = Instant::now();
        let config = &self.dialer.shared.config.native;
        let missing = {
            let mut slots = self.lock();
            let Some(slot) = slots.by_key.get_mut(key) else { return };
            let wanted = slot.opens.ready(now, config.max_ready.min(config.max_idle));
            let missing = wanted.saturating_sub(slot.idle.len() + slot.warming);
            let trims = self.dialer.shared.overload.trims();
            if slot.not_before > now || trims || self.dialer.stop.is_cancelled() {
                return;
            }
            slot.warming += missing;
            missing
        };
        for _ in 0..missing {
            let (state, key) = (Arc::clone(self), key.clone());
            self.dialer
                .tasks
                .spawn_on(async move { state.warm_one(&key).await }, &self.dialer.shared.runtime);
        }
    }

    async fn warm_one(self: &Arc<Self>, key: &TunnelKey) {
        let dialled = tokio::select! {
            dialled = dial(&self.dialer, key) => dialled.ok(),
            () = self.dialer.kill.cancelled() => None,
            () = self.dialer.stop.cancelled() => None,
        };
        if let Some(slot) = self.lock().by_key.get_mut(key) {
            slot.warming = slot.warming.saturating_sub(1);
            if dialled.is_none() {
                slot.not_before = Instant::now() + AFTER_FAILURE;
            }
        }
        if let Some(dialled) = dialled {
            self.put(key, dialled, Origin::Prewarmed);
        }
    }
}

impl Slot {
    fn new(now: Instant) -> Self {
        Self { idle: Vec::new(), opens: Rate::new(now), warming: 0, not_before: now }
    }
}

impl Idle {
    fn is_usable(&mut self, dialer: &Dialer, key: &TunnelKey, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < dialer.shared.config.native.idle
            && self.dialled.remains.proof.holds(dialer, key)
            && self.dialled.connection.is_quiet()
    }
}

impl PoolState {
    /// Starts to look after the idle connections, unless somebody does.
    fn tend(self: &Arc<Self>) {
        if !self.tended.swap(true, Ordering::AcqRel) {
            let state = Arc::downgrade(self);
            self.dialer.shared.runtime.spawn(tend::tend(state, self.dialer.clone()));
        }
    }
}
