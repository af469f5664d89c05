//! An agent's side against the real server: what it gets, what it does not take, and what becomes of it
//! while nobody answers.

use std::{sync::atomic::Ordering, time::Instant};

use time::OffsetDateTime;

use super::*;
use crate::{
    CaMaterial, CaOptions, CertificateState, IdentityConfig, IdentityStore,
    issuance::testing::{Running, start},
    testing::{TempDir, id},
};

fn remote(running: &Running, dir: &TempDir, token: &str) -> RemoteAuthority {
    let bundle = running.authority.borrow().as_ref().unwrap().bundle().to_owned();
    fs::write(dir.0.join("roots.pem"), bundle).unwrap();
    fs::write(dir.0.join("token"), format!("{token}\n")).unwrap();
    RemoteAuthority::new(RemoteConfig {
        host: running.address.ip().to_string(),
        port: running.address.port(),
        name: "controller.mesh.svc".to_owned(),
        roots: dir.0.join("roots.pem"),
        token: dir.0.join("token"),
        cluster: "Kubernetes".to_owned(),
        trust_domain: TrustDomain::default(),
    })
    .unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_agent_gets_certificates_for_its_pods_and_is_told_why_not_for_others() {
    let (running, dir) = (start().await, TempDir::new());
    let remote = remote(&running, &dir, "agent");
    let svid = remote.sign(&id("web"), HOUR).await.unwrap();
    assert_eq!(svid.id(), &id("web"));
    let left = svid.not_after() - OffsetDateTime::now_utc();
    assert!((left.whole_seconds() - 3600).abs() < 5, "{left}");
    let refused = remote.sign(&id("db"), HOUR).await.unwrap_err().to_string();
    assert!(refused.contains("gRPC status 7"), "{refused}");
    assert!(refused.contains("no pod on node a runs as"), "{refused}");
    fs::write(dir.0.join("token"), "web").unwrap();
    let refused = remote.sign(&id("cart"), HOUR).await.unwrap_err().to_string();
    assert!(refused.contains("no node agent"), "{refused}");
    fs::write(dir.0.join("token"), "").unwrap();
    let refused = remote.sign(&id("web"), HOUR).await.unwrap_err().to_string();
    assert!(refused.contains("it holds no token"), "{refused}");
    let notes = running.notes.0.lock().unwrap().join("\n");
    assert!(notes.starts_with("issued web on a\nrefused spiffe"), "{notes}");
}

#[tokio::test]
async fn a_server_that_is_somebody_else_gets_no_token() {
    let (running, dir) = (start().await, TempDir::new());
    let mut other = remote(&running, &dir, "agent");
    other = RemoteAuthority::new(RemoteConfig {
        name: "istiod.istio-system.svc".to_owned(),
        ..other.config
    })
    .unwrap();
    let refused = other.sign(&id("web"), HOUR).await.unwrap_err().to_string();
    assert!(refused.contains("istiod.istio-system.svc"), "{refused}");
    let elsewhere = CaMaterial::make(&CaOptions::default()).unwrap();
    let remote = remote(&running, &dir, "agent");
    fs::write(dir.0.join("roots.pem"), elsewhere.bundle()).unwrap();
    let refused = remote.sign(&id("web"), HOUR).await.unwrap_err().to_string();
    assert!(refused.contains("TLS with 127.0.0.1"), "{refused}");
    assert_eq!(running.cluster.reviews.load(Ordering::Relaxed), 0);
}

/// A server whose authority is replaced by another one: its own certificate is still good for the
/// connection that is open, and what it issues is not.
#[tokio::test]
async fn a_certificate_that_nobody_here_trusts_is_not_taken() {
    let (running, dir) = (start().await, TempDir::new());
    let remote = remote(&running, &dir, "agent");
    remote.sign(&id("web"), HOUR).await.unwrap();
    let other = CaMaterial::make(&CaOptions::default()).unwrap();
    running.authority.send_replace(Some(Arc::new(other)));
    let refused = remote.sign(&id("web"), HOUR).await.unwrap_err().to_string();
    assert!(refused.contains("does not go back to"), "{refused}");
    // Once the bundle has it, it is.
    let bundle = running.authority.borrow().as_ref().unwrap().bundle().to_owned();
    fs::write(dir.0.join("roots.pem"), bundle).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = remote.sign(&id("web"), HOUR).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn answers_for_another_key_another_identity_or_without_a_chain_are_not_taken() {
    let (running, dir) = (start().await, TempDir::new());
    let remote = remote(&running, &dir, "agent");
    let authority = running.authority.borrow().clone().unwrap();
    let (key, request) = crate::testing::request();
    let issued = authority.sign(&id("web"), &request, HOUR, OffsetDateTime::now_utc()).unwrap();
    let roots = remote.trusted().unwrap().roots;
    remote.check(Some(&id("web")), &key, &issued.chain, &roots).unwrap();
    let refused = remote.check(Some(&id("cart")), &key, &issued.chain, &roots).unwrap_err();
    assert!(refused.contains("a certificate for spiffe"), "{refused}");
    let (another, _) = crate::testing::request();
    let refused = remote.check(Some(&id("web")), &another, &issued.chain, &roots).unwrap_err();
    assert!(refused.contains("another key"), "{refused}");
    for chain in [&issued.chain[..0], &issued.chain[..1], &["x".to_owned(), "y".to_owned()]] {
        assert!(remote.check(Some(&id("web")), &key, chain, &roots).is_err(), "{chain:?}");
    }
}

#[tokio::test]
async fn a_server_that_stops_answers_who_has_asked_and_waits_for_nobody_else() {
    let (running, dir) = (start().await, TempDir::new());
    let agent = remote(&running, &dir, "agent");
    let _silent = tokio::net::TcpStream::connect(running.address).await.unwrap();
    running.cluster.is_slow.store(true, Ordering::Relaxed);
    let reviews = || running.cluster.reviews.load(Ordering::Relaxed);
    let asking = tokio::spawn(async move { agent.sign(&id("cart"), HOUR).await });
    while reviews() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.stop.send_replace(true);
    let began = Instant::now();
    running.serving.await.unwrap();
    let took = began.elapsed();
    let notes = running.notes.0.lock().unwrap().join("\n");
    assert!(notes.ends_with("issued cart on a"), "{notes}");
    asking.await.unwrap().unwrap();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_store_keeps_what_it_has_while_nobody_answers_and_asks_again() {
    let (running, dir) = (start().await, TempDir::new());
    let remote = remote(&running, &dir, "agent");
    let config = IdentityConfig { lifetime: Duration::from_secs(4), ..IdentityConfig::default() };
    let store = IdentityStore::new(Arc::new(remote), config).unwrap();
    store.set_wanted([id("web"), id("cart")].into());
    store.round().await;
    let serials =
        || -> Vec<String> { store.certificates().iter().map(|one| one.serial.clone()).collect() };
    let first = serials();
    running.cluster.is_down.store(true, Ordering::Relaxed);
    running.stop.send_replace(true);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let began = Instant::now();
    store.round().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    for status in store.certificates() {
        assert_eq!(status.state, CertificateState::Valid);
        assert!(status.last_error.is_some(), "{status:?}");
    }
    assert_eq!(serials(), first);
}
