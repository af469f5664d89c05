//! A cluster that knows what a test says, a server at a port of its own, and notes of what it did.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use undermesh_model::{SpiffeId, TrustDomain};

use super::*;
use crate::CaOptions;

/// How long a slow cluster takes for an answer.
const SLOW: Duration = Duration::from_millis(200);

/// What there is: tokens with whose they are, and pods.
#[derive(Default)]
pub(crate) struct FakeCluster {
    pub(crate) tokens: BTreeMap<&'static str, Reviewed>,
    /// Namespace, name, UID, account, node.
    pub(crate) pods: Mutex<Vec<[&'static str; 5]>>,
    /// The API server cannot be reached.
    pub(crate) is_down: AtomicBool,
    /// It takes its time.
    pub(crate) is_slow: AtomicBool,
    pub(crate) reviews: AtomicUsize,
    pub(crate) lists: AtomicUsize,
}

impl FakeCluster {
    /// Node `a` with an agent, and pods of `web` and `cart`; `db` runs on node `b`.
    pub(crate) fn shop() -> Arc<Self> {
        let account = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        let agent = |node: Option<&str>| Reviewed {
            account: account("mesh", "agent"),
            pod: Some(("agent-a".to_owned(), "uid-a".to_owned())),
            node: node.map(str::to_owned),
        };
        let web = Reviewed { account: account("shop", "web"), pod: None, node: None };
        let gone = Some(("agent-x".to_owned(), "uid-x".to_owned()));
        Arc::new(Self {
            tokens: [
                ("agent", agent(Some("a"))),
                ("agent-older", agent(None)),
                ("agent-elsewhere", agent(Some("b"))),
                ("agent-gone", Reviewed { pod: gone, ..agent(None) }),
                ("agent-unbound", Reviewed { pod: None, ..agent(None) }),
                ("web", web),
            ]
            .into(),
            pods: Mutex::new(vec![
                ["mesh", "agent-a", "uid-a", "agent", "a"],
                ["shop", "web-0", "uid-0", "web", "a"],
                ["shop", "cart-0", "uid-1", "cart", "a"],
                ["shop", "db-0", "uid-2", "db", "b"],
            ]),
            ..Self::default()
        })
    }

    fn answer<T: Send + 'static>(&self, value: Result<T, ClusterError>) -> Asked<'_, T> {
        let down = self.is_down.load(Ordering::Relaxed);
        let down = down.then(|| ClusterError::Unavailable("connection refused".to_owned()));
        let is_slow = self.is_slow.load(Ordering::Relaxed);
        Box::pin(async move {
            if is_slow {
                tokio::time::sleep(SLOW).await;
            }
            down.map_or(value, Err)
        })
    }
}

impl Cluster for FakeCluster {
    fn review<'a>(&'a self, token: &'a str) -> Asked<'a, Reviewed> {
        self.reviews.fetch_add(1, Ordering::Relaxed);
        let unknown = || ClusterError::Refused("unknown token".to_owned());
        self.answer(self.tokens.get(token).cloned().ok_or_else(unknown))
    }

    fn node_of<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        uid: &'a str,
    ) -> Asked<'a, Option<String>> {
        let pods = self.pods.lock().unwrap();
        let found = pods.iter().find(|it| it[..3] == [namespace, pod, uid]);
        self.answer(Ok(found.map(|it| it[4].to_owned())))
    }

    fn accounts_on<'a>(&'a self, node: &'a str) -> Asked<'a, BTreeSet<Account>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let pods = self.pods.lock().unwrap();
        let on = pods.iter().filter(|it| it[4] == node);
        self.answer(Ok(on.map(|it| (it[0].to_owned(), it[3].to_owned())).collect()))
    }
}

/// What an observer is told.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) Mutex<Vec<String>>);

impl Observer for Notes {
    fn issued(&self, asker: &Asker, id: &SpiffeId, _: &Issued) {
        let node = asker.node.as_deref().unwrap_or("-");
        self.0.lock().unwrap().push(format!("issued {} on {node}", id.service_account));
    }

    fn refused(&self, asker: &Asker, refusal: &Refusal) {
        let wanted = asker.wanted.as_deref().unwrap_or("-");
        self.0.lock().unwrap().push(format!("refused {wanted}: {}", refusal.reason));
    }
}

pub(crate) fn config() -> IssuanceConfig {
    IssuanceConfig {
        trust_domain: TrustDomain::default(),
        lifetime: Duration::from_secs(24 * 3600),
        max_lifetime: Duration::from_secs(48 * 3600),
        node_accounts: [("mesh".to_owned(), "agent".to_owned())].into(),
        requests_per_second: 100,
        burst: 100,
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) authority: watch::Sender<Option<Arc<CaMaterial>>>,
    pub(crate) cluster: Arc<FakeCluster>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) async fn start() -> Running {
    let material = Arc::new(CaMaterial::make(&CaOptions::default()).unwrap());
    let authority = watch::Sender::new(Some(material));
    let (cluster, notes) = (FakeCluster::shop(), Arc::new(Notes::default()));
    let observer: Arc<dyn Observer> = notes.clone();
    let asked: Arc<dyn Cluster> = cluster.clone();
    let issuance = Arc::new(Issuance::new(config(), authority.subscribe(), asked, observer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = watch::Sender::new(None);
    let mut made = tls.subscribe();
    let identity = ServerIdentity {
        id: SpiffeId::new(TrustDomain::default(), "mesh", "controller"),
        names: vec!["controller.mesh.svc".to_owned(), "127.0.0.1".to_owned()],
        lifetime: Duration::from_secs(3600),
    };
    tokio::spawn(identity.keep(authority.subscribe(), tls));
    made.wait_for(Option::is_some).await.unwrap();
    let stop = watch::Sender::new(false);
    let services = Services { issuance, streams: None };
    let serving = tokio::spawn(serve(listener, made, services, stop.subscribe()));
    Running { address, authority, cluster, notes, stop, serving }
}
