//! Both sides together, with channels in place of a network.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use serde_json::json;
use undermesh_model::{Cluster, NamespacedName};

use super::*;
use crate::distribution::{
    hub::{Hub, Peer},
    testing::{hub, object, peer, service},
};

/// A way to a hub, which may be cut.
struct Wire {
    hub: Hub,
    peer: Peer,
    is_cut: AtomicBool,
    open: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Wire {
    fn new(hub: &Hub, node: &str) -> Arc<Self> {
        let (hub, peer) = (hub.clone(), peer(node));
        Arc::new(Self { hub, peer, is_cut: AtomicBool::new(false), open: Mutex::default() })
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
        self.open.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

impl Link for Wire {
    fn open(&self) -> Opening<'_> {
        Box::pin(async {
            if self.is_cut.load(Ordering::Relaxed) {
                return Err("the wire is cut".to_owned());
            }
            let (outgoing, mut sent) = mpsc::channel(4);
            let (requests, taken) = mpsc::channel(4);
            let (responses, mut given) = mpsc::channel::<Bytes>(4);
            let (to_agent, incoming) = mpsc::channel(4);
            let (hub, peer) = (self.hub.clone(), self.peer.clone());
            let task = tokio::spawn(async move {
                let up = async move {
                    while let Some(bytes) = sent.recv().await {
                        if requests.send(Ok(bytes)).await.is_err() {
                            break;
                        }
                    }
                    drop(requests);
                    std::future::pending::<()>().await;
                };
                let down = async {
                    while let Some(bytes) = given.recv().await {
                        if to_agent.send(Ok(bytes)).await.is_err() {
                            return;
                        }
                    }
                };
                let served = async {
                    tokio::join!(down, async {
                        let _ = hub.serve(peer, taken, responses).await;
                    });
                };
                // Where the server ends a stream, its agent sees that.
                tokio::select! {
                    () = up => {}
                    () = served => {}
                }
            });
            self.open.lock().unwrap().push(task.abort_handle());
            Ok(Opened { incoming, outgoing, server: "a hub".to_owned() })
        })
    }
}

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("undermesh-distribution-{}-{id}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn follow(wire: &Arc<Wire>, dir: &Path, health: &Health) -> mpsc::Receiver<SourceUpdate> {
    let config = ControllerConfig {
        node: wire.peer.node.clone(),
        cluster: "test".to_owned(),
        controllers: "controllers".to_owned(),
        root_namespace: "istio-system".to_owned(),
        narrow: false,
        cache_dir: Some(dir.to_owned()),
        timing: Timing {
            first_retry: Duration::from_millis(10),
            longest_retry: Duration::from_millis(50),
            cache: Duration::from_millis(10),
            ..Timing::default()
        },
    };
    ControllerSource::new(config, Arc::clone(wire) as _, health.clone()).watch().unwrap()
}

async fn until(updates: &mut mpsc::Receiver<SourceUpdate>, wanted: impl Fn(&Cluster) -> bool) {
    let found = async {
        loop {
            match updates.recv().await.expect("the source has ended") {
                SourceUpdate::State { cluster, .. } if wanted(&cluster) => return,
                SourceUpdate::State { .. } => {}
                SourceUpdate::Rejected { diagnostics } => panic!("{diagnostics:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("in time");
}

async fn until_kept(path: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(path).is_ok_and(|kept| kept.contains(text)) {
        assert!(Instant::now() < deadline, "{text} is not kept");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn port(cluster: &Cluster, number: u32) -> Option<u16> {
    let name = NamespacedName::new("shop", format!("service-{number}"));
    cluster.services.get(&name).and_then(|it| Some(it.ports.first()?.port))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_controller_says_is_in_force_and_stays_so_while_it_is_away() {
    let (hub, notes) = hub();
    let (dir, health) = (Dir::new(), Health::default());
    let wire = Wire::new(&hub, "a");
    let mut updates = follow(&wire, &dir.0, &health);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(updates.try_recv().is_err(), "something is in force before everything was read");
    hub.complete();
    until(&mut updates, |cluster| port(cluster, 1) == Some(80)).await;
    hub.change(|catalogue| catalogue.put("Service", &service(1, 81)));
    until(&mut updates, |cluster| port(cluster, 1) == Some(81)).await;
    assert!(health.report().complete);

    // It goes, what it has said stays, and another agent of the node starts from what is on disk.
    until_kept(&dir.0.join("controller.cache"), "\"port\":81").await;
    wire.cut(true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(updates.try_recv().is_err());
    assert_eq!(health.report().problem.as_deref(), Some("the wire is cut"));
    drop(updates);
    let health = Health::default();
    let mut updates = follow(&wire, &dir.0, &health);
    until(&mut updates, |cluster| port(cluster, 1) == Some(81)).await;
    assert!(health.report().cached.is_some() && !health.report().complete);

    // It comes back, and sends what has changed meanwhile.
    hub.change(|catalogue| {
        catalogue.put("Service", &service(2, 82));
        catalogue.remove("Service", "shop", "service-3");
    });
    notes.delivered.lock().unwrap().clear();
    wire.cut(false);
    until(&mut updates, |cluster| port(cluster, 2) == Some(82) && port(cluster, 3).is_none()).await;
    assert!(health.report().complete && health.report().problem.is_none());
    let deadline = Instant::now() + Duration::from_secs(10);
    while notes.delivered.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (_, delivery) = notes.delivered.lock().unwrap().remove(0);
    assert_eq!((delivery.resources, delivery.removed, delivery.rejected), (1, 1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_breaks_off_is_not_in_force_and_not_on_disk() {
    // A controller that sends a part of a state, and goes.
    struct Half(Arc<Notified>);
    #[derive(Default)]
    struct Notified(AtomicU32);
    impl Link for Half {
        fn open(&self) -> Opening<'_> {
            Box::pin(async {
                let (outgoing, mut sent) = mpsc::channel::<Bytes>(4);
                let (to_agent, incoming) = mpsc::channel(4);
                let count = Arc::clone(&self.0);
                tokio::spawn(async move {
                    sent.recv().await;
                    let json = service(1, 80).to_string().into_bytes().into();
                    let object =
                        crate::distribution::proto::Object { kind: "Service".to_owned(), json };
                    let resource = crate::distribution::proto::Resource {
                        name: "Service/shop/service-1".to_owned(),
                        version: "1".to_owned(),
                        resource: Some(crate::distribution::proto::resource::Any {
                            type_url: TYPE_URL.to_owned(),
                            value: prost::Message::encode_to_vec(&object).into(),
                        }),
                    };
                    let response =
                        DeltaDiscoveryResponse { resources: vec![resource], ..Default::default() };
                    let _ = to_agent.send(Ok(frames::framed(&response))).await;
                    count.0.fetch_add(1, Ordering::Relaxed);
                });
                Ok(Opened { incoming, outgoing, server: "half".to_owned() })
            })
        }
    }
    let (hub, _) = hub();
    let (dir, health) = (Dir::new(), Health::default());
    let config = ControllerConfig {
        node: "a".to_owned(),
        cluster: "test".to_owned(),
        controllers: "controllers".to_owned(),
        root_namespace: "istio-system".to_owned(),
        narrow: false,
        cache_dir: Some(dir.0.clone()),
        timing: Timing { first_retry: Duration::from_millis(5), ..Timing::default() },
    };
    let count = Arc::new(Notified::default());
    let link = Arc::new(Half(Arc::clone(&count)));
    let mut updates = ControllerSource::new(config, link, health.clone()).watch().unwrap();
    while count.0.load(Ordering::Relaxed) < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(updates.try_recv().is_err());
    assert!(!dir.0.join("controller.cache").exists());
    assert_eq!(health.report().problem.as_deref(), Some("half has gone"));
    drop(hub);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_an_object_leaves_its_last_good_version_in_force() {
    let (hub, notes) = hub();
    hub.complete();
    let (dir, health) = (Dir::new(), Health::default());
    let mut updates = follow(&Wire::new(&hub, "a"), &dir.0, &health);
    let name = NamespacedName::new("shop", "nobody");
    until(&mut updates, |cluster| cluster.authorization_policies.contains_key(&name)).await;
    let bad = object("AuthorizationPolicy", "shop", "nobody", json!({"rules": 7}));
    hub.change(|catalogue| {
        catalogue.put("AuthorizationPolicy", &bad);
        catalogue.put("Service", &service(1, 99));
    });
    until(&mut updates, |cluster| {
        port(cluster, 1) == Some(99) && cluster.authorization_policies.contains_key(&name)
    })
    .await;
    assert!(notes.delivered.lock().unwrap().iter().all(|(_, it)| it.rejected.is_none()));
}
