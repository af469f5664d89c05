//! Servers with certificates of authorities that the mesh knows nothing of.
//!
//! A request of HTTP/1.1 is answered with what the server knows of its client; whatever else arrives is
//! sent back.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::netns::Netns;

/// How often a server looks whether it is still wanted.
const STEP: Duration = Duration::from_millis(20);
/// Longest that a client may be silent.
const PATIENCE: Duration = Duration::from_secs(20);
/// Room for a head.
const CHUNK: usize = 16 << 10;

/// An authority, with its root in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What certificates that it issues are shown with.
    chain: Option<CertificateDer<'static>>,
    root: String,
    dir: PathBuf,
    name: String,
    issued: AtomicU64,
}

/// A certificate and its key, with both in files.
pub struct Issued {
    chain: Vec<CertificateDer<'static>>,
    key: String,
    serial: SerialNumber,
    /// File of the certificate.
    pub certificate_file: PathBuf,
    /// File of the key.
    pub key_file: PathBuf,
}

impl Authority {
    /// Makes an authority, whose files go to `dir`.
    ///
    /// # Errors
    /// Where a file cannot be written; so for all below.
    pub fn new(name: &str, dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.pem();
        let authority = Self {
            issuer: Issuer::new(params, key),
            chain: None,
            root,
            dir: dir.to_owned(),
            name: name.to_owned(),
            issued: AtomicU64::default(),
        };
        std::fs::write(authority.root_file(), authority.root())?;
        Ok(authority)
    }

    /// The mesh's own authority, of which `ca_dir` has the certificates; files go to `dir`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_mesh(ca_dir: &Path, dir: &Path) -> Result<Self> {
        let read = |name: &str| std::fs::read_to_string(ca_dir.join(name)).context(name.to_owned());
        let certificate = read("intermediate.crt")?;
        let key = KeyPair::from_pem(&read("intermediate.key")?)?;
        let chain = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| anyhow!("the mesh's certificate cannot be read: {error}"))?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&certificate, key)?,
            chain: Some(chain),
            root: read("root.crt")?,
            dir: dir.to_owned(),
            name: "mesh".to_owned(),
            issued: AtomicU64::default(),
        })
    }

    /// Its root, as PEM.
    pub fn root(&self) -> String {
        self.root.clone()
    }

    /// The file of its root.
    pub fn root_file(&self) -> PathBuf {
        self.dir.join(format!("{}-root.pem", self.name))
    }

    /// A file with the list of what it has revoked.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn revoke(&self, revoked: &[&Issued]) -> Result<PathBuf> {
        let number = SerialNumber::from(self.issued.fetch_add(1, Ordering::Relaxed));
        let revoked = revoked.iter().map(|one| RevokedCertParams {
            serial_number: one.serial.clone(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: number.clone(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        // A file of its own each time: agents keep what they have read of one for a while.
        let file = self.dir.join(format!("{}-{number}.crl", self.name));
        std::fs::write(&file, list.signed_by(&self.issuer)?.pem()?)?;
        Ok(file)
    }

    /// Certifies somebody with these names, of hosts or as URIs.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn issue(&self, names: &[&str]) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let (uris, hosts): (Vec<&str>, Vec<&str>) =
            names.iter().copied().partition(|name| name.contains("://"));
        let label = names.first().map(|name| name.replace('/', "-")).unwrap_or_default();
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts)?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        let serial = SerialNumber::from(self.issued.fetch_add(1, Ordering::Relaxed) + 1000);
        params.serial_number = Some(serial.clone());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = |what: &str| self.dir.join(format!("{}-{label}.{what}", self.name));
        let issued = Issued {
            chain: std::iter::once(certificate.der().clone()).chain(self.chain.clone()).collect(),
            key: key.serialize_pem(),
            serial,
            certificate_file: file("crt"),
            key_file: file("key"),
        };
        std::fs::write(&issued.certificate_file, certificate.pem())?;
        std::fs::write(&issued.key_file, &issued.key)?;
        Ok(issued)
    }
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct TlsServer {
    ended: Arc<AtomicBool>,
}

impl TlsServer {
    /// Serves at an address of a namespace. `clients`: only those that this authority has certified.
    ///
    /// # Errors
    /// Where it cannot listen there.
    pub fn start(
        netns: &Netns,
        at: SocketAddr,
        issued: &Issued,
        clients: Option<&Authority>,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Self> {
        let config = config(issued, clients, version)?;
        let listener = netns.run(|| TcpListener::bind(at))?.context("no TLS server")?;
        listener.set_nonblocking(true)?;
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        thread::spawn(move || accept(&listener, &config, &stop));
        Ok(Self { ended })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn config(
    issued: &Issued,
    clients: Option<&Authority>,
    version: &'static SupportedProtocolVersion,
) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(authority.root.as_bytes())
                .map_err(|error| anyhow!("a root cannot be read: {error}"))?;
            roots.add(root)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())
        .map_err(|error| anyhow!("the key that was just made cannot be read: {error}"))?;
    Ok(Arc::new(builder.with_single_cert(issued.chain.clone(), key)?))
}

fn accept(listener: &TcpListener, config: &Arc<ServerConfig>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let config = Arc::clone(config);
                // How a connection ends is its client's to see.
                thread::spawn(move || drop(serve(stream, config)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(STEP),
            Err(_) => return,
        }
    }
}

/// What is known of a client: its identity, where its certificate has one.
fn client(certificates: Option<&[CertificateDer<'_>]>) -> String {
    let Some(leaf) = certificates.and_then(<[_]>::first) else { return "unknown".to_owned() };
    // Nothing else in a certificate looks like an identity, before which stands its length.
    let scheme = b"spiffe://";
    let at = leaf.windows(scheme.len()).position(|text| text == scheme);
    let identity = at.and_then(|at| {
        let length = usize::from(*leaf.get(at.checked_sub(1)?)?);
        leaf.get(at..at + length)
    });
    identity.map_or("certified".into(), |text| String::from_utf8_lossy(text).into_owned())
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = stream.read(&mut buffer)?;
        let said = &buffer[..length];
        if said.is_empty() {
            stream.conn.send_close_notify();
            stream.flush()?;
            return Ok(());
        }
        if said.starts_with(b"GET ") {
            let conn = &stream.conn;
            let body = format!(
                "sni={} client={} version={:?}",
                conn.server_name().unwrap_or("-"),
                client(conn.peer_certificates()),
                conn.protocol_version(),
            );
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes())?;
        } else {
            stream.write_all(said)?;
        }
        stream.flush()?;
    }
}
