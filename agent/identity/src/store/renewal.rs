//! Keeps certificates fresh: issues, renews well before expiry, follows the bundle and the issuer.
//!
//! Replacing a certificate touches no connection: configurations are made anew for new
//! handshakes, and those that are established keep theirs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::sync::watch;
use undermesh_model::SpiffeId;

use super::{Entry, IdentityStore, trust};
use crate::Svid;

/// Delay after the first failure; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);

impl IdentityStore {
    /// Runs until `shutdown` says so.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        loop {
            self.follow_authority();
            for id in self.due() {
                self.issue(&id).await;
            }
            tokio::select! {
                () = tokio::time::sleep(self.config.poll) => {}
                () = self.wanted_changed.notified() => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// One round of what [`IdentityStore::run`] does, for tests that move the clock themselves.
    #[cfg(test)]
    pub(super) async fn round(&self) {
        self.follow_authority();
        for id in self.due() {
            self.issue(&id).await;
        }
    }

    /// Takes over a changed trust bundle, and renews everything under a changed issuer.
    pub(super) fn follow_authority(&self) {
        match self.authority.roots() {
            Ok(roots) => {
                let mut state = self.lock();
                if roots != state.roots {
                    tracing::info!(roots = roots.len(), "the trust bundle has changed");
                    state.trust = Arc::new(trust(&roots, &self.config));
                    state.roots = roots;
                    state.clients = HashMap::new();
                    state.servers = HashMap::new();
                    drop(state);
                    self.changed();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the trust bundle; keeping the old one");
            }
        }
        match self.authority.issuer() {
            Ok(issuer) => {
                let mut state = self.lock();
                if issuer != state.issuer {
                    tracing::info!(
                        "the issuing certificate has changed; renewing all certificates"
                    );
                    state.issuer = issuer;
                    for entry in state.entries.values_mut() {
                        entry.due = None;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read the issuing certificate"),
        }
    }

    fn due(&self) -> Vec<SpiffeId> {
        let now = self.config.clock.now();
        let state = self.lock();
        let due = |entry: &Entry| entry.due.is_none_or(|due| due <= now);
        state.entries.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| id.clone()).collect()
    }

    async fn issue(&self, id: &SpiffeId) {
        let result = self.authority.sign(id, self.config.lifetime).await;
        let now = self.config.clock.now();
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(id) else { return };
        match result {
            Ok(svid) => {
                entry.due = Some(self.renewal_time(&svid, now));
                entry.failures = 0;
                entry.last_error = None;
                tracing::info!(%id, serial = svid.serial(), not_after = %svid.not_after(), "certificate issued");
                entry.svid = Some(Arc::new(svid));
                state.servers.remove(id);
                state.clients.retain(|(source, _), _| source != id);
                drop(state);
                self.changed();
            }
            Err(error) => {
                // Short-lived certificates cannot wait as long as others.
                let last = LAST_RETRY.min(self.config.lifetime / 20).max(FIRST_RETRY);
                let delay = FIRST_RETRY.saturating_mul(1 << entry.failures.min(10)).min(last);
                entry.due = Some(now + delay);
                entry.failures += 1;
                entry.last_error = Some(error.to_string());
                tracing::warn!(%id, %error, retry_in = ?delay, "cannot issue a certificate");
            }
        }
    }

    /// After the configured share of the lifetime, less up to a tenth of it, so that a node's
    /// certificates do not all fall due at once. The serial number is the source of chance.
    fn renewal_time(&self, svid: &Svid, now: OffsetDateTime) -> OffsetDateTime {
        let lifetime = svid.not_after() - now;
        let digits = svid.serial().get(2..6).unwrap_or("0");
        let chance = f64::from(u16::from_str_radix(digits, 16).unwrap_or(0)) / 65_536.0;
        now + lifetime * (self.config.renew_after * (1.0 - 0.1 * chance))
    }
}
