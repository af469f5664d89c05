//! Closes idle connections that must not, or need not, be kept.

use std::{
    sync::{Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{PoolState, Slots};
use crate::tunnel::Dialer;

/// Longest time between two looks: a peer that has closed is noticed by then.
const LONGEST_TICK: Duration = Duration::from_secs(1);
/// Shortest time between two looks.
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// Looks after a pool until there is nothing to look after: connections idle for too long, closed
/// by the peer, made with a certificate that was replaced, or of a pod that is no longer served.
pub(super) async fn tend(state: Weak<PoolState>, dialer: Dialer) {
    let config = &dialer.shared.config.native;
    let tick = (config.idle.min(config.surplus) / 4).clamp(SHORTEST_TICK, LONGEST_TICK);
    let mut certificates = dialer.shared.identities.subscribe();
    loop {
        let stopped = tokio::select! {
            () = tokio::time::sleep(tick) => false,
            _ = certificates.changed() => false,
            () = dialer.stop.cancelled() => true,
            () = dialer.kill.cancelled() => true,
        };
        let Some(state) = state.upgrade() else { return };
        if state.sweep(&dialer, stopped) {
            return;
        }
    }
}

impl PoolState {
    /// Closes what is of no use, or everything; true when nothing is left.
    fn sweep(&self, dialer: &Dialer, everything: bool) -> bool {
        let now = Instant::now();
        let mut slots = self.lock();
        let Slots { by_key, idle } = &mut *slots;
        let config = &dialer.shared.config.native;
        for (key, slot) in by_key.iter_mut() {
            // What has been idle for longest comes first.
            let mut surplus = slot.idle.len().saturating_sub(config.max_idle);
            slot.idle.retain_mut(|found| {
                let one_too_many = surplus > 0;
                surplus = surplus.saturating_sub(1);
                let late =
                    one_too_many && now.saturating_duration_since(found.since) >= config.surplus;
                !everything && !late && found.is_usable(dialer, key, now)
            });
        }
        by_key.retain(|_, slot| {
            !slot.idle.is_empty() || slot.warming > 0 || !slot.opens.is_forgotten(now)
        });
        *idle = by_key.values().map(|slot| slot.idle.len()).sum();
        let done = everything || by_key.is_empty();
        if done {
            // Under the lock: whoever puts a connection back afterwards starts anew.
            self.tended.store(false, Ordering::Release);
        }
        done
    }
}
