//! The certificates in use on this node, kept fresh, and the TLS configurations made from them.

mod renewal;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::CertificateDer};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use undermesh_model::{SpiffeId, TrustDomain, Wire};

use crate::{
    AuthorityError, CertificateAuthority, Clock, Protocols, StoreError, Svid, SystemClock,
    tls::{self, Trust},
};

pub use self::status::{CertificateState, CertificateStatus};

/// Client configurations that are kept. They are cheap to make again, so that all are dropped when
/// there are more: pairs of identities that no longer talk must not add up.
const MAX_CLIENTS: usize = 8192;

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
    /// An authority that has not answered by then counts as failed, so that one identity cannot
    /// keep all others waiting.
    pub sign_timeout: Duration,
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
            sign_timeout: Duration::from_secs(10),
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
    /// Why the authority could last not be followed, so that it is logged once.
    complaint: Option<String>,
    clients: HashMap<(SpiffeId, Vec<SpiffeId>, Wire), Arc<ClientConfig>>,
    /// Of clients that speak to whoever is not enrolled and has a certificate of the mesh all the same.
    outside: HashMap<(SpiffeId, Vec<String>, Protocols), Arc<ClientConfig>>,
    servers: HashMap<(SpiffeId, Wire), Arc<ServerConfig>>,
}

/// What is known of one identity.
#[derive(Default)]
struct Entry {
    svid: Option<Arc<Svid>>,
    /// When to try (again); `None` means now.
    due: Option<OffsetDateTime>,
    failures: u32,
    last_error: Option<String>,
    /// When the certificate came.
    since: Option<OffsetDateTime>,
    /// The share of its life at which it was last complained about.
    reported: i64,
}

impl Entry {
    /// How much of the time is over that the certificate was good for when it came, in percent.
    fn life_percent(&self, now: OffsetDateTime) -> Option<i64> {
        let (svid, since) = (self.svid.as_ref()?, self.since?);
        let whole = (svid.not_after() - since).whole_milliseconds().max(1);
        i64::try_from((now - since).whole_milliseconds().saturating_mul(100) / whole).ok()
    }
}

impl State {
    /// The current certificate of an identity, if it is valid at `now`.
    fn svid(&self, id: &SpiffeId, now: OffsetDateTime) -> Result<Arc<Svid>, StoreError> {
        let entry = self.entries.get(id);
        let last_error = entry.and_then(|entry| entry.last_error.clone());
        match entry.and_then(|entry| entry.svid.as_ref()) {
            None => Err(StoreError::NoCertificate(id.clone(), last_error)),
            Some(svid) if svid.is_over(now) => Err(StoreError::Expired(id.clone(), last_error)),
            Some(svid) => Ok(Arc::clone(svid)),
        }
    }
}

impl IdentityStore {
    /// A store without certificates. It needs [`IdentityStore::run`] to get any.
    ///
    /// # Errors
    /// Where the trust bundle cannot be read, or holds no root that can be used.
    pub fn new(
        authority: Arc<dyn CertificateAuthority>,
        config: IdentityConfig,
    ) -> Result<Arc<Self>, AuthorityError> {
        let roots = authority.roots()?;
        let issuer = authority.issuer()?;
        let trust = Arc::new(trust(&roots, &config)?);
        let state = State {
            wanted: BTreeSet::new(),
            entries: BTreeMap::new(),
            roots,
            trust,
            issuer,
            complaint: None,
            clients: HashMap::new(),
            outside: HashMap::new(),
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
        state.servers.retain(|(id, _), _| wanted.contains(id));
        state.clients.retain(|(id, ..), _| wanted.contains(id));
        state.outside.retain(|(id, ..), _| wanted.contains(id));
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
            let found = self.lock().svid(id, self.now()).is_ok();
            if found || generation.changed().await.is_err() {
                return;
            }
        }
    }

    /// The configuration of a client that is `source` and speaks `wire` to one of `expected` only.
    ///
    /// # Errors
    /// Where `source` has no valid certificate.
    pub fn client_config(
        &self,
        source: &SpiffeId,
        expected: &[SpiffeId],
        wire: Wire,
    ) -> Result<Arc<ClientConfig>, StoreError> {
        let key = (source.clone(), expected.to_vec(), wire);
        // One lock from the certificate to the cache: a configuration with a certificate that has
        // been replaced in between must not be kept.
        let mut state = self.lock();
        let svid = state.svid(source, self.now())?;
        if let Some(config) = state.clients.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = state
            .trust
            .client(&svid, expected, wire)
            .map_err(|error| StoreError::Tls(source.clone(), error.to_string()))?;
        let config = Arc::new(config);
        if state.clients.len() >= MAX_CLIENTS {
            state.clients = HashMap::new();
        }
        state.clients.insert(key, Arc::clone(&config));
        Ok(config)
    }

    /// The configuration of a client that is `source`, offers `alpn`, and speaks to servers outside the
    /// mesh's own wires that have a certificate of the mesh for one of `names`.
    ///
    /// # Errors
    /// Where `source` has no valid certificate.
    pub fn outside_config(
        &self,
        source: &SpiffeId,
        names: &[String],
        alpn: Protocols,
    ) -> Result<Arc<ClientConfig>, StoreError> {
        let key = (source.clone(), names.to_vec(), alpn);
        let mut state = self.lock();
        let svid = state.svid(source, self.now())?;
        if let Some(config) = state.outside.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = state
            .trust
            .outside(&svid, names, alpn)
            .map_err(|error| StoreError::Tls(source.clone(), error.to_string()))?;
        let config = Arc::new(config);
        if state.outside.len() >= MAX_CLIENTS {
            state.outside = HashMap::new();
        }
        state.outside.insert(key, Arc::clone(&config));
        Ok(config)
    }

    /// The configuration of a server that is `workload` and speaks `wire`.
    ///
    /// # Errors
    /// Where it has no valid certificate.
    pub fn server_config(
        &self,
        workload: &SpiffeId,
        wire: Wire,
    ) -> Result<Arc<ServerConfig>, StoreError> {
        let mut state = self.lock();
        let svid = state.svid(workload, self.now())?;
        let key = (workload.clone(), wire);
        if let Some(config) = state.servers.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = state
            .trust
            .server(&svid, wire)
            .map_err(|error| StoreError::Tls(workload.clone(), error.to_string()))?;
        let config = Arc::new(config);
        state.servers.insert(key, Arc::clone(&config));
        Ok(config)
    }

    /// Time as this store sees it.
    pub fn now(&self) -> OffsetDateTime {
        self.config.clock.now()
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

/// A bundle without any usable root is an error: to take it over would cut the node off.
fn trust(
    roots: &[CertificateDer<'static>],
    config: &IdentityConfig,
) -> Result<Trust, AuthorityError> {
    let mut store = RootCertStore::empty();
    let (_, refused) = store.add_parsable_certificates(roots.iter().cloned());
    if store.is_empty() {
        return Err(AuthorityError::Setting(
            "the trust bundle holds no certificate that can be a trust anchor; put the root \
             certificate there"
                .to_owned(),
        ));
    }
    if refused > 0 {
        tracing::warn!(refused, "the trust bundle holds certificates that cannot be trust anchors");
    }
    Ok(Trust {
        roots: Arc::new(store),
        provider: tls::provider(),
        trust_domain: config.trust_domain.clone(),
        clock: Arc::clone(&config.clock),
    })
}

#[cfg(test)]
mod tests;
