//! Certificates decide who is let in, and a certificate that does not convince is worth nothing.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use time::OffsetDateTime;
use undermesh_tests::{PORT, Rig, pod::protocol::Behaviour, undermesh};

const HBONE: u16 = 15008;
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const DAY: time::Duration = time::Duration::DAY;

/// Takes any server: these tests look at what the server takes.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client certificate, made with the keys of a CA directory.
struct Claim {
    uris: Vec<&'static str>,
    valid: (OffsetDateTime, OffsetDateTime),
}

impl Claim {
    fn new(uris: &[&'static str]) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { uris: uris.to_vec(), valid: (now - DAY, now + DAY) }
    }

    fn valid_between(self, from: i32, to: i32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { valid: (now + DAY * from, now + DAY * to), ..self }
    }

    /// Shows the certificate to a server and returns what becomes of the connection: the first
    /// bytes of the server's HTTP/2 preface, or the error.
    fn show(&self, rig: &Rig, ca: &Path, to: SocketAddr) -> Result<Result<usize, String>> {
        let config = self.config(ca)?;
        rig.place("outsider")?.netns.run(|| handshake(config, to))?
    }

    fn config(&self, ca: &Path) -> Result<ClientConfig> {
        let read = |name: &str| fs::read_to_string(ca.join(name)).with_context(|| name.to_owned());
        let chain = read("intermediate.crt")?;
        let issuer_key = KeyPair::from_pem(&read("intermediate.key")?)?;
        let issuer = Issuer::from_ca_cert_pem(&chain, issuer_key)?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = self.valid;
        params.subject_alt_names = self
            .uris
            .iter()
            .map(|uri| Ok(SanType::URI((*uri).to_owned().try_into()?)))
            .collect::<Result<_>>()?;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &issuer)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_client_auth_cert(
                vec![leaf.der().clone(), CertificateDer::from_pem_slice(chain.as_bytes())?],
                PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
            )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn handshake(config: ClientConfig, to: SocketAddr) -> Result<Result<usize, String>> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let name = ServerName::try_from("server.invalid")?;
    let connection = ClientConnection::new(Arc::new(config), name)?;
    let mut tls = StreamOwned::new(connection, stream);
    // In TLS 1.3 the client is done before the server has looked at its certificate.
    let answer = tls
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .and_then(|()| tls.read(&mut [0; 64]));
    Ok(answer.map_err(|error| error.to_string()))
}

#[test]
fn only_a_valid_certificate_of_this_trust_domain_opens_a_tunnel() -> Result<()> {
    let rig = Rig::started()?;
    let to = rig.at("server", HBONE)?;
    let ca = rig.footprint().dir().join("ca");
    let read = Claim::new(&[CLIENT]).show(&rig, &ca, to)?;
    assert!(read.as_ref().is_ok_and(|length| *length > 0), "a good one: {read:?}");

    let other = "spiffe://other.example/ns/shop/sa/client";
    let refused = [
        (Claim::new(&[CLIENT]).valid_between(-2, -1), "tls_expired_certificate"),
        (Claim::new(&[CLIENT]).valid_between(1, 2), "tls_certificate_not_yet_valid"),
        (Claim::new(&[other]), "tls_wrong_trust_domain"),
        (Claim::new(&[CLIENT, other]), "tls_no_identity"),
        (Claim::new(&[]), "tls_no_identity"),
        (Claim::new(&["https://cluster.local/ns/shop/sa/client"]), "tls_no_identity"),
    ];
    for (claim, reason) in refused {
        let read = claim.show(&rig, &ca, to)?;
        assert!(read.is_err(), "{:?} ({reason}) opened a tunnel", claim.uris);
        rig.agent("b")?.access_log().wait(&[("event", "denied"), ("reason", reason)])?;
    }
    Ok(())
}

#[test]
fn a_certificate_of_another_authority_opens_no_tunnel() -> Result<()> {
    let rig = Rig::started()?;
    let ca = rig.footprint().dir().join("foreign");
    undermesh(["ca".as_ref(), "init".as_ref(), "--dir".as_ref(), ca.as_os_str()])?;
    let read = Claim::new(&[CLIENT]).show(&rig, &ca, rig.at("server", HBONE)?)?;
    assert!(read.is_err(), "{read:?}");
    let log = rig.agent("b")?.access_log();
    log.wait(&[("event", "denied"), ("reason", "tls_unknown_issuer")])?;
    Ok(())
}

#[test]
fn plaintext_to_the_tunnel_port_reaches_nobody() -> Result<()> {
    let rig = Rig::started()?;
    let (outsider, server) = (rig.pod("outsider")?, rig.pod("server")?);
    // Even where an application listens at that very port.
    let listener = server.listen(rig.at("server", HBONE)?, Behaviour::Echo)?;
    let conn = outsider.connect(rig.at("server", HBONE)?)?;
    conn.send(b"CONNECT 10.2.0.10:8080 HTTP/1.1\r\n\r\n")?;
    let end = conn.receive_to_end();
    assert!(end.as_ref().map_or(true, |bytes| bytes.len() < 32), "{end:?}");
    assert_eq!(listener.accepted()?, []);
    let log = rig.agent("b")?.access_log();
    log.wait(&[("event", "denied"), ("reason", "tls_not_tls")])?;
    Ok(())
}

#[test]
fn a_server_of_another_trust_domain_is_not_talked_to() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.init_ca()?;
    // The same root of trust, but another name: only the identity gives it away.
    rig.node_mut("b")?.settings.set("trustDomain", "other.example");
    rig.start_agents()?;
    let capture = rig.capture()?;
    let (client, outsider) = (rig.pod("client")?, rig.pod("outsider")?);
    let server = rig.pod("server")?;
    let listener = server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let answer = client.connect(rig.vip("far", 80)?).and_then(|conn| {
        conn.send(b"secret")?;
        conn.receive(1)
    });
    let error = answer.unwrap_err().errno;
    assert!(["ECONNRESET", "EPIPE"].contains(&error.as_str()), "{error}");
    let log = rig.agent("a")?.access_log();
    log.wait(&[("event", "denied"), ("reason", "tls_wrong_trust_domain")])?;
    assert_eq!(listener.accepted()?, []);
    outsider.connect(rig.at("server", PORT)?)?.exchange(b"plain-as-day")?;
    capture.wait_for(b"plain-as-day")?;
    assert!(!capture.contains(b"secret")?);
    Ok(())
}

#[test]
fn an_agent_whose_certificates_have_expired_carries_nothing_until_they_are_renewed() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.init_ca()?;
    let shared = rig.footprint().dir().join("ca");
    let own = rig.footprint().dir().join("ca-of-b");
    fs::create_dir(&own)?;
    for name in ["intermediate.crt", "intermediate.key", "bundle.pem"] {
        fs::copy(shared.join(name), own.join(name))?;
    }
    let node = rig.node_mut("b")?;
    node.settings.set("caDir", &own.display().to_string());
    node.settings.set("svidLifetime", "10s");
    rig.start_agents()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;

    fs::rename(own.join("intermediate.key"), own.join("taken-away.key"))?;
    let agent = rig.agent("b")?;
    let expired = |status: &undermesh_tests::Status| {
        status.certificates.iter().all(|one| one.expires_in_seconds < 0)
    };
    agent.wait_status("the certificates to expire", Duration::from_secs(20), expired)?;
    let (code, text) = agent.readiness()?;
    assert_eq!(code, 503, "{text}");
    assert!(text.contains("certificate"), "{text}");
    // Both wires are tried, and each waits for a certificate to come.
    let patience = Duration::from_secs(30);
    let conn = client.connect(rig.vip("far", 80)?);
    let answer = conn.and_then(|conn| conn.receive_within(1, patience));
    assert_eq!(answer.unwrap_err().errno, "ECONNRESET");
    assert_eq!(listener.accepted()?, []);

    fs::rename(own.join("taken-away.key"), own.join("intermediate.key"))?;
    let renewed = |status: &undermesh_tests::Status| status.agent.ready && !expired(status);
    agent.wait_status("new certificates", Duration::from_secs(60), renewed)?;
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"renewed")?, b"renewed");
    Ok(())
}

#[test]
fn certificates_are_renewed_under_a_live_connection() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    for node in ["a", "b"] {
        rig.node_mut(node)?.settings.set("svidLifetime", "10s");
    }
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let held = client.connect(rig.vip("far", 80)?)?;
    held.exchange(b"first")?;
    let serials = |node| -> Result<Vec<String>> {
        let status = rig.agent(node)?.status()?;
        Ok(status.certificates.into_iter().map(|one| one.serial).collect())
    };
    // Twice over: the certificate of the handshake has expired by then.
    for _ in 0..3 {
        let before = [serials("a")?, serials("b")?];
        for (node, before) in ["a", "b"].into_iter().zip(before) {
            rig.agent(node)?.wait_status("renewal", Duration::from_secs(20), |status| {
                status.certificates.iter().all(|one| !before.contains(&one.serial))
            })?;
        }
    }
    assert_eq!(held.exchange(b"last")?, b"last", "a live connection was cut");
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"new")?, b"new");
    Ok(())
}

#[test]
fn a_new_root_is_taken_up_under_live_connections() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let held = client.connect(rig.vip("far", 80)?)?;
    held.exchange(b"under the old root")?;
    let serials = |status: undermesh_tests::Status| -> Vec<String> {
        status.certificates.into_iter().map(|one| one.serial).collect()
    };
    let before = [serials(rig.agent("a")?.status()?), serials(rig.agent("b")?.status()?)];
    let ca = rig.footprint().dir().join("ca");
    let on_ca = |args: &[&str]| {
        let args = args.iter().map(AsRef::as_ref);
        undermesh(args.chain(["--dir".as_ref(), ca.as_os_str()]))
    };
    on_ca(&["ca", "rotate", "--settle", "3s"])?;
    for (node, before) in ["a", "b"].into_iter().zip(before) {
        rig.agent(node)?.wait_status("new certificates", Duration::from_secs(20), |status| {
            status.certificates.iter().all(|one| !before.contains(&one.serial))
        })?;
    }
    on_ca(&["ca", "prune"])?;
    // What was signed under the old root is worth nothing any more, once agents have read so.
    let log = rig.agent("b")?.log();
    undermesh_tests::wait_for("the bundle to be read", Duration::from_secs(10), || {
        Ok((rig.agent("b")?.log().len() > log.len()).then_some(()))
    })?;
    assert_eq!(held.exchange(b"under the new one")?, b"under the new one");
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"new")?, b"new");
    Ok(())
}
