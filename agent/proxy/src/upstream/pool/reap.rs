//! Closes connections that have nothing to do.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::Instant};

use super::{Dead, Pool};

/// Rules can change, and servers close connections, in the meantime.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Pool {
    /// Starts to look after idle connections, unless somebody does already.
    pub(super) fn watch_idle(self: &Arc<Self>) {
        // What is dropped when the agent ends may be dropped outside of the runtime.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.lock();
        if std::mem::replace(&mut state.reaping, true) {
            return;
        }
        drop(state);
        let pool = Arc::downgrade(self);
        runtime.spawn(async move {
            while let Some(next) = pool.upgrade().and_then(|pool| pool.reap()) {
                tokio::time::sleep_until(next).await;
            }
        });
    }

    /// Closes what has had its time. When to look again; `None` once there is nothing to look after.
    fn reap(&self) -> Option<Instant> {
        let rules = self.terms.rules();
        let now = Instant::now();
        let is_over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        let mut state = self.lock();
        let over = state.idle.extract_if(.., |one| one.is_closed() || is_over(one.ends(&rules)));
        let idle = over.collect();
        let over = state.multiplexed.extract_if(.., |one| one.is_done(&rules, now));
        let multiplexed = over.collect();
        let ends = state.idle.iter().filter_map(|one| one.ends(&rules));
        let ends = ends.chain(state.multiplexed.iter().filter_map(|one| one.ends(&rules)));
        let next = ends.chain([now + LONGEST_SLEEP]).min();
        let next = next.filter(|_| !state.idle.is_empty() || !state.multiplexed.is_empty());
        state.reaping = next.is_some();
        drop(state);
        drop(Dead { idle, multiplexed });
        next
    }
}
