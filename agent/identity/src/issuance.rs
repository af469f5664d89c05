//! Certificates for whoever may have them: the service that agents (and Istio's ztunnel) ask.
//!
//! One request passes, in this order: how often its address may ask, who asks (a token, or a certificate
//! of the mesh), what is asked for (the key of a PKCS #10 request), whether who asks may have it, and the
//! signature. **Invariant**: a certificate is for the identity of who asks, or for that of a pod on the
//! node of the pod that asks, and the latter only for accounts that are said to be those of node agents.

mod cluster;
mod lingering;
pub(crate) mod message;
mod rate;
mod server;
mod streams;
#[cfg(test)]
pub(crate) mod testing;
mod tls;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio::sync::watch;
use undermesh_model::{SpiffeId, TrustDomain};

use crate::{CaMaterial, CertificateRequest, Issued, grpc::Code};
pub use cluster::{Account, Asked, Cluster, ClusterError, Reviewed};
use cluster::{Answers, Bearer};
use message::CertificateRequestMessage;
use rate::Rate;
pub use server::{Services, serve};
pub(crate) use streams::pump;
pub use streams::{Caller, Serving, Streams};
pub use tls::{ServerIdentity, ServerTls};

/// How certificates are given.
#[derive(Clone, Debug)]
pub struct IssuanceConfig {
    /// Trust domain of all identities.
    pub trust_domain: TrustDomain,
    /// Lifetime where a request names none.
    pub lifetime: Duration,
    /// The longest lifetime; who asks for more gets this.
    pub max_lifetime: Duration,
    /// Service accounts of node agents, which may ask for the pods of their node.
    pub node_accounts: BTreeSet<Account>,
    /// Requests that one address may make in a second, in the long run.
    pub requests_per_second: u32,
    /// Requests that it may make at once.
    pub burst: u32,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For logs and metrics: a stable word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// One with these words.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }
}

/// Who asks, as far as that is known, and for whom.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The address at the other end.
    pub address: IpAddr,
    /// Who it is.
    pub identity: Option<SpiffeId>,
    /// The pod that it is, and that pod's node.
    pub pod: Option<String>,
    /// The node of that pod.
    pub node: Option<String>,
    /// For whom a certificate is wanted, as it was written.
    pub wanted: Option<String>,
}

/// Is told what became of every request.
pub trait Observer: Send + Sync {
    /// A certificate was issued.
    fn issued(&self, asker: &Asker, id: &SpiffeId, issued: &Issued);
    /// None was.
    fn refused(&self, asker: &Asker, refusal: &Refusal);
}

/// The service.
pub struct Issuance {
    config: IssuanceConfig,
    authority: watch::Receiver<Option<Arc<CaMaterial>>>,
    cluster: Answers,
    rate: Rate,
    observer: Arc<dyn Observer>,
}

/// What a connection and a request's head say about who asks.
pub(crate) struct Credentials {
    pub(crate) address: IpAddr,
    /// Proven by a certificate.
    pub(crate) svid: Option<Proven>,
    /// A bearer token.
    pub(crate) token: Option<zeroize::Zeroizing<String>>,
}

/// Whose a certificate is that was shown.
#[derive(Clone, Debug)]
pub(crate) struct Proven {
    pub(crate) id: SpiffeId,
    pub(crate) expires: OffsetDateTime,
}

impl Credentials {
    /// Who asks, before anything is known.
    fn asker(&self, wanted: Option<&str>) -> Asker {
        Asker {
            address: self.address,
            identity: None,
            pod: None,
            node: None,
            wanted: wanted.map(|text| text.chars().take(256).collect()),
        }
    }
}

impl Issuance {
    /// A service under an authority that may come later, and may change.
    pub fn new(
        config: IssuanceConfig,
        authority: watch::Receiver<Option<Arc<CaMaterial>>>,
        cluster: Arc<dyn Cluster>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let rate = Rate::new(config.requests_per_second, config.burst);
        Self { config, authority, cluster: Answers::new(cluster), rate, observer }
    }

    /// Answers one request.
    pub(crate) async fn create(
        &self,
        credentials: &Credentials,
        request: &CertificateRequestMessage,
    ) -> Result<Issued, Refusal> {
        let mut asker = credentials.asker(request.impersonated());
        match self.judge(credentials, request, &mut asker).await {
            Ok((id, issued)) => {
                self.observer.issued(&asker, &id, &issued);
                Ok(issued)
            }
            Err(refusal) => {
                self.observer.refused(&asker, &refusal);
                Err(refusal)
            }
        }
    }

    /// Notes what was refused before it was looked at.
    pub(crate) fn turn_away(&self, credentials: &Credentials, refusal: Refusal) -> Refusal {
        self.observer.refused(&credentials.asker(None), &refusal);
        refusal
    }

    async fn judge(
        &self,
        credentials: &Credentials,
        request: &CertificateRequestMessage,
        asker: &mut Asker,
    ) -> Result<(SpiffeId, Issued), Refusal> {
        self.within_rate(credentials)?;
        let own = self.authenticate(credentials, asker).await?;
        let parsed = CertificateRequest::parse(&request.csr)
            .map_err(|error| Refusal::new(Code::InvalidArgument, "csr", error.to_string()))?;
        let lifetime = self.lifetime(request.validity_duration)?;
        let id = match request.impersonated() {
            None => own,
            Some(wanted) => self.authorize(own, wanted, asker).await?,
        };
        let authority = self.authority.borrow().clone().ok_or_else(|| {
            Refusal::new(Code::Unavailable, "no_authority", "the authority is not there yet")
        })?;
        let issued = authority
            .sign(&id, &parsed, lifetime, OffsetDateTime::now_utc())
            .map_err(|error| Refusal::new(Code::Unavailable, "authority", error.to_string()))?;
        Ok((id, issued))
    }

    fn within_rate(&self, credentials: &Credentials) -> Result<(), Refusal> {
        if self.rate.allows(credentials.address, Instant::now()) {
            return Ok(());
        }
        let message = "too many requests from this address; ask again later";
        Err(Refusal::new(Code::ResourceExhausted, "rate", message))
    }

    /// Whose a token is.
    async fn bearer(&self, token: &str) -> Result<Bearer, Refusal> {
        self.cluster.review(token).await.map_err(|error| match error {
            ClusterError::Refused(why) => {
                let message = format!("the token is not good: {why}");
                Refusal::new(Code::Unauthenticated, "unauthenticated", message)
            }
            ClusterError::Unavailable(why) => unavailable(&why),
        })
    }

    async fn authenticate(
        &self,
        credentials: &Credentials,
        asker: &mut Asker,
    ) -> Result<SpiffeId, Refusal> {
        let Some(token) = &credentials.token else {
            let own = credentials.svid.clone().ok_or_else(|| {
                let message = "neither a token nor a certificate was shown";
                Refusal::new(Code::Unauthenticated, "unauthenticated", message)
            })?;
            asker.identity = Some(own.id.clone());
            return Ok(own.id);
        };
        let (reviewed, node) = self.bearer(token).await?;
        let (namespace, name) = reviewed.account;
        let own = SpiffeId::new(self.config.trust_domain.clone(), namespace, name);
        asker.identity = Some(own.clone());
        asker.pod = reviewed.pod.map(|(name, _)| name);
        if let (Some(said), Some(found)) = (&reviewed.node, &node)
            && said != found
        {
            let message = format!("the token is of node {said}, and its pod is on {found}");
            return Err(Refusal::new(Code::PermissionDenied, "node_mismatch", message));
        }
        asker.node = node;
        Ok(own)
    }

    /// The node authorizer: an agent may ask for the pods of its own node.
    async fn authorize(
        &self,
        own: SpiffeId,
        wanted: &str,
        asker: &Asker,
    ) -> Result<SpiffeId, Refusal> {
        let denied =
            |reason, message: String| Err(Refusal::new(Code::PermissionDenied, reason, message));
        let id: SpiffeId = wanted
            .parse()
            .map_err(|error| Refusal::new(Code::InvalidArgument, "identity", format!("{error}")))?;
        if id == own {
            return Ok(id);
        }
        if id.trust_domain != self.config.trust_domain {
            let ours = &self.config.trust_domain;
            let message = format!("{id} is of another trust domain than {ours}");
            return denied("trust_domain", message);
        }
        let account = (own.namespace.clone(), own.service_account.clone());
        if !self.config.node_accounts.contains(&account) {
            let message = format!("{own} is no node agent and gets certificates for itself alone");
            return denied("not_a_node_agent", message);
        }
        let Some(node) = &asker.node else {
            let message = format!(
                "{own} has not said with a token which pod it is, or that pod is gone; its node is unknown"
            );
            return denied("no_node", message);
        };
        let wanted = (id.namespace.clone(), id.service_account.clone());
        match self.cluster.is_on(node, &wanted).await {
            Ok(true) => Ok(id),
            Ok(false) => {
                let message = format!("no pod on node {node} runs as {id}");
                denied("not_on_node", message)
            }
            Err(error) => Err(unavailable(&error.to_string())),
        }
    }

    fn lifetime(&self, seconds: i64) -> Result<Duration, Refusal> {
        let seconds = u64::try_from(seconds).map_err(|_| {
            let message = format!("a lifetime of {seconds} seconds is none");
            Refusal::new(Code::InvalidArgument, "lifetime", message)
        })?;
        Ok(match seconds {
            0 => self.config.lifetime.min(self.config.max_lifetime),
            seconds => Duration::from_secs(seconds).min(self.config.max_lifetime),
        })
    }
}

fn unavailable(why: &str) -> Refusal {
    let message = format!("the API server could not be asked: {why}");
    Refusal::new(Code::Unavailable, "api_server", message)
}

#[cfg(test)]
mod tests;
