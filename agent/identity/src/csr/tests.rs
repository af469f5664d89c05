//! What is taken for a request, and what is not.

use proptest::prelude::*;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PublicKeyData, SignatureAlgorithm,
};

use super::*;

fn request(algorithm: &'static SignatureAlgorithm) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    (key, request.der().to_vec())
}

fn pem(der: &[u8]) -> String {
    let text = crate::testing::pem("CERTIFICATE REQUEST", der);
    assert!(text.len() < MAX_PEM);
    text
}

#[test]
fn the_key_of_a_request_is_taken_and_nothing_else() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let (key, der) = request(algorithm);
        let parsed = CertificateRequest::parse(&pem(&der)).unwrap();
        assert_eq!(parsed.key().der_bytes(), key.der_bytes());
    }
}

#[test]
fn a_key_of_another_kind_is_refused_by_its_name() {
    let (_, der) = request(&PKCS_ECDSA_P521_SHA512);
    let refused = CertificateRequest::parse(&pem(&der)).unwrap_err();
    assert!(refused.to_string().contains("P-256"), "{refused}");
    assert!(matches!(refused, RequestError::Key(_)), "{refused}");
}

#[test]
fn a_request_that_another_key_has_signed_is_refused() {
    let (ours, der) = request(&PKCS_ECDSA_P256_SHA256);
    let (theirs, _) = request(&PKCS_ECDSA_P256_SHA256);
    let at = der.windows(65).position(|window| window == ours.der_bytes()).unwrap();
    let mut forged = der.clone();
    forged[at..at + 65].copy_from_slice(theirs.der_bytes());
    assert_eq!(CertificateRequest::parse(&pem(&forged)).unwrap_err(), RequestError::Signature);
}

#[test]
fn none_several_and_too_long_ones_are_refused() {
    let (_, der) = request(&PKCS_ECDSA_P256_SHA256);
    let one = pem(&der);
    assert!(matches!(CertificateRequest::parse(""), Err(RequestError::Pem(_))));
    assert_eq!(CertificateRequest::parse(&one.repeat(2)).unwrap_err(), RequestError::Several(2));
    let long = format!("{}{one}", "#".repeat(MAX_PEM));
    assert!(matches!(CertificateRequest::parse(&long), Err(RequestError::TooLong(_))));
    let followed = pem(&[der.clone(), vec![0; 3]].concat());
    let refused = CertificateRequest::parse(&followed).unwrap_err();
    assert_eq!(refused, RequestError::Der("3 bytes follow it".to_owned()));
}

proptest! {
    #[test]
    fn whatever_comes_is_refused_or_is_signed_with_its_key(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        prop_assert!(CertificateRequest::parse(&pem(&bytes)).is_err());
        prop_assert!(CertificateRequest::parse(&String::from_utf8_lossy(&bytes)).is_err());
    }

    /// One byte is changed: what is signed over, the signature itself, or how they are written.
    #[test]
    fn no_changed_request_brings_another_key(at in any::<prop::sample::Index>(), by in 1_u8..) {
        let (key, mut der) = request(&PKCS_ECDSA_P256_SHA256);
        let at = at.index(der.len());
        der[at] ^= by;
        if let Ok(parsed) = CertificateRequest::parse(&pem(&der)) {
            prop_assert_eq!(parsed.key().der_bytes(), key.der_bytes());
        }
    }
}
