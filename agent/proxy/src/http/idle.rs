//! Connections of HTTP/2 on which nobody asks for anything. hyper has a clock for those of HTTP/1 alone.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How long a client that was told to leave may take.
pub(crate) const FAREWELL: Duration = Duration::from_secs(5);

/// The requests of one connection that are under way.
#[derive(Debug)]
pub(crate) struct Streams(Mutex<Use>);

#[derive(Debug)]
struct Use {
    open: usize,
    /// When it was last used; now, while a request is under way.
    last: Instant,
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Open(Arc<Streams>);

impl Default for Streams {
    fn default() -> Self {
        Self(Mutex::new(Use { open: 0, last: Instant::now() }))
    }
}

impl Streams {
    /// Another request, for as long as what is returned lives.
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.lock().open += 1;
        Open(Arc::clone(self))
    }

    /// Returns when there has been no request for so long, counted from now at the earliest; never where the limit
    /// is zero.
    pub(crate) async fn idle(&self, limit: Duration) {
        if limit.is_zero() {
            return std::future::pending().await;
        }
        let mut until = Instant::now() + limit;
        loop {
            sleep_until(until).await;
            let now = Instant::now();
            let last = {
                let used = self.lock();
                if used.open > 0 { now } else { used.last }
            };
            if last + limit <= now {
                return;
            }
            until = until.max(last + limit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Use> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut used = self.0.lock();
        used.open -= 1;
        used.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_since_its_last_request_has_ended() {
        let streams = Arc::new(Streams::default());
        let started = Instant::now();
        let using = Arc::clone(&streams);
        tokio::spawn(async move {
            let first = using.open();
            sleep(25 * SECOND).await;
            let second = using.open();
            drop(first);
            sleep(10 * SECOND).await;
            drop(second);
        });
        streams.idle(10 * SECOND).await;
        assert_eq!(started.elapsed().as_secs(), 45);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_no_connection_is_idle() {
        let streams = Streams::default();
        assert!(timeout(100_000 * SECOND, streams.idle(Duration::ZERO)).await.is_err());
    }
}
