//! Who gets which certificate, and in which words others are told that they do not.

use std::sync::atomic::Ordering;

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{
    testing::{FakeCluster, Notes, config},
    *,
};
use crate::{
    CaOptions, pem,
    testing::{TempDir, id, request},
};

struct Bench {
    issuance: Issuance,
    cluster: Arc<FakeCluster>,
    notes: Arc<Notes>,
}

fn bench() -> Bench {
    let material = Arc::new(CaMaterial::make(&CaOptions::default()).unwrap());
    let (cluster, notes) = (FakeCluster::shop(), Arc::new(Notes::default()));
    let authority = watch::Sender::new(Some(material)).subscribe();
    let observer: Arc<dyn Observer> = notes.clone();
    let asked: Arc<dyn Cluster> = cluster.clone();
    Bench { issuance: Issuance::new(config(), authority, asked, observer), cluster, notes }
}

fn credentials(token: &str) -> Credentials {
    let token = (!token.is_empty()).then(|| Zeroizing::new(token.to_owned()));
    Credentials { address: [10, 0, 0, 1].into(), svid: None, token }
}

fn proven(id: SpiffeId) -> Proven {
    Proven { id, expires: OffsetDateTime::now_utc() + Duration::from_secs(60) }
}

fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    made.pem().unwrap()
}

impl Bench {
    async fn ask(&self, token: &str, wanted: &str) -> Result<Issued, Refusal> {
        self.ask_as(&credentials(token), wanted, 0).await
    }

    async fn ask_as(
        &self,
        credentials: &Credentials,
        wanted: &str,
        seconds: i64,
    ) -> Result<Issued, Refusal> {
        let message = CertificateRequestMessage::for_another(csr(), seconds, wanted.to_owned());
        self.issuance.create(credentials, &message).await
    }
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[tokio::test]
async fn an_agent_gets_what_runs_on_its_node_and_everybody_gets_what_is_his() {
    let bench = bench();
    for (token, wanted, expected) in [
        ("agent", WEB, "web"),
        ("agent-older", "spiffe://cluster.local/ns/shop/sa/cart", "cart"),
        ("agent", "", "agent"),
        ("web", "", "web"),
        ("web", WEB, "web"),
    ] {
        let issued = bench.ask(token, wanted).await.unwrap();
        let leaf = pem::certificates(&issued.chain[0], std::path::Path::new("")).unwrap();
        let found = crate::peer_identity(Some(&leaf), OffsetDateTime::now_utc()).unwrap();
        assert_eq!(found.service_account, expected, "{token} {wanted}");
    }
    let notes = bench.notes.0.lock().unwrap();
    assert_eq!(notes[0], "issued web on a");
    assert_eq!(notes.len(), 5);
}

#[tokio::test]
async fn whoever_may_not_is_told_why_and_noted() {
    use Code::{InvalidArgument, PermissionDenied, Unauthenticated};
    let bench = bench();
    let cases = [
        ("", WEB, Unauthenticated, "unauthenticated", "neither a token nor a certificate"),
        ("stolen", WEB, Unauthenticated, "unauthenticated", "unknown token"),
        (
            "web",
            "spiffe://cluster.local/ns/shop/sa/cart",
            PermissionDenied,
            "not_a_node_agent",
            "spiffe://cluster.local/ns/shop/sa/web is no node agent",
        ),
        (
            "agent",
            "spiffe://cluster.local/ns/shop/sa/db",
            PermissionDenied,
            "not_on_node",
            "no pod on node a runs as spiffe://cluster.local/ns/shop/sa/db",
        ),
        (
            "agent",
            "spiffe://other.org/ns/shop/sa/web",
            PermissionDenied,
            "trust_domain",
            "of another trust domain than cluster.local",
        ),
        ("agent", "shop/web", InvalidArgument, "identity", "is not a SPIFFE URI"),
        (
            "agent-elsewhere",
            WEB,
            PermissionDenied,
            "node_mismatch",
            "the token is of node b, and its pod is on a",
        ),
        ("agent-gone", WEB, PermissionDenied, "no_node", "its node is unknown"),
        ("agent-unbound", WEB, PermissionDenied, "no_node", "its node is unknown"),
    ];
    for (token, wanted, code, reason, words) in cases {
        let refusal = bench.ask(token, wanted).await.unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (code, reason), "{refusal:?}");
        assert!(refusal.message.contains(words), "{refusal:?}");
        let note = bench.notes.0.lock().unwrap().pop().unwrap();
        assert_eq!(note, format!("refused {wanted}: {reason}"));
    }
}

#[tokio::test]
async fn a_certificate_of_the_mesh_is_good_for_another_of_the_same_and_no_other() {
    let bench = bench();
    let shown =
        Credentials { address: [10, 0, 0, 1].into(), svid: Some(proven(id("web"))), token: None };
    bench.ask_as(&shown, "", 0).await.unwrap();
    let agent = SpiffeId::new(TrustDomain::default(), "mesh", "agent");
    for own in [id("web"), agent] {
        let shown =
            Credentials { address: [10, 0, 0, 1].into(), svid: Some(proven(own)), token: None };
        let refusal = bench.ask_as(&shown, "spiffe://cluster.local/ns/shop/sa/cart", 0).await;
        assert_eq!(refusal.unwrap_err().code, Code::PermissionDenied);
    }
}

#[tokio::test]
async fn lifetimes_are_what_was_asked_for_within_bounds() {
    let bench = bench();
    let hours =
        |issued: Issued| (issued.not_after - OffsetDateTime::now_utc()).as_seconds_f64() / 3600.0;
    for (seconds, expected) in [(0, 24.0), (3600, 1.0), (i64::MAX, 48.0)] {
        let issued = bench.ask_as(&credentials("agent"), WEB, seconds).await.unwrap();
        assert!((hours(issued) - expected).abs() < 0.01, "{seconds}");
    }
    let refusal = bench.ask_as(&credentials("agent"), WEB, -1).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::InvalidArgument, "lifetime"));
}

#[tokio::test]
async fn a_pod_that_comes_is_found_and_the_api_server_is_not_asked_for_each_certificate() {
    let bench = bench();
    let ten = || async {
        for _ in 0..10 {
            bench.ask("agent", WEB).await.unwrap();
        }
    };
    ten().await;
    assert_eq!(bench.cluster.reviews.load(Ordering::Relaxed), 1);
    assert_eq!(bench.cluster.lists.load(Ordering::Relaxed), 1);
    bench.cluster.pods.lock().unwrap().push(["shop", "new-0", "uid-9", "new", "a"]);
    let wanted = "spiffe://cluster.local/ns/shop/sa/new";
    assert_eq!(bench.ask("agent", wanted).await.unwrap_err().reason, "not_on_node");
    tokio::time::sleep(Duration::from_millis(600)).await;
    bench.ask("agent", wanted).await.unwrap();
    assert_eq!(bench.cluster.lists.load(Ordering::Relaxed), 2);
    bench.cluster.is_down.store(true, Ordering::Relaxed);
    // Known still, and unknown.
    ten().await;
    let refusal = bench.ask("web", "").await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::Unavailable, "api_server"));
    assert!(refusal.message.contains("connection refused"), "{refusal:?}");
}

#[tokio::test]
async fn one_address_cannot_ask_without_end() {
    let bench = bench();
    let mut refused = 0;
    for _ in 0..130 {
        let outcome = bench.ask("stolen", WEB).await.unwrap_err();
        refused += usize::from(outcome.code == Code::ResourceExhausted);
    }
    assert!((20..=30).contains(&refused), "{refused}");
    let reviews = bench.cluster.reviews.load(Ordering::Relaxed);
    assert_eq!(reviews, 130 - refused);
    let other = Credentials { address: [10, 0, 0, 2].into(), ..credentials("agent") };
    bench.ask_as(&other, WEB, 0).await.unwrap();
}

#[tokio::test]
async fn what_is_no_request_is_refused_whoever_sends_it() {
    let bench = bench();
    let message = CertificateRequestMessage { csr: "x".to_owned(), ..Default::default() };
    let refusal = bench.issuance.create(&credentials("agent"), &message).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::InvalidArgument, "csr"));
}

#[tokio::test]
async fn without_an_authority_one_is_told_to_come_again() {
    let bench = bench();
    let empty = watch::Sender::new(None).subscribe();
    let notes: Arc<dyn Observer> = bench.notes.clone();
    let asked: Arc<dyn Cluster> = bench.cluster.clone();
    let issuance = Issuance::new(config(), empty, asked, notes);
    let message = CertificateRequestMessage { csr: csr(), ..Default::default() };
    let refusal = issuance.create(&credentials("agent"), &message).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::Unavailable, "no_authority"));
    // A directory that is there is as good as a Secret.
    let dir = TempDir::new();
    crate::testing::init(&dir.path());
    let read = CaMaterial::read(&dir.path()).unwrap();
    let (_, parsed) = request();
    read.sign(&id("web"), &parsed, Duration::from_secs(60), OffsetDateTime::now_utc()).unwrap();
}
