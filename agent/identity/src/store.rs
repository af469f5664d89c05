//! The certificates in use on this node, kept fresh, and the TLS configurations made from them.

mod renewal;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::CertificateDer};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::{Notify, watch};
use undermesh_model::{SpiffeId, TrustDomain};

use crate::{
    AuthorityError, CertificateAuthority, Clock, StoreError, Svid, SystemClock,
    tls::{self, Trust},
};

/// How certificates are looked after.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// Trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// Lifetime asked for.
    pub lifetime: Duration,
    /// Share of the lifetime after which a certificate is renewed, between 0 and 1.
    pub renew_after: f64,
    /// How often the trust bundle and the issuer are looked at.
    pub poll: Duration,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            lifetime: Duration::from_secs(24 * 3600),
            renew_after: 0.5,
            poll: Duration::from_millis(500),
            clock: Arc::new(SystemClock),
        }
    }
}

/// The node's certificates. Shared as an `Arc`.
pub struct IdentityStore {
    authority: Arc<dyn CertificateAuthority>,
    config: IdentityConfig,
    state: Mutex<State>,
    wanted_changed: Notify,
    generation: watch::Sender<u64>,
}

struct State {
    wanted: BTreeSet<SpiffeId>,
    entries: BTreeMap<SpiffeId, Entry>,
    roots: Vec<CertificateDer<'static>>,
    trust: Arc<Trust>,
    issuer: Vec<u8>,
    clients: HashMap<(SpiffeId, Vec<SpiffeId>), Arc<ClientConfig>>,
    servers: HashMap<SpiffeId, Arc<ServerConfig>>,
}

/// What is known of one identity.
#[derive(Default)]
struct Entry {
    svid: Option<Arc<Svid>>,
    /// When to try (again); `None` means now.
    due: Option<OffsetDateTime>,
    failures: u32,
    last_error: Option<String>,
}

/// One certificate, for status pages.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Whose it is.
    pub id: SpiffeId,
    /// Serial number; empty while there is none.
    pub serial: String,
    /// End of validity, RFC 3339; empty while there is none.
    pub not_after: String,
    /// Seconds until then; negative afterwards, 0 while there is none.
    pub expires_in_seconds: i64,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
}

impl IdentityStore {
    /// A store without certificates. It needs [`IdentityStore::run`] to get any.
    ///
    /// # Errors
    /// Where the trust bundle cannot be read.
    pub fn new(
        authority: Arc<dyn CertificateAuthority>,
        config: IdentityConfig,
    ) -> Result<Arc<Self>, AuthorityError> {
        let roots = authority.roots()?;
        let issuer = authority.issuer()?;
        let trust = Arc::new(trust(&roots, &config));
        let state = State {
            wanted: BTreeSet::new(),
            entries: BTreeMap::new(),
            roots,
            trust,
            issuer,
            clients: HashMap::new(),
            servers: HashMap::new(),
        };
        Ok(Arc::new(Self {
            authority,
            config,
            state: Mutex::new(state),
            wanted_changed: Notify::new(),
            generation: watch::Sender::new(1),
        }))
    }

    /// Says which identities are in use. New ones are issued at once, others are forgotten.
    pub fn set_wanted(&self, wanted: BTreeSet<SpiffeId>) {
        let mut state = self.lock();
        if state.wanted == wanted {
            return;
        }
        state.entries.retain(|id, _| wanted.contains(id));
        state.servers.retain(|id, _| wanted.contains(id));
        state.clients.retain(|(id, _), _| wanted.contains(id));
        for id in &wanted {
            state.entries.entry(id.clone()).or_default();
        }
        state.wanted = wanted;
        drop(state);
        self.wanted_changed.notify_one();
    }

    /// Waits until `id` has a certificate. Never returns for an identity that nobody wants, so
    /// the caller sets a deadline.
    pub async fn ready(&self, id: &SpiffeId) {
        let mut generation = self.generation.subscribe();
        loop {
            generation.borrow_and_update();
            if self.svid(id).is_ok() || generation.changed().await.is_err() {
                return;
            }
        }
    }

    /// The configuration of a client that is `source` and talks to one of `expected` only.
    ///
    /// # Errors
    /// Where `source` has no valid certificate.
    pub fn client_config(
        &self,
        source: &SpiffeId,
        expected: &[SpiffeId],
    ) -> Result<Arc<ClientConfig>, StoreError> {
        let svid = self.svid(source)?;
        let key = (source.clone(), expected.to_vec());
        let mut state = self.lock();
        if let Some(config) = state.clients.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = state
            .trust
            .client(&svid, expected)
            .map_err(|error| StoreError::Tls(source.clone(), error.to_string()))?;
        let config = Arc::new(config);
        state.clients.insert(key, Arc::clone(&config));
        Ok(config)
    }

    /// The configuration of a server that is `workload`.
    ///
    /// # Errors
    /// Where it has no valid certificate.
    pub fn server_config(&self, workload: &SpiffeId) -> Result<Arc<ServerConfig>, StoreError> {
        let svid = self.svid(workload)?;
        let mut state = self.lock();
        if let Some(config) = state.servers.get(workload) {
            return Ok(Arc::clone(config));
        }
        let config = state
            .trust
            .server(&svid)
            .map_err(|error| StoreError::Tls(workload.clone(), error.to_string()))?;
        let config = Arc::new(config);
        state.servers.insert(workload.clone(), Arc::clone(&config));
        Ok(config)
    }

    /// The current certificate of an identity, if it is valid now.
    fn svid(&self, id: &SpiffeId) -> Result<Arc<Svid>, StoreError> {
        let state = self.lock();
        let entry = state.entries.get(id);
        let last_error = entry.and_then(|entry| entry.last_error.clone());
        match entry.and_then(|entry| entry.svid.clone()) {
            None => Err(StoreError::NoCertificate(id.clone(), last_error)),
            Some(svid) if svid.not_after() <= self.config.clock.now() => {
                Err(StoreError::Expired(id.clone(), last_error))
            }
            Some(svid) => Ok(svid),
        }
    }

    /// Time as this store sees it.
    pub fn now(&self) -> OffsetDateTime {
        self.config.clock.now()
    }

    /// Every identity in use.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let now = self.config.clock.now();
        let status = |(id, entry): (&SpiffeId, &Entry)| {
            let svid = entry.svid.as_ref();
            let not_after = svid.map(|svid| svid.not_after());
            CertificateStatus {
                id: id.clone(),
                serial: svid.map(|svid| svid.serial().to_owned()).unwrap_or_default(),
                not_after: not_after.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
                expires_in_seconds: not_after.map_or(0, |at| (at - now).whole_seconds()),
                last_error: entry.last_error.clone(),
            }
        };
        self.lock().entries.iter().map(status).collect()
    }

    /// How many roots are trusted.
    pub fn root_count(&self) -> usize {
        self.lock().roots.len()
    }

    /// Changes whenever a certificate or the trust bundle does.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The number that [`IdentityStore::subscribe`] watches.
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    fn changed(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for IdentityStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityStore")
            .field("certificates", &self.certificates())
            .finish_non_exhaustive()
    }
}

fn trust(roots: &[CertificateDer<'static>], config: &IdentityConfig) -> Trust {
    let mut store = RootCertStore::empty();
    let (_, refused) = store.add_parsable_certificates(roots.iter().cloned());
    if refused > 0 {
        tracing::warn!(refused, "the trust bundle holds certificates that cannot be trust anchors");
    }
    Trust {
        roots: Arc::new(store),
        provider: tls::provider(),
        trust_domain: config.trust_domain.clone(),
        clock: Arc::clone(&config.clock),
    }
}

#[cfg(test)]
mod tests;
