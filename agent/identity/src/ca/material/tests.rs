//! What an authority in memory signs, and what is not taken for one.

use super::*;
use crate::{
    CaDirectory,
    testing::{TempDir, id, init, request, signed, trusted_by},
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_is_signed_has_the_requests_key_and_the_identity_that_was_said() {
    let authority = CaMaterial::make(&CaOptions::default()).unwrap();
    let now = OffsetDateTime::now_utc();
    let issued = signed(&authority, &id("web"), HOUR, now);
    assert_eq!(issued.not_after, now + HOUR);
    let chain = issued.chain[..2].concat();
    trusted_by(&chain, &issued.chain[2], now).unwrap();
    let leaf = pem::certificates(&issued.chain[0], Path::new("")).unwrap().swap_remove(0);
    assert_eq!(crate::peer_identity(Some(&[leaf]), now).unwrap(), id("web"));
    let other = CaMaterial::make(&CaOptions::default()).unwrap();
    assert!(trusted_by(&chain, other.bundle(), now).is_err());
}

#[test]
fn nothing_outlives_the_issuer_and_an_expired_one_signs_nothing() {
    let options = CaOptions { intermediate_lifetime: HOUR, ..CaOptions::default() };
    let authority = CaMaterial::make(&options).unwrap();
    let now = OffsetDateTime::now_utc();
    let issued = signed(&authority, &id("web"), HOUR * 5, now);
    assert!(issued.not_after <= now + HOUR);
    let (_, parsed) = request();
    let refused = authority.sign(&id("web"), &parsed, HOUR, now + HOUR * 2).unwrap_err();
    assert!(refused.to_string().contains("has expired"), "{refused}");
}

#[test]
fn a_directory_is_read_without_the_roots_key() {
    let dir = TempDir::new();
    init(&dir.path());
    let authority = CaMaterial::read(&dir.path()).unwrap();
    assert!(!authority.has_root_key());
    let described = CaDirectory::open(&dir.path()).unwrap().describe().unwrap();
    assert_eq!(authority.describe_issuer().unwrap(), described.intermediate);
}

#[test]
fn entries_that_do_not_belong_together_are_refused() {
    let one = CaMaterial::make(&CaOptions::default()).unwrap().entries();
    let other = CaMaterial::make(&CaOptions::default()).unwrap().entries();
    for (name, part) in [
        ("intermediate.key", "its key is another one's"),
        ("bundle.pem", "does not hold the root that issued"),
        ("root.key", "its key is another one's"),
    ] {
        let mut mixed = one.clone();
        mixed.insert(name.to_owned(), other[name].clone());
        let refused = CaMaterial::from_entries(&mixed).unwrap_err().to_string();
        assert!(refused.contains(part), "{name}: {refused}");
        assert!(!refused.contains("PRIVATE"), "{refused}");
    }
    for name in ["intermediate.crt", "intermediate.key", "bundle.pem"] {
        let mut less = one.clone();
        less.remove(name);
        let refused = CaMaterial::from_entries(&less).unwrap_err().to_string();
        assert!(refused.contains(name), "{name}: {refused}");
    }
}
