//! The controller's own certificate, of its own authority, and the TLS configurations of its servers.

use std::{sync::Arc, time::Duration};

use rustls::{RootCertStore, ServerConfig, server::NoServerSessionStorage};
use time::OffsetDateTime;
use tokio::sync::watch;
use undermesh_model::SpiffeId;

use crate::{
    AuthorityError, CaMaterial, SystemClock,
    tls::{Trust, provider},
};

/// What a server that cannot get a certificate waits until it tries again.
const RETRY: Duration = Duration::from_secs(5);

/// Who a controller is.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    /// Its identity.
    pub id: SpiffeId,
    /// The names and addresses that it is dialled by.
    pub names: Vec<String>,
    /// How long one certificate is used at most; it is replaced after half of it.
    pub lifetime: Duration,
}

/// The configurations of one certificate.
#[derive(Debug)]
pub struct ServerTls {
    /// HTTP/2 for gRPC; a client may show a certificate of the mesh.
    pub grpc: Arc<ServerConfig>,
    /// HTTP/1.1 for the API server, which shows none.
    pub https: Arc<ServerConfig>,
    not_after: OffsetDateTime,
}

impl ServerIdentity {
    fn make(&self, authority: &CaMaterial) -> Result<ServerTls, AuthorityError> {
        let serving =
            authority.serve(&self.id, &self.names, self.lifetime, OffsetDateTime::now_utc())?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authority.roots()?);
        let trust = Trust {
            roots: Arc::new(roots),
            provider: provider(),
            trust_domain: self.id.trust_domain.clone(),
            clock: Arc::new(SystemClock),
        };
        let finished = |mut config: ServerConfig, alpn: &[u8]| {
            config.alpn_protocols = vec![alpn.to_vec()];
            // A resumed session would not be verified again.
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Arc::new(config)
        };
        let failed = |error: rustls::Error| AuthorityError::Setting(error.to_string());
        let grpc = trust.optional(Arc::clone(&serving.key)).map_err(failed)?;
        let https = trust.anonymous(serving.key).map_err(failed)?;
        let not_after = serving.not_after;
        Ok(ServerTls {
            grpc: finished(grpc, b"h2"),
            https: finished(https, b"http/1.1"),
            not_after,
        })
    }

    /// Keeps a certificate, under an authority that may change, until the receivers are gone.
    pub async fn keep(
        self,
        mut authority: watch::Receiver<Option<Arc<CaMaterial>>>,
        tls: watch::Sender<Option<Arc<ServerTls>>>,
    ) {
        loop {
            let current = authority.borrow_and_update().clone();
            let wait = match current.map(|current| self.make(&current)) {
                None => Duration::MAX,
                Some(Ok(made)) => {
                    let left = made.not_after - OffsetDateTime::now_utc();
                    tls.send_replace(Some(Arc::new(made)));
                    Duration::try_from(left / 2).unwrap_or(RETRY).max(Duration::from_secs(1))
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "the controller has no certificate of its own");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = authority.changed() => if changed.is_err() { return },
                () = tls.closed() => return,
            }
        }
    }
}
