//! TLS towards hosts outside the mesh, as a DestinationRule or a BackendTLSPolicy asks for it. Nothing of
//! the mesh's own identities is used here (`ISTIO_MUTUAL` is made by the store, which has them), and nothing
//! that is accepted here is accepted as a workload.

mod verify;

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use thiserror::Error;
use undermesh_model::traffic::{ClientTls, KeyMaterial, TlsMode};

use zeroize::Zeroizing;

use verify::AnyServer;
pub(crate) use verify::NamedServer;

/// Where distributions keep the roots that their programs trust.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Configurations that are kept.
const MAX_KEPT: usize = 64;
/// How long: files of certificates and keys are read again after this time.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Protocols that a client offers (ALPN), the best first; none where it does not say.
pub type Protocols = &'static [&'static [u8]];

/// Why a host cannot be spoken to in TLS.
#[derive(Debug, Error)]
pub enum OutsideError {
    /// A file cannot be read.
    #[error("{path} cannot be used for TLS: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// What the rule brings itself is not what it should be.
    #[error("the {what} of the rule cannot be used: {why}")]
    Material {
        /// Certificate, key or roots.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It is not where the rule says.
    #[error("{0}")]
    Missing(String),
    /// There is no certificate of our own where one is needed.
    #[error("the mode MUTUAL needs a certificate and a key")]
    NoCertificate,
    /// The mesh's certificates are not here.
    #[error("the mode ISTIO_MUTUAL is for workloads, and this is none")]
    MeshOnly,
    /// No roots to trust.
    #[error("no file with the system's roots was found; name one in caCertificates")]
    NoRoots,
    /// rustls does not accept it.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Configurations for hosts outside the mesh.
#[derive(Debug, Default)]
pub struct OutsideTls {
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    tls: ClientTls,
    alpn: Protocols,
    config: Arc<ClientConfig>,
    made: Instant,
}

impl OutsideTls {
    /// The configuration of a client that speaks `alpn`, or anything where that is empty.
    ///
    /// # Errors
    /// Where the rule or the files that it names cannot be used.
    pub fn client_config(
        &self,
        tls: &ClientTls,
        alpn: Protocols,
    ) -> Result<Arc<ClientConfig>, OutsideError> {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| now.duration_since(one.made) < KEPT_FOR);
        if let Some(one) = kept.iter().find(|one| one.alpn == alpn && one.tls == *tls) {
            return Ok(Arc::clone(&one.config));
        }
        let config = Arc::new(make(tls, alpn)?);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.push(Kept { tls: tls.clone(), alpn, config: Arc::clone(&config), made: now });
        Ok(config)
    }
}

fn make(tls: &ClientTls, alpn: Protocols) -> Result<ClientConfig, OutsideError> {
    if tls.mode == TlsMode::IstioMutual {
        return Err(OutsideError::MeshOnly);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous();
    let builder = if tls.insecure {
        builder.with_custom_certificate_verifier(Arc::new(AnyServer::new(provider)))
    } else {
        let names = tls.subject_alt_names.clone();
        let server = NamedServer::new(Arc::new(roots(tls)?), provider, names, revoked(tls)?)?;
        builder.with_custom_certificate_verifier(Arc::new(server))
    };
    let mut config = match (tls.mode, &tls.client) {
        (TlsMode::Mutual, Some((certificate, key))) => {
            let chain = certificates(certificate, "certificate")?;
            let key = bytes(key)?;
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|error| OutsideError::Material { what: "key", why: error.to_string() })?;
            builder.with_client_auth_cert(chain, key)?
        }
        (TlsMode::Mutual, None) => return Err(OutsideError::NoCertificate),
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn roots(tls: &ClientTls) -> Result<RootCertStore, OutsideError> {
    let system;
    let source = match &tls.ca {
        Some(source) => source,
        None => {
            let found = SYSTEM_ROOTS.iter().find(|path| fs::exists(path).unwrap_or(false));
            let path = found.ok_or(OutsideError::NoRoots)?;
            system = KeyMaterial::File((*path).to_owned());
            &system
        }
    };
    let mut roots = RootCertStore::empty();
    // Bundles of systems hold what webpki does not read; what is left is what can be trusted.
    let (added, _) = roots.add_parsable_certificates(certificates(source, "roots")?);
    match added {
        0 => Err(OutsideError::Material { what: "roots", why: "none can be read".to_owned() }),
        _ => Ok(roots),
    }
}

/// Lists of what was revoked, as many as the rule brings.
fn revoked(tls: &ClientTls) -> Result<Vec<CertificateRevocationListDer<'static>>, OutsideError> {
    let Some(source) = &tls.crl else { return Ok(Vec::new()) };
    let bytes = bytes(source)?;
    let what = "list of revoked certificates";
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| OutsideError::Material { what, why: error.to_string() })?;
    if found.is_empty() {
        // Nothing would be looked up.
        return Err(OutsideError::Material { what, why: "it holds none".to_owned() });
    }
    Ok(found)
}

fn certificates(
    source: &KeyMaterial,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, OutsideError> {
    let bytes = bytes(source)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| OutsideError::Material { what, why: error.to_string() })?;
    if found.is_empty() {
        return Err(OutsideError::Material { what, why: "it holds no certificate".to_owned() });
    }
    Ok(found)
}

fn bytes(source: &KeyMaterial) -> Result<Zeroizing<Vec<u8>>, OutsideError> {
    let path = match source {
        KeyMaterial::Inline(bytes) => return Ok(Zeroizing::new(bytes.expose().to_vec())),
        KeyMaterial::Missing(why) => return Err(OutsideError::Missing(why.clone())),
        KeyMaterial::File(path) => path,
    };
    let failed = |why: String| OutsideError::File { path: path.clone(), why };
    let length = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > MAX_FILE {
        return Err(failed(format!("it is larger than {MAX_FILE} bytes")));
    }
    fs::read(path).map(Zeroizing::new).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests;
