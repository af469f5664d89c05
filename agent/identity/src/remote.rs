//! An authority at the other end of a network: the controller of this mesh, or istiod. It is asked as
//! Istio's ztunnel asks: with a service account's token, for the pods of this node.

mod client;
mod stream;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use undermesh_model::{SpiffeId, TrustDomain};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::{
    AuthorityError, CertificateAuthority, Clock, SignFuture, Svid, SystemClock,
    issuance::message::CertificateRequestMessage,
    peer_identity, pem,
    tls::{Trust, provider},
    verifier::verify_chain,
};
use client::Client;
pub use stream::{ControllerLink, OpenedStream};

/// Largest files that are read.
const MAX_TOKEN: u64 = 16 << 10;
const MAX_BUNDLE: u64 = 1 << 20;

/// Where an authority is, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Its host, a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name that its certificate has to be for.
    pub name: String,
    /// PEM file of the roots that its certificate, and all those that it issues, go back to.
    pub roots: PathBuf,
    /// File of the token that is shown to it, read anew each time.
    pub token: PathBuf,
    /// Name of this cluster, which istiod wants to know.
    pub cluster: String,
    /// Trust domain of all identities.
    pub trust_domain: TrustDomain,
}

/// An authority that is asked over gRPC.
#[derive(Debug)]
pub struct RemoteAuthority {
    config: RemoteConfig,
    client: Client,
    clock: Arc<dyn Clock>,
}

impl RemoteAuthority {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// Where the name of the authority is none.
    pub fn new(config: RemoteConfig) -> Result<Self, AuthorityError> {
        let name = ServerName::try_from(config.name.clone())
            .map_err(|error| AuthorityError::Setting(format!("{:?}: {error}", config.name)))?;
        let client = Client::new(config.host.clone(), config.port, name);
        Ok(Self { config, client, clock: Arc::new(SystemClock) })
    }

    async fn ask(&self, id: &SpiffeId, lifetime: Duration) -> Result<Svid, AuthorityError> {
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let wanted = id.to_string();
        self.call(Some(id), &wanted, |csr| {
            CertificateRequestMessage::for_another(csr, seconds, id.to_string())
        })
        .await
    }

    /// A certificate for whose the token is.
    async fn own(&self, lifetime: Duration) -> Result<Svid, AuthorityError> {
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        self.call(None, "this agent", |csr| CertificateRequestMessage {
            csr,
            validity_duration: seconds,
            metadata: None,
        })
        .await
    }

    async fn call(
        &self,
        wanted: Option<&SpiffeId>,
        subject: &str,
        message: impl FnOnce(String) -> CertificateRequestMessage,
    ) -> Result<Svid, AuthorityError> {
        let failed = |reason: String| AuthorityError::Issue { subject: subject.to_owned(), reason };
        let key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(|error| failed(error.to_string()))?;
        let message = message(csr);
        let token = self.token()?;
        let roots = self.trusted()?;
        let answer = self.client.call(&message, &token, &self.config.cluster, &roots).await;
        let answer = answer.map_err(failed)?;
        let checked = self.check(wanted, &key, &answer.cert_chain, &roots.roots);
        let (found, chain) = checked.map_err(failed)?;
        Svid::new(found, chain, &PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// What was sent is of use only if it is for our key and for who was asked for, and if those trust
    /// it who are to accept it.
    fn check(
        &self,
        wanted: Option<&SpiffeId>,
        key: &KeyPair,
        answer: &[String],
        roots: &RootCertStore,
    ) -> Result<(SpiffeId, Vec<CertificateDer<'static>>), String> {
        let from = Path::new("the authority's answer");
        // The last entry has the roots, which are trusted for standing in our bundle alone.
        let chain = match answer {
            [chain @ .., _] if !chain.is_empty() => chain.join("\n"),
            _ => return Err("it answers without a chain of certificates".to_owned()),
        };
        let chain = pem::certificates(&chain, from).map_err(|error| error.to_string())?;
        let leaf = chain.first().ok_or("it answers without a certificate")?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        if parsed.public_key().subject_public_key.data.as_ref()
            != rcgen::PublicKeyData::der_bytes(key)
        {
            return Err("it answers with a certificate for another key".to_owned());
        }
        let now = self.clock.now();
        let found = peer_identity(Some(&chain), now).map_err(|error| error.to_string())?;
        if wanted.is_some_and(|wanted| found != *wanted) {
            return Err(format!("it answers with a certificate for {found}"));
        }
        verify_chain(&chain, roots, now).map_err(|error| {
            let bundle = self.config.roots.display();
            format!("it answers with a certificate that does not go back to {bundle}: {error}")
        })?;
        Ok((found, chain))
    }

    fn token(&self) -> Result<Zeroizing<String>, AuthorityError> {
        let text = Zeroizing::new(read(&self.config.token, MAX_TOKEN)?);
        let token = Zeroizing::new(text.trim().to_owned());
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AuthorityError::content(&self.config.token, "it holds no token"));
        }
        Ok(token)
    }

    fn trusted(&self) -> Result<Trust, AuthorityError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.roots()?);
        Ok(Trust {
            roots: Arc::new(roots),
            provider: provider(),
            trust_domain: self.config.trust_domain.clone(),
            clock: Arc::clone(&self.clock),
        })
    }
}

impl CertificateAuthority for RemoteAuthority {
    fn sign<'a>(&'a self, id: &'a SpiffeId, lifetime: Duration) -> SignFuture<'a> {
        Box::pin(self.ask(id, lifetime))
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let text = read(&self.config.roots, MAX_BUNDLE)?;
        pem::certificates(&text, &self.config.roots)
    }

    /// Always the same: certificates under a former issuer are good until they expire, which is the
    /// authority's to see to, and are renewed under its successor at their time.
    fn issuer(&self) -> Result<Vec<u8>, AuthorityError> {
        Ok(Vec::new())
    }
}

fn read(path: &Path, most: u64) -> Result<String, AuthorityError> {
    let length = fs::metadata(path).map_err(AuthorityError::file("read", path))?.len();
    if length > most {
        return Err(AuthorityError::content(path, format!("it is larger than {most} bytes")));
    }
    fs::read_to_string(path).map_err(AuthorityError::file("read", path))
}

#[cfg(test)]
mod tests;
