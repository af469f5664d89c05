//! Closes connections that have nothing to do.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Dead, Pool};

impl Pool {
    /// Starts to look after idle connections, unless somebody does already.
    pub(super) fn watch_idle(self: &Arc<Self>) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.reaping, true) {
            return;
        }
        drop(state);
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(next) = pool.upgrade().and_then(|pool| pool.reap()) {
                tokio::time::sleep_until(next).await;
            }
        });
    }

    /// Closes what has had its time. When to look again; `None` where nothing will end by itself.
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
        let next = ends.min();
        state.reaping = next.is_some();
        drop(state);
        drop(Dead { idle, multiplexed });
        next
    }
}
