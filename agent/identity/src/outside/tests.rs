//! Rules that can and cannot be used, and handshakes in memory.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConnection, RootCertStore, ServerConfig, ServerConnection, pki_types::ServerName,
};

use super::*;

/// Serial number of the server's certificate.
const SERIAL: u64 = 7;

/// An authority, and a server that it has certified.
struct Outside {
    ca: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
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
    let mut params = CertificateParams::new(vec!["api.example".to_owned()]).unwrap();
    params.serial_number = Some(SERIAL.into());
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
    let inline = |text: String| KeyMaterial::inline(text);
    Outside {
        ca: ca.pem(),
        server: Arc::new(server.with_single_cert(chain, der).unwrap()),
        client: (inline(certificate.pem()), inline(key.serialize_pem())),
        issuer: ca,
    }
}

impl Outside {
    fn rule(&self, mode: TlsMode) -> ClientTls {
        let ca = Some(KeyMaterial::inline(self.ca.clone()));
        ClientTls { mode, ca, ..ClientTls::default() }
    }

    /// Shakes hands in memory.
    fn meet(&self, tls: &ClientTls, name: &str) -> Result<(), String> {
        let config = OutsideTls::default().client_config(tls, &[]);
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
    let why = |ca| tls.client_config(&rule(ca), &[]).unwrap_err().to_string();
    assert!(
        why(KeyMaterial::File("/none/such".to_owned())).starts_with("/none/such cannot be used")
    );
    assert!(why(KeyMaterial::inline("no pem")).contains("it holds no certificate"));
    let mesh = ClientTls { mode: TlsMode::IstioMutual, ..ClientTls::default() };
    assert!(tls.client_config(&mesh, &[]).unwrap_err().to_string().contains("for workloads"));
}

#[test]
fn a_configuration_is_made_once_for_a_while() {
    let outside = outside(false);
    let tls = OutsideTls::default();
    let rule = outside.rule(TlsMode::Simple);
    let first = tls.client_config(&rule, &[b"h2"]).unwrap();
    assert!(Arc::ptr_eq(&first, &tls.client_config(&rule, &[b"h2"]).unwrap()));
    assert!(!Arc::ptr_eq(&first, &tls.client_config(&rule, &[b"http/1.1"]).unwrap()));
    assert_eq!(first.alpn_protocols, [b"h2"]);
}

/// What `ca` has revoked.
fn revoked(ca: &CertifiedIssuer<'_, KeyPair>, serials: &[u64], until: i32) -> KeyMaterial {
    let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
        serial_number: (*serial).into(),
        revocation_time: rcgen::date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(until, 1, 1),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    KeyMaterial::inline(list.signed_by(ca).unwrap().pem().unwrap())
}

#[test]
fn what_was_revoked_is_refused_whatever_its_name_and_so_is_what_nobody_can_tell() {
    let outside = outside(false);
    let with = |crl: KeyMaterial, names: &[&str]| {
        let subject_alt_names = names.iter().map(|name| (*name).to_owned()).collect();
        let rule = outside.rule(TlsMode::Simple);
        outside.meet(&ClientTls { crl: Some(crl), subject_alt_names, ..rule }, "api.example")
    };
    let ca = &outside.issuer;
    assert_eq!(with(revoked(ca, &[1], 4000), &[]), Ok(()));
    assert!(with(revoked(ca, &[1, SERIAL], 4000), &[]).unwrap_err().contains("Revoked"));
    let named = with(revoked(ca, &[SERIAL], 4000), &["api.example"]);
    assert!(named.unwrap_err().contains("Revoked"));
    let wrong = with(revoked(ca, &[1], 4000), &["other.example"]).unwrap_err();
    assert!(wrong.contains("is for api.example instead of other.example"), "{wrong}");
    // A list that is too old, one of somebody else's, and none at all where one should be.
    assert!(with(revoked(ca, &[1], 2021), &[]).unwrap_err().contains("xpired"));
    let other = outside_of(false, &TLS13);
    assert!(with(revoked(&other.issuer, &[], 4000), &[]).is_err());
    assert!(with(KeyMaterial::inline("no list"), &[]).unwrap_err().contains("it holds none"));
}

#[test]
fn what_is_missing_is_not_done_without() {
    let outside = outside(true);
    let missing = || KeyMaterial::Missing("Secret shop/s does not exist".to_owned());
    let mut rule = outside.rule(TlsMode::Mutual);
    rule.client = Some((missing(), missing()));
    assert_eq!(outside.meet(&rule, "api.example").unwrap_err(), "Secret shop/s does not exist");
    rule.client = Some(outside.client.clone());
    rule.ca = Some(missing());
    assert_eq!(outside.meet(&rule, "api.example").unwrap_err(), "Secret shop/s does not exist");
}
