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
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, pem::PemObject},
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
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
    name: String,
}

/// A certificate and its key, with both in files.
pub struct Issued {
    chain: rustls::pki_types::CertificateDer<'static>,
    key: String,
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
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { issuer, dir: dir.to_owned(), name: name.to_owned() };
        std::fs::write(authority.root_file(), authority.root())?;
        Ok(authority)
    }

    /// Its root, as PEM.
    pub fn root(&self) -> String {
        self.issuer.pem()
    }

    /// The file of its root.
    pub fn root_file(&self) -> PathBuf {
        self.dir.join(format!("{}-root.pem", self.name))
    }

    /// Certifies somebody with these names.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn issue(&self, names: &[&str]) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let label = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = |what: &str| self.dir.join(format!("{}-{label}.{what}", self.name));
        let issued = Issued {
            chain: certificate.der().clone(),
            key: key.serialize_pem(),
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
            roots.add(authority.issuer.der().clone())?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())
        .map_err(|error| anyhow!("the key that was just made cannot be read: {error}"))?;
    Ok(Arc::new(builder.with_single_cert(vec![issued.chain.clone()], key)?))
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
                if conn.peer_certificates().is_some() { "certified" } else { "unknown" },
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
