//! Requests for certificates: one is taken only with a key that stands in it and signs it, and what is made of
//! it is for who was said, whatever else it asks for.

use std::{sync::OnceLock, time::Duration};

use undermesh_identity::{CaMaterial, CaOptions, CertificateRequest, peer_identity};

use crate::source::Source;

const SEEDS: [&str; 2] = [
    // ECDSA, with names of others (openssl).
    "MIIBHDCBwgIBADAPMQ0wCwYDVQQKDARzaG9wMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEvBJ8gfXANrs3KUnJztAvKxlUIFi/wsv5\
     lcEkDAk6vVPAXTJstCpBkgm0dFLA2+nU4M/4RhqMVu9XfjimKdXbxaBRME8GCSqGSIb3DQEJDjFCMEAwPgYDVR0RBDcwNYIMYmFuay5l\
     eGFtcGxlhiVzcGlmZmU6Ly9jbHVzdGVyLmxvY2FsL25zL3Nob3Avc2Evd2ViMAoGCCqGSM49BAMCA0kAMEYCIQCVOpTOX56p8eC6gAuw\
     Ctv/nWn3gzUNaxnH/FrQNuqijwIhAI1E7U3VHRdqBjyH1CtLY/nGo/jF2EwsY8pzzNJn5qoW",
    // Ed25519.
    "MH8wMwIBADAAMCowBQYDK2VwAyEAIPdv+xMk+PON0vWacpqc7Yw7WHEqZYgXoMwDgFw06VOgADAFBgMrZXADQQDnIWUVcFjYc0r6ic8f\
     6YECr6sry4HlG0tNtakRfnFsqGsyED0ej4xA/AplI5mIUp/SACDJssEKqdAMpuoYMPsH",
];

pub(super) const DICTIONARY: &[&[u8]] = &[
    b"-----BEGIN CERTIFICATE REQUEST-----\n",
    b"-----END CERTIFICATE REQUEST-----\n",
    b"-----BEGIN CERTIFICATE-----\n",
    b"\n",
    &[0x30],
    &[0x30, 0x82],
    &[0x03],
    &[0x06, 0x03, 0x2b, 0x65, 0x70],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01],
];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    if source.flag() {
        // As it is: how it is framed is looked at as well.
        let text = String::from_utf8_lossy(source.rest()).into_owned();
        check(&text, None);
        return;
    }
    let mut der = source.rest().to_vec();
    // A request whose bytes are changed here and there.
    if der.first() == Some(&0) {
        let mut edits = Source::new(&der[1..]);
        let mut changed = decode(edits.pick(&SEEDS));
        while !edits.is_empty() {
            let at = usize::from(edits.word()) % changed.len();
            changed[at] = edits.byte();
        }
        der = changed;
    }
    let text = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        encode(&der)
    );
    check(&text, Some(&der));
}

fn check(text: &str, der: Option<&[u8]>) {
    static AUTHORITY: OnceLock<CaMaterial> = OnceLock::new();
    let Ok(request) = CertificateRequest::parse(text) else { return };
    if let Some(der) = der {
        let key = request.public_key();
        assert!(der.windows(key.len()).any(|window| window == key), "a key of somewhere else");
    }
    let authority =
        AUTHORITY.get_or_init(|| CaMaterial::make(&CaOptions::default()).expect("an authority"));
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity");
    let now = std::time::SystemTime::now().into();
    let issued = authority.sign(&id, &request, Duration::from_secs(60), now).expect("a signature");
    let body: String = issued.chain[0].lines().filter(|line| !line.starts_with('-')).collect();
    let leaf = decode(&body).into();
    assert_eq!(peer_identity(Some(&[leaf]), now).expect("one identity"), id);
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

fn decode(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte))
        .map(|at| u32::try_from(at).expect("a digit"))
        .collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit);
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let framed = |text: &str| {
        let lines = format!(
            "\u{1}-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
        );
        lines.into_bytes()
    };
    let whole = SEEDS.iter().map(|text| [vec![0], decode(text)].concat());
    let edited = [[0, 0, 0].to_vec(), [0, 0, 1, 0, 9, 3].to_vec()];
    SEEDS.iter().map(|text| framed(text)).chain(whole).chain(edited).collect()
}
