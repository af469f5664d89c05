//! What the tests of this crate have in common: directories that go, and time that moves when told.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, AtomicU32, Ordering},
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use time::OffsetDateTime;
use undermesh_model::{SpiffeId, TrustDomain};

use crate::{CaDirectory, CaMaterial, CaOptions, CertificateRequest, Clock, Issued};

/// A directory that goes with the test.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("um-identity-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("ca")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The system's clock plus what the test has added.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + time::Duration::seconds(self.0.load(Ordering::Relaxed))
    }
}

pub(crate) fn id(name: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", name)
}

pub(crate) fn init(path: &Path) {
    CaDirectory::init(path, &CaOptions::default()).unwrap();
}

/// One block of PEM (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut digits = String::with_capacity(der.len().div_ceil(3) * 4);
    for group in der.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            digits.push(if place > group.len() { '=' } else { char::from(digit) });
        }
    }
    let lines: Vec<&str> = digits
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A key, and a request that is signed with it.
pub(crate) fn request() -> (KeyPair, CertificateRequest) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let parsed = CertificateRequest::parse(&request.pem().unwrap()).unwrap();
    (key, parsed)
}

/// A certificate for a key of nobody in particular.
pub(crate) fn signed(
    authority: &CaMaterial,
    id: &SpiffeId,
    lifetime: Duration,
    now: OffsetDateTime,
) -> Issued {
    let (_, parsed) = request();
    authority.sign(id, &parsed, lifetime, now).unwrap()
}

/// Whether a chain leads to a root of a bundle.
pub(crate) fn trusted_by(
    chain: &str,
    bundle: &str,
    now: OffsetDateTime,
) -> Result<(), rustls::Error> {
    let read = |text| crate::pem::certificates(text, Path::new("")).unwrap();
    let chain = read(chain);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read(bundle));
    crate::verifier::verify_chain(&chain, &roots, now)
}
