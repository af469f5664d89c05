//! Rules that can and cannot be used, and handshakes in memory.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConnection, RootCertStore, ServerConfig, ServerConnection, pki_types::ServerName,
};

use super::*;

/// An authority, and a server that it has certified.
struct Outside {
    ca: String,
    server: Arc<ServerConfig>,
    client: (KeyMaterial, KeyMaterial),
}

fn outside(demands_certificate: bool) -> Outside {
    outside_of(demands_certificate, &TLS13)
}

fn outside_of(
    demands_certificate: bool,
    version: &'static rustls::SupportedProtocolVersion,
) -> Outside {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["api.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let chain = vec![certificate.der().clone()];
    let der = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let server = if demands_certificate {
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let inline = |text: String| KeyMaterial::Inline(text.into_bytes());
    Outside {
        ca: ca.pem(),
        server: Arc::new(server.with_single_cert(chain, der).unwrap()),
        client: (inline(certificate.pem()), inline(key.serialize_pem())),
    }
}

impl Outside {
    fn rule(&self, mode: TlsMode) -> ClientTls {
        let ca = Some(KeyMaterial::Inline(self.ca.clone().into_bytes()));
        ClientTls { mode, ca, ..ClientTls::default() }
    }

    /// Shakes hands in memory.
    fn meet(&self, tls: &ClientTls, name: &str) -> Result<(), String> {
        let config = OutsideTls::default().client_config(tls, b"");
        let config = config.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(config, name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(&self.server)).unwrap();
        for _ in 0..8 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().map_err(|error| error.to_string())?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().map_err(|error| crate::explain(&error))?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(())
    }
}

#[test]
fn a_server_has_to_be_who_was_asked_for() {
    let outside = outside(false);
    let rule = outside.rule(TlsMode::Simple);
    assert_eq!(outside.meet(&rule, "api.example"), Ok(()));
    assert!(outside.meet(&rule, "other.example").is_err());
    let names = |name: &str| ClientTls { subject_alt_names: vec![name.to_owned()], ..rule.clone() };
    assert_eq!(outside.meet(&names("api.example"), "other.example"), Ok(()));
    assert!(outside.meet(&names("third.example"), "api.example").is_err());
}

#[test]
fn a_server_that_speaks_no_more_than_tls_1_2_is_reached_and_looked_at_as_closely() {
    let outside = outside_of(true, &TLS12);
    let mut rule = outside.rule(TlsMode::Mutual);
    rule.client = Some(outside.client.clone());
    assert_eq!(outside.meet(&rule, "api.example"), Ok(()));
    let wrong = outside.meet(&rule, "other.example").unwrap_err();
    assert!(wrong.contains("is for api.example instead of other.example"), "{wrong}");
    let blind = ClientTls { insecure: true, ..rule };
    assert_eq!(outside.meet(&blind, "other.example"), Ok(()));
}

#[test]
fn a_server_with_another_name_is_refused_with_both_names() {
    let outside = outside(false);
    let names = vec!["a.example".to_owned(), "b.example".to_owned()];
    let rule = ClientTls { subject_alt_names: names, ..outside.rule(TlsMode::Simple) };
    let wrong = outside.meet(&rule, "api.example").unwrap_err();
    assert!(wrong.contains("is for api.example instead of a.example, b.example"), "{wrong}");
}

#[test]
fn names_of_certificates_count_as_they_are_written_too() {
    let names = ["*.api.example", "spiffe://outside.example/a", "https://outside.example/b"];
    let mut params = CertificateParams::new(vec![names[0].to_owned()]).unwrap();
    params
        .subject_alt_names
        .extend(names[1..].iter().map(|name| rcgen::SanType::URI((*name).try_into().unwrap())));
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    assert!(names.iter().all(|name| crate::peer::has_name(&certificate, name)));
    assert!(crate::peer::has_name(&certificate, "*.API.example"));
    assert!(!crate::peer::has_name(&certificate, "a.api.example"));
    assert!(!crate::peer::has_name(&certificate, "https://outside.example/B"));
}

#[test]
fn a_root_that_is_not_given_is_not_trusted_unless_nothing_is_looked_at() {
    let (one, two) = (outside(false), outside(false));
    assert!(one.meet(&two.rule(TlsMode::Simple), "api.example").is_err());
    let blind = ClientTls { insecure: true, ..two.rule(TlsMode::Simple) };
    assert_eq!(one.meet(&blind, "other.example"), Ok(()));
}

#[test]
fn mutual_shows_a_certificate_and_has_to_have_one() {
    let outside = outside(true);
    let mut rule = outside.rule(TlsMode::Mutual);
    assert!(outside.meet(&outside.rule(TlsMode::Simple), "api.example").is_err());
    let none = outside.meet(&rule, "api.example").unwrap_err();
    assert_eq!(none, "the mode MUTUAL needs a certificate and a key");
    rule.client = Some(outside.client.clone());
    assert_eq!(outside.meet(&rule, "api.example"), Ok(()));
}

#[test]
fn what_cannot_be_used_says_why() {
    let tls = OutsideTls::default();
    let rule = |ca| ClientTls { mode: TlsMode::Simple, ca: Some(ca), ..ClientTls::default() };
    let why = |ca| tls.client_config(&rule(ca), b"").unwrap_err().to_string();
    assert!(
        why(KeyMaterial::File("/none/such".to_owned())).starts_with("/none/such cannot be used")
    );
    assert!(why(KeyMaterial::Inline(b"no pem".to_vec())).contains("it holds no certificate"));
    let mesh = ClientTls { mode: TlsMode::IstioMutual, ..ClientTls::default() };
    assert!(tls.client_config(&mesh, b"").unwrap_err().to_string().contains("not enrolled"));
}

#[test]
fn a_configuration_is_made_once_for_a_while() {
    let outside = outside(false);
    let tls = OutsideTls::default();
    let rule = outside.rule(TlsMode::Simple);
    let first = tls.client_config(&rule, b"h2").unwrap();
    assert!(Arc::ptr_eq(&first, &tls.client_config(&rule, b"h2").unwrap()));
    assert!(!Arc::ptr_eq(&first, &tls.client_config(&rule, b"http/1.1").unwrap()));
    assert_eq!(first.alpn_protocols, [b"h2"]);
}
