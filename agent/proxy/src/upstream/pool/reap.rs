//! Closes connections that have nothing to do.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{Dead, Pool, Rules};

/// Servers close connections in the meantime.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Pool {
    /// Sees to it that somebody looks after idle connections, by `ends` at the latest.
    pub(super) fn watch_idle(self: &Arc<Self>, ends: Option<Instant>) {
        // What is dropped when the agent ends may be dropped outside of the runtime.
        let Ok(runtime) = Handle::try_current() else { return };
        let latest = Instant::now() + LONGEST_SLEEP;
        let ends = ends.map_or(latest, |ends| ends.min(latest));
        let mut state = self.lock();
        let planned = state.reaping;
        if planned.is_some_and(|planned| planned <= ends) {
            return;
        }
        state.reaping = Some(ends);
        drop(state);
        match planned {
            Some(_) => self.earlier.notify_one(),
            None => {
                drop(runtime.spawn(look_after(Arc::downgrade(self), self.terms.rules.subscribe())));
            }
        }
    }

    /// Closes what has had its time. When to look again; `None` once there is nothing to look after.
    fn reap(&self) -> Option<Instant> {
        let rules = self.terms.rules();
        let now = Instant::now();
        let mut state = self.lock();
        let idle = state.idle.extract_if(.., |one| !one.is_usable(&rules, now)).collect();
        let over = state.multiplexed.extract_if(.., |one| one.is_done(&rules, now));
        let multiplexed = over.collect();
        let ends = state.idle.iter().filter_map(|one| one.ends(&rules));
        let ends = ends.chain(state.multiplexed.iter().filter_map(|one| one.ends(&rules)));
        let next = ends.chain([now + LONGEST_SLEEP]).min();
        let next = next.filter(|_| !state.idle.is_empty() || !state.multiplexed.is_empty());
        state.reaping = next;
        drop(state);
        drop(Dead { idle, multiplexed });
        next
    }
}

/// Looks when something is to be closed, when that turns out to be earlier, and under new rules.
async fn look_after(pool: Weak<Pool>, mut rules: watch::Receiver<Rules>) {
    loop {
        let Some((next, earlier)) = pool.upgrade().and_then(|pool| {
            let next = pool.reap()?;
            Some((next, Arc::clone(&pool.earlier)))
        }) else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = earlier.notified() => {}
            changed = rules.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
