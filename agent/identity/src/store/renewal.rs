//! Keeps certificates fresh: issues, renews well before expiry, follows the bundle and the issuer.
//!
//! Replacing a certificate touches no connection: configurations are made anew for new
//! handshakes, and those that are established keep theirs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::sync::watch;
use undermesh_model::SpiffeId;

use super::{Entry, IdentityStore, trust};
use crate::{AuthorityError, Svid};

/// Delay after the first failure; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Share of a delay that chance may take away.
const SPREAD: f64 = 0.2;
/// Shares of a certificate's life at which it is complained about that it was not renewed, in percent.
const HALF: i64 = 50;
const OVERDUE: [i64; 3] = [HALF, 80, 100];

impl IdentityStore {
    /// Runs until `shutdown` says so.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let rounds = async {
            loop {
                self.round().await;
                tokio::select! {
                    () = tokio::time::sleep(self.config.poll) => {}
                    () = self.wanted_changed.notified() => {}
                }
            }
        };
        tokio::select! {
            () = rounds => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }

    /// Looks at everything once and does what is due.
    pub(crate) async fn round(&self) {
        self.follow_authority();
        for id in self.due() {
            self.issue(&id).await;
        }
        self.complain();
    }

    /// Says once at each of these shares of its life that a certificate is not being renewed.
    fn complain(&self) {
        let now = self.now();
        let mut state = self.lock();
        for (id, entry) in &mut state.entries {
            let (Some(percent), Some(error)) = (entry.life_percent(now), &entry.last_error) else {
                continue;
            };
            let Some(reached) = OVERDUE.into_iter().rfind(|share| *share <= percent) else {
                continue;
            };
            if reached <= entry.reported {
                continue;
            }
            entry.reported = reached;
            if reached == HALF {
                tracing::warn!(%id, percent, error, "a certificate is overdue for renewal");
            } else {
                tracing::error!(%id, percent, error, "a certificate ends soon and is not renewed");
            }
        }
    }

    /// Takes over a changed trust bundle, and renews everything under a changed issuer. What
    /// cannot be read changes nothing, and is logged when it begins and when it is another thing.
    pub(super) fn follow_authority(&self) {
        let (bundle, issuer) = (self.follow_bundle(), self.follow_issuer());
        let complaint = bundle.and(issuer).err().map(|error| error.to_string());
        let mut state = self.lock();
        if state.complaint == complaint {
            return;
        }
        if let Some(error) = &complaint {
            tracing::warn!(%error, "cannot follow the authority; keeping what it said before");
        } else {
            tracing::info!("the authority can be followed again");
        }
        state.complaint = complaint;
    }

    fn follow_bundle(&self) -> Result<(), AuthorityError> {
        let roots = self.authority.roots()?;
        let mut state = self.lock();
        if roots == state.roots {
            return Ok(());
        }
        state.trust = Arc::new(trust(&roots, &self.config)?);
        tracing::info!(roots = roots.len(), "the trust bundle has changed");
        state.roots = roots;
        state.clients = HashMap::new();
        state.outside = HashMap::new();
        state.servers = HashMap::new();
        drop(state);
        self.changed();
        Ok(())
    }

    fn follow_issuer(&self) -> Result<(), AuthorityError> {
        let issuer = self.authority.issuer()?;
        let mut state = self.lock();
        if issuer != state.issuer {
            tracing::info!("the issuing certificate has changed; renewing all certificates");
            state.issuer = issuer;
            for entry in state.entries.values_mut() {
                entry.due = None;
            }
        }
        Ok(())
    }

    fn due(&self) -> Vec<SpiffeId> {
        let now = self.config.clock.now();
        let state = self.lock();
        let due = |entry: &Entry| entry.due.is_none_or(|due| due <= now);
        state.entries.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| id.clone()).collect()
    }

    async fn issue(&self, id: &SpiffeId) {
        let patience = self.config.sign_timeout;
        let signed = self.authority.sign(id, self.config.lifetime);
        let result = tokio::time::timeout(patience, signed).await.unwrap_or_else(|_| {
            let reason = format!("the authority has not answered within {patience:?}");
            Err(AuthorityError::Issue { subject: id.to_string(), reason })
        });
        let now = self.config.clock.now();
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(id) else { return };
        match result {
            Ok(svid) => {
                entry.due = Some(self.renewal_time(&svid, now));
                entry.failures = 0;
                entry.last_error = None;
                entry.since = Some(now);
                entry.reported = 0;
                tracing::info!(%id, serial = svid.serial(), not_after = %svid.not_after(), "certificate issued");
                entry.svid = Some(Arc::new(svid));
                state.servers.retain(|(workload, _), _| workload != id);
                state.clients.retain(|(source, ..), _| source != id);
                state.outside.retain(|(source, ..), _| source != id);
                drop(state);
                self.changed();
            }
            Err(error) => {
                // Short-lived certificates cannot wait as long as others.
                let last = LAST_RETRY.min(self.config.lifetime / 20).max(FIRST_RETRY);
                let delay = FIRST_RETRY.saturating_mul(1 << entry.failures.min(10)).min(last);
                // Not everybody at once, after an authority was away.
                let delay = delay.mul_f64(1.0 - SPREAD * chance());
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

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    // Without entropy there is no certificate either.
    let _ = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes);
    f64::from(u16::from_be_bytes(bytes)) / 65_536.0
}
