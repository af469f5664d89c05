//! Directories on disk: what is written, what is refused, what the certificates say.

use std::{fs, os::unix::fs::PermissionsExt};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::*;
use crate::testing::{TempDir, id, init};

#[test]
fn keys_are_private_and_an_authority_is_never_overwritten() {
    let dir = TempDir::new();
    init(&dir.path());
    for key in ["root.key", "intermediate.key"] {
        let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    let again = CaDirectory::init(&dir.path(), &CaOptions::default()).unwrap_err();
    assert!(matches!(again, AuthorityError::Exists(_)), "{again}");
    let key = fs::read(dir.path().join("root.key")).unwrap();
    for name in ["root.crt", "intermediate.crt", "intermediate.key", "bundle.pem"] {
        fs::rename(dir.path().join(name), dir.0.join(name)).unwrap();
    }
    let lone_key = CaDirectory::init(&dir.path(), &CaOptions::default()).unwrap_err();
    assert!(matches!(lone_key, AuthorityError::Exists(_)), "{lone_key}");
    assert_eq!(fs::read(dir.path().join("root.key")).unwrap(), key);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = TempDir::new();
    init(&dir.path());
    for (key, mode) in [("intermediate.key", 0o644), ("root.key", 0o640)] {
        let path = dir.path().join(key);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let open = CaDirectory::open(&dir.path()).unwrap_err().to_string();
        assert!(open.contains(key) && open.contains(&format!("mode {mode:o}")), "{open}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    CaDirectory::open(&dir.path()).unwrap();
}

#[test]
fn a_node_needs_no_root_key_and_mismatched_files_are_named() {
    let dir = TempDir::new();
    init(&dir.path());
    let out = dir.0.join("node");
    CaDirectory::issue_intermediate(&dir.path(), &out, &CaOptions::default()).unwrap();
    assert!(!out.join("root.key").exists());
    let node = CaDirectory::open(&out).unwrap();
    node.sign(&id("web"), Duration::from_secs(60), OffsetDateTime::now_utc()).unwrap();
    fs::copy(dir.path().join("intermediate.key"), out.join("intermediate.key")).unwrap();
    let error = CaDirectory::open(&out).unwrap_err().to_string();
    assert!(error.contains("it is not the key of intermediate.crt"), "{error}");
}

#[test]
fn a_certificate_never_outlives_its_issuer() {
    let dir = TempDir::new();
    let intermediate_lifetime = Duration::from_secs(3600);
    let options = CaOptions { intermediate_lifetime, ..CaOptions::default() };
    let ca = CaDirectory::init(&dir.path(), &options).unwrap();
    let now = OffsetDateTime::now_utc();
    let svid = ca.sign(&id("web"), Duration::from_secs(86_400), now).unwrap();
    assert!(svid.not_after() <= now + Duration::from_secs(3601));
    let late = ca.sign(&id("web"), Duration::from_secs(60), now + Duration::from_secs(7200));
    assert!(late.unwrap_err().to_string().contains("has expired; run `undermesh ca rotate`"));
}

#[test]
fn an_intermediate_never_outlives_its_root() {
    let dir = TempDir::new();
    let day = Duration::from_secs(24 * 3600);
    let short =
        CaOptions { root_lifetime: day * 2, intermediate_lifetime: day, ..CaOptions::default() };
    let root = CaDirectory::init(&dir.path(), &short).unwrap().describe().unwrap().roots;
    let long = CaOptions { intermediate_lifetime: day * 30, ..CaOptions::default() };
    let out = dir.0.join("node");
    let node = CaDirectory::issue_intermediate(&dir.path(), &out, &long).unwrap();
    assert_eq!(node.describe().unwrap().intermediate.not_after, root[0].not_after);
}

#[test]
fn lifetimes_that_make_no_sense_are_refused_and_leave_nothing_behind() {
    let dir = TempDir::new();
    let year = Duration::from_secs(365 * 24 * 3600);
    for (root, intermediate, complaint) in [
        (year, year * 2, "would outlive its root"),
        (year, Duration::ZERO, "would never be valid"),
        (year * 10_000, year, "ends after the year 9999"),
        (Duration::MAX, Duration::MAX, "ends after the year 9999"),
    ] {
        let options = CaOptions {
            root_lifetime: root,
            intermediate_lifetime: intermediate,
            ..CaOptions::default()
        };
        let error = CaDirectory::init(&dir.path(), &options).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
        assert!(!dir.path().exists());
    }
    let ca = CaDirectory::init(&dir.path(), &CaOptions::default()).unwrap();
    let forever = ca.sign(&id("web"), Duration::MAX, OffsetDateTime::now_utc());
    assert!(forever.unwrap_err().to_string().contains("ends after the year 9999"));
}

#[test]
fn an_authority_keeps_its_trust_domain() {
    let dir = TempDir::new();
    let ours = CaOptions { trust_domain: "our.mesh".parse().unwrap(), ..CaOptions::default() };
    CaDirectory::init(&dir.path(), &ours).unwrap();
    let other = CaOptions::default();
    let out = dir.0.join("node");
    let bundle = fs::read(dir.path().join("bundle.pem")).unwrap();
    for refused in [
        CaDirectory::rotate(&dir.path(), &other, || panic!("the rotation began")),
        CaDirectory::issue_intermediate(&dir.path(), &out, &other),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("say `--trust-domain our.mesh`"), "{error}");
    }
    assert_eq!(fs::read(dir.path().join("bundle.pem")).unwrap(), bundle);
    assert!(!out.exists());
    CaDirectory::rotate(&dir.path(), &ours, || ()).unwrap();
    CaDirectory::issue_intermediate(&dir.path(), &out, &ours).unwrap();
}

#[test]
fn a_root_of_the_same_name_is_not_taken_for_the_issuer() {
    let dir = TempDir::new();
    init(&dir.path());
    let path = dir.path().join("root.crt");
    let genuine = pem::certificates(&fs::read_to_string(&path).unwrap(), &path).unwrap().remove(0);
    let key = KeyPair::generate().unwrap();
    let impostor = impostor_of(&genuine, &key);
    assert_eq!(subject(&impostor), subject(&genuine));
    let directory = CaDirectory::open(&dir.path()).unwrap();
    assert!(inspect::is_issued_by(&directory.intermediate, &genuine));
    assert!(!inspect::is_issued_by(&directory.intermediate, &impostor));
}

/// A self-signed root with the names of another.
fn impostor_of(genuine: &CertificateDer<'_>, key: &KeyPair) -> CertificateDer<'static> {
    let (_, parsed) = X509Certificate::from_der(genuine).unwrap();
    let text = |mut values: Vec<&str>| values.swap_remove(0).to_owned();
    let organization =
        text(parsed.subject().iter_organization().map(|it| it.as_str().unwrap()).collect());
    let common = text(parsed.subject().iter_common_name().map(|it| it.as_str().unwrap()).collect());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(key).unwrap().der().clone()
}

fn subject(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    parsed.subject().as_raw().to_vec()
}

#[test]
fn a_workload_certificate_says_what_spiffe_wants_and_no_more() {
    let dir = TempDir::new();
    let ca = CaDirectory::init(&dir.path(), &CaOptions::default()).unwrap();
    let now = OffsetDateTime::now_utc();
    let svid = ca.sign(&id("web"), Duration::from_secs(3600), now).unwrap();
    let chain = &svid.certified_key().cert;
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "an empty subject makes the names critical (RFC 5280, 4.2.1.6)");
    assert_eq!(
        names.value.general_names,
        [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/web")]
    );
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any);
    let early = now - svid.not_before();
    assert!(early >= time::Duration::seconds(60) && early < time::Duration::seconds(62), "{early}");
    let (_, issuer) = X509Certificate::from_der(&chain[1]).unwrap();
    assert!(issuer.is_ca());
    assert_eq!(issuer.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let usage = issuer.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert_eq!(inspect::trust_domain(&chain[1]), Some(TrustDomain::default()));
}

#[test]
fn no_key_is_shown_by_debug() {
    let dir = TempDir::new();
    let ca = CaDirectory::init(&dir.path(), &CaOptions::default()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![];
    let leaf = params.self_signed(&key).unwrap().der().clone();
    let der = key.serialize_der();
    let svid = Svid::new(id("web"), vec![leaf], &PrivateKeyDer::Pkcs8(der.clone().into())).unwrap();
    let authority = crate::DirectoryAuthority::open(&dir.path()).unwrap();
    // PKCS #8 of a P-256 key: the secret scalar is 32 bytes from the 36th on.
    assert_eq!(der[34..36], [0x04, 32], "another layout of keys");
    let secret = &der[36..68];
    let decimal = format!("{secret:?}");
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let shown = format!("{svid:?}");
    assert!(shown.contains(svid.serial()));
    assert!(!shown.contains(decimal.trim_matches(['[', ']'])) && !shown.contains(&hex), "{shown}");
    assert!(!shown.to_lowercase().contains("key"), "{shown}");
    let shown = format!("{ca:?} {authority:?} {:?}", ca.describe().unwrap());
    for name in ["root.key", "intermediate.key"] {
        let pem = fs::read_to_string(dir.path().join(name)).unwrap();
        let line = pem.lines().nth(1).unwrap();
        assert!(line.len() > 32 && !shown.contains(line), "{name}: {shown}");
    }
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}
