//! Certificates, roots and authorities that change while the store is in use.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use undermesh_model::{SpiffeId, Wire};

use super::{Node, also_trust, handshake, node, talk};
use crate::{
    AuthorityError, CaDirectory, CaOptions, CertificateAuthority, CertificateState,
    DirectoryAuthority, IdentityConfig, IdentityStore, SignFuture, StoreError, classify,
    testing::{TempDir, id, init},
};

#[tokio::test]
async fn certificates_are_renewed_well_before_they_expire_under_a_live_connection() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let server = node.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    let mut pair = handshake(client, server).unwrap();
    let serial = node.store.certificates()[0].serial.clone();
    node.clock.advance(1500);
    node.store.round().await;
    assert_eq!(node.store.certificates()[0].serial, serial, "renewed too early");
    node.clock.advance(400);
    let generation = node.store.generation();
    node.store.round().await;
    assert_ne!(node.store.certificates()[0].serial, serial, "not renewed at half its life");
    assert!(node.store.generation() > generation);
    talk(&mut pair);
}

#[tokio::test]
async fn roots_overlap_while_they_are_rotated_and_the_old_one_ends_with_prune() {
    let dir = TempDir::new();
    init(&dir.path());
    let old = node(&dir.path(), &["web", "cart"], 3600).await;
    let before = old.store.certificates()[0].clone();
    let generation = old.store.generation();
    let settle = || old.store.follow_authority();
    CaDirectory::rotate(&dir.path(), &CaOptions::default(), settle).unwrap();
    assert!(old.store.generation() > generation, "the bundle was not reloaded");
    let new = node(&dir.path(), &["web", "cart"], 3600).await;
    assert_eq!((new.store.root_count(), new.store.roots().len()), (2, 2));
    let client_of =
        |node: &Node| node.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let server_of = |node: &Node| node.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    let (old_client, old_server) = (client_of(&old), server_of(&old));
    handshake(client_of(&new), Arc::clone(&old_server)).unwrap();
    handshake(Arc::clone(&old_client), server_of(&new)).unwrap();
    old.store.round().await;
    let after = old.store.certificates()[0].clone();
    assert_ne!(after.serial, before.serial, "not renewed under the new issuer");
    assert_ne!(after.issuer, before.issuer);
    assert_eq!(CaDirectory::prune(&dir.path()).unwrap(), 1);
    new.store.round().await;
    let (error, side) = handshake(client_of(&new), old_server).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_unknown_issuer", "client"));
    let (error, side) = handshake(old_client, server_of(&new)).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_unknown_issuer", "server"));
    handshake(client_of(&new), server_of(&old)).unwrap();
}

#[tokio::test]
async fn a_broken_bundle_leaves_the_old_one_in_force() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let generation = node.store.generation();
    let silent = Arc::new(SilentAuthority(DirectoryAuthority::open(&dir.path()).unwrap()));
    let no_anchor = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    for text in ["nonsense", "", no_anchor] {
        fs::write(dir.path().join("bundle.pem"), text).unwrap();
        node.store.round().await;
        assert_eq!((node.store.root_count(), node.store.generation()), (1, generation), "{text:?}");
        let client = node.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
        handshake(client, node.store.server_config(&id("cart"), Wire::Hbone).unwrap()).unwrap();
    }
    let refused = IdentityStore::new(silent, IdentityConfig::default()).err().unwrap();
    assert!(refused.to_string().contains("no certificate that can be a trust anchor"), "{refused}");
}

#[tokio::test]
async fn an_authority_that_fails_is_asked_again_less_and_less_often() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &[], 100_000).await;
    let key = dir.path().join("intermediate.key");
    let away = dir.path().join("away");
    fs::rename(&key, &away).unwrap();
    node.store.set_wanted([id("web")].into());
    let failures = || node.store.lock().entries[&id("web")].failures;
    node.store.round().await;
    node.store.round().await;
    assert_eq!(failures(), 1, "asked again at once");
    for (seconds, expected) in [(1, 2), (1, 3), (1, 3), (1, 4), (60, 5), (60, 6), (3600, 7)] {
        node.clock.advance(seconds);
        node.store.round().await;
        assert_eq!(failures(), expected);
    }
    let status = &node.store.certificates()[0];
    assert_eq!(status.state, CertificateState::Pending);
    assert!(status.last_error.as_ref().unwrap().contains("intermediate.key"), "{status:?}");
    fs::rename(&away, &key).unwrap();
    node.clock.advance(60);
    node.store.round().await;
    let status = &node.store.certificates()[0];
    assert_eq!((status.state, &status.last_error, failures()), (CertificateState::Valid, &None, 0));
}

/// Never answers.
struct SilentAuthority(DirectoryAuthority);

impl CertificateAuthority for SilentAuthority {
    fn sign<'a>(&'a self, _: &'a SpiffeId, _: Duration) -> SignFuture<'a> {
        Box::pin(std::future::pending())
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        self.0.roots()
    }

    fn issuer(&self) -> Result<Vec<u8>, AuthorityError> {
        self.0.issuer()
    }
}

#[tokio::test]
async fn a_store_whose_authority_is_silent_can_be_stopped() {
    let dir = TempDir::new();
    init(&dir.path());
    let silent = SilentAuthority(DirectoryAuthority::open(&dir.path()).unwrap());
    let store = IdentityStore::new(Arc::new(silent), IdentityConfig::default()).unwrap();
    store.set_wanted([id("web")].into());
    let stop = watch::Sender::new(false);
    let mut running = tokio::spawn(Arc::clone(&store).run(stop.subscribe()));
    // Polls the task: it is inside `sign` now.
    tokio::task::yield_now().await;
    assert!(!running.is_finished());
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), &mut running).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_authority_that_does_not_answer_is_given_up_on() {
    let dir = TempDir::new();
    init(&dir.path());
    let silent = SilentAuthority(DirectoryAuthority::open(&dir.path()).unwrap());
    let config =
        IdentityConfig { sign_timeout: Duration::from_millis(1), ..IdentityConfig::default() };
    let store = IdentityStore::new(Arc::new(silent), config).unwrap();
    store.set_wanted([id("web"), id("cart")].into());
    tokio::time::timeout(Duration::from_secs(10), store.round()).await.unwrap();
    for status in store.certificates() {
        let error = status.last_error.unwrap();
        assert!(error.contains("has not answered within 1ms"), "{error}");
    }
    let refused = store.server_config(&id("web"), Wire::Hbone).unwrap_err();
    assert!(matches!(refused, StoreError::NoCertificate(_, Some(_))), "{refused}");
}

#[tokio::test]
async fn the_running_store_takes_up_a_new_bundle_by_itself() {
    let (ours, theirs) = (TempDir::new(), TempDir::new());
    init(&ours.path());
    init(&theirs.path());
    let store = node(&ours.path(), &[], 3600).await.store;
    let stop = watch::Sender::new(false);
    let mut generation = store.subscribe();
    let before = *generation.borrow_and_update();
    let running = tokio::spawn(Arc::clone(&store).run(stop.subscribe()));
    also_trust(&ours.path(), &theirs.path());
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, generation.wait_for(|now| *now > before))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(store.root_count(), 2);
    stop.send(true).unwrap();
    tokio::time::timeout(deadline, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_running_store_issues_what_becomes_wanted_and_forgets_the_rest() {
    let dir = TempDir::new();
    init(&dir.path());
    let store = node(&dir.path(), &[], 3600).await.store;
    let stop = watch::Sender::new(false);
    let running = tokio::spawn(Arc::clone(&store).run(stop.subscribe()));
    store.set_wanted([id("web")].into());
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, store.ready(&id("web"))).await.unwrap();
    store.server_config(&id("web"), Wire::Hbone).unwrap();
    store.set_wanted(BTreeSet::new());
    assert!(matches!(
        store.server_config(&id("web"), Wire::Hbone),
        Err(StoreError::NoCertificate(..))
    ));
    stop.send(true).unwrap();
    tokio::time::timeout(deadline, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_renewed_is_overdue_at_half_of_its_life_and_at_four_fifths() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web"], 1000).await;
    let overdue = || {
        let status = node.store.certificates().swap_remove(0);
        (status.life_percent.unwrap(), status.is_overdue(50), status.is_overdue(80))
    };
    let reported = || node.store.lock().entries[&id("web")].reported;
    assert_eq!(overdue(), (0, false, false));
    let (key, away) = (dir.path().join("intermediate.key"), dir.path().join("away"));
    fs::rename(&key, &away).unwrap();
    for (seconds, expected, report) in [
        (490, (49, false, false), 0),
        (20, (51, true, false), 50),
        (200, (71, true, false), 50),
        (100, (81, true, true), 80),
        (200, (101, true, true), 100),
    ] {
        node.clock.advance(seconds);
        node.store.round().await;
        let (percent, half, ending) = overdue();
        // A renewal is tried before half; what counts is whether it has failed by then.
        assert!((percent - expected.0).abs() <= 1, "{percent}");
        assert_eq!((half, ending, reported()), (expected.1, expected.2, report), "{percent}");
    }
    fs::rename(&away, &key).unwrap();
    node.clock.advance(60);
    node.store.round().await;
    assert_eq!((overdue(), reported()), ((0, false, false), 0));
}
