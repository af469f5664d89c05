//! What is asked of the cluster about whoever wants a certificate, and for how long its answers count.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The future of an answer.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, ClusterError>> + Send + 'a>>;

/// Namespace and name of a service account.
pub type Account = (String, String);

/// How long a token that was found good counts as good: a node asks for many certificates at once.
const REVIEW_COUNTS: Duration = Duration::from_secs(10);
/// How long it is known which accounts have pods on a node.
const ACCOUNTS_COUNT: Duration = Duration::from_secs(10);
/// A pod that is not found may have come just now; but the API server is not asked more often than this.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Answers of one kind that are kept.
const MAX_KEPT: usize = 8192;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The token is not good.
    #[error("{0}")]
    Refused(String),
    /// Nobody could be asked.
    #[error("{0}")]
    Unavailable(String),
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// The service account.
    pub account: Account,
    /// The pod that the token is bound to, by name and UID.
    pub pod: Option<(String, String)>,
    /// The node of that pod, where the token says it.
    pub node: Option<String>,
}

/// What the cluster knows.
pub trait Cluster: Send + Sync {
    /// Whose a bearer token is (`TokenReview`).
    fn review<'a>(&'a self, token: &'a str) -> Asked<'a, Reviewed>;

    /// The node of a pod, if there is such a pod, with this UID, that has not ended.
    fn node_of<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        uid: &'a str,
    ) -> Asked<'a, Option<String>>;

    /// The service accounts of the pods of a node that have not ended.
    fn accounts_on<'a>(&'a self, node: &'a str) -> Asked<'a, BTreeSet<Account>>;
}

/// Whose a token is, and the node of the pod that it is bound to.
pub(super) type Bearer = (Reviewed, Option<String>);

/// A cluster whose answers are kept for a moment.
pub(super) struct Answers {
    cluster: Arc<dyn Cluster>,
    reviews: Mutex<Kept<[u8; 32], Bearer>>,
    accounts: Mutex<Kept<String, Arc<BTreeSet<Account>>>>,
}

impl Answers {
    pub(super) fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster, reviews: Mutex::default(), accounts: Mutex::default() }
    }

    /// Whose a token is, and the node of the pod that it is bound to.
    pub(super) async fn review(&self, token: &str) -> Result<Bearer, ClusterError> {
        let digest = sha256(token.as_bytes());
        if let Some((kept, _)) = lock(&self.reviews).get(&digest, REVIEW_COUNTS) {
            return Ok(kept);
        }
        let reviewed = self.cluster.review(token).await?;
        let node = match &reviewed.pod {
            Some((name, uid)) => self.cluster.node_of(&reviewed.account.0, name, uid).await?,
            None => None,
        };
        let answer = (reviewed, node);
        lock(&self.reviews).put(digest, answer.clone());
        Ok(answer)
    }

    /// Whether a pod of an account is on a node.
    pub(super) async fn is_on(&self, node: &str, account: &Account) -> Result<bool, ClusterError> {
        let kept = lock(&self.accounts).get(node, ACCOUNTS_COUNT);
        if let Some((accounts, age)) = kept {
            let found = accounts.contains(account);
            if found || age < ASK_AGAIN {
                return Ok(found);
            }
        }
        let accounts = Arc::new(self.cluster.accounts_on(node).await?);
        let found = accounts.contains(account);
        lock(&self.accounts).put(node.to_owned(), accounts);
        Ok(found)
    }
}

struct Kept<K, V>(HashMap<K, (V, Instant)>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q, counts: Duration) -> Option<(V, Duration)>
    where
        K: std::borrow::Borrow<Q>,
    {
        let (value, at) = self.0.get(key)?;
        let age = at.elapsed();
        (age < counts).then(|| (value.clone(), age))
    }

    fn put(&mut self, key: K, value: V) {
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|_, (_, at)| at.elapsed() < REVIEW_COUNTS.max(ACCOUNTS_COUNT));
        }
        if self.0.len() >= MAX_KEPT {
            self.0.clear();
        }
        self.0.insert(key, (value, Instant::now()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokens themselves are not kept.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut digest = [0; 32];
    if let Some(suite) = suite.tls13() {
        digest.copy_from_slice(suite.common.hash_provider.hash(bytes).as_ref());
    }
    digest
}
