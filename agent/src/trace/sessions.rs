//! Traces that are asked for: few at a time, and each for a limited time. Nothing is kept of connections that nobody asks
//! for, nor of any once its time is over.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use undermesh_proxy::Follower;

use super::{
    probe::{Probe, Probed},
    question::Asked,
};
use crate::explain::report::Rule;

/// Traces at a time.
const MAX_SESSIONS: usize = 4;
/// How long what was found can still be asked for after its time.
const LINGER: Duration = Duration::from_secs(5);

/// All that are asked for.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<List>);

#[derive(Default)]
struct List {
    last: u64,
    open: Vec<Arc<Session>>,
}

/// One trace.
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) asked: Asked,
    /// What it dials, where that matters.
    pub(super) to: Option<SocketAddr>,
    pub(super) deadline: Instant,
    /// Flow records from this number on.
    pub(super) after: u64,
    /// What the proxy notes.
    pub(super) follower: Arc<Follower>,
    probed: Mutex<Option<Probed>>,
    /// Rules that have a say in it: whoever asks again and again is not explained them each time.
    pub(super) rules: OnceLock<Vec<Rule>>,
}

impl Session {
    /// How the probe went, once it has ended.
    pub(super) fn probed(&self) -> Option<Probed> {
        lock(&self.probed).clone()
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

impl Sessions {
    /// Begins one; it ends by itself. Has to be called on a runtime.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn begin(
        self: &Arc<Self>,
        asked: Asked,
        to: Option<SocketAddr>,
        after: u64,
        follower: Arc<Follower>,
    ) -> Result<Arc<Session>> {
        let mut list = lock(&self.0);
        if list.open.len() >= MAX_SESSIONS {
            bail!("{MAX_SESSIONS} traces are running already; wait until one of them has ended");
        }
        list.last += 1;
        let (id, timeout) = (list.last, asked.timeout);
        let deadline = Instant::now() + timeout;
        let (probed, rules) = (Mutex::default(), OnceLock::new());
        let session = Session { id, asked, to, deadline, after, follower, probed, rules };
        let session = Arc::new(session);
        list.open.push(Arc::clone(&session));
        drop(list);
        let sessions = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(timeout + LINGER).await;
            sessions.end(id);
        });
        Ok(session)
    }

    pub(super) fn find(&self, id: u64) -> Option<Arc<Session>> {
        lock(&self.0).open.iter().find(|session| session.id == id).cloned()
    }

    /// Lets go of one, and of all that was noted for it.
    pub(super) fn end(&self, id: u64) {
        lock(&self.0).open.retain(|session| session.id != id);
    }
}

/// Sends a session's probe, beside whoever asks.
pub(super) fn send(session: &Arc<Session>, probe: Probe) {
    let session = Arc::clone(session);
    tokio::task::spawn_blocking(move || {
        let probed = probe.run();
        *lock(&session.probed) = Some(probed);
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
