//! One stream as an agent sees it, request by request.

use serde_json::json;

use super::*;
use crate::distribution::{
    proto::{Resource, delta_discovery_request::Node, rpc},
    testing::{Notes, hub, object, peer, service},
};

/// An agent's end of a stream.
struct Agent {
    outgoing: mpsc::Sender<Bytes>,
    incoming: mpsc::Receiver<Bytes>,
    frames: Frames,
    ended: tokio::task::JoinHandle<Result<(), StreamEnd>>,
}

/// A state as it came.
#[derive(Default)]
struct State {
    version: String,
    nonce: String,
    resources: Vec<Resource>,
    removed: Vec<String>,
}

impl State {
    fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|one| one.name.as_str()).collect()
    }
}

impl Agent {
    fn connect(hub: &Hub, peer: Peer) -> Self {
        let (outgoing, requests) = mpsc::channel(4);
        let (responses, incoming) = mpsc::channel(4);
        let (hub, bytes) = (hub.clone(), outgoing.clone());
        let (sender, receiver) = mpsc::channel(4);
        drop(bytes);
        tokio::spawn(async move {
            let mut requests: mpsc::Receiver<Bytes> = requests;
            while let Some(bytes) = requests.recv().await {
                if sender.send(Ok(bytes)).await.is_err() {
                    return;
                }
            }
        });
        let ended = tokio::spawn(async move { hub.serve(peer, receiver, responses).await });
        Self { outgoing, incoming, frames: Frames::default(), ended }
    }

    async fn begin(&self, node: &str, has: &[(&str, &str)]) {
        let has = has.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
        self.say(DeltaDiscoveryRequest {
            node: Some(Node { id: node.to_owned(), ..Node::default() }),
            type_url: TYPE_URL.to_owned(),
            resource_names_subscribe: vec![ALL.to_owned()],
            initial_resource_versions: has.collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    async fn say(&self, request: DeltaDiscoveryRequest) {
        let _ = self.outgoing.send(frames::framed(&request)).await;
    }

    async fn answer(&self, nonce: &str, refused: Option<&str>) {
        let status = refused.map(|why| rpc::Status { code: 3, message: why.to_owned() });
        self.say(DeltaDiscoveryRequest {
            type_url: TYPE_URL.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: status,
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    /// The next state, all of it.
    async fn state(&mut self) -> State {
        let mut state = State::default();
        while state.version.is_empty() {
            match self.frames.next::<DeltaDiscoveryResponse>().unwrap() {
                Some(response) => {
                    state.version = response.system_version_info;
                    state.nonce = response.nonce;
                    state.resources.extend(response.resources);
                    state.removed.extend(response.removed_resources);
                }
                None => {
                    let bytes = self.incoming.recv();
                    let bytes = tokio::time::timeout(Duration::from_secs(10), bytes).await;
                    self.frames.push(&bytes.expect("nothing comes").expect("it has ended"));
                }
            }
        }
        state
    }

    async fn is_silent(&mut self) -> bool {
        let waited = tokio::time::timeout(Duration::from_millis(200), self.incoming.recv()).await;
        waited.is_err()
    }
}

fn change(hub: &Hub, number: u32, port: u16) {
    hub.change(|catalogue| catalogue.put("Service", &service(number, port)));
}

#[tokio::test]
async fn an_agent_gets_everything_then_changes_and_one_state_at_a_time() {
    let (hub, notes) = hub();
    hub.complete();
    let mut agent = Agent::connect(&hub, peer("a"));
    agent.begin("a", &[]).await;
    let first = agent.state().await;
    // Namespaces, pods, services, and the policy of its own namespace.
    assert_eq!(first.resources.len(), 3 + 4 + 20 + 1);
    assert!(first.names().contains(&"AuthorizationPolicy/shop/nobody"));
    // Whatever happens before it has answered comes together, and of each object the last.
    for port in 81..99 {
        change(&hub, 1, port);
        change(&hub, 2, port);
    }
    hub.change(|catalogue| catalogue.remove("Service", "shop", "service-3"));
    assert!(agent.is_silent().await);
    agent.answer(&first.nonce, None).await;
    let second = agent.state().await;
    assert_eq!(second.names(), ["Service/shop/service-1", "Service/shop/service-2"]);
    assert_eq!(second.removed, ["Service/shop/service-3"]);
    agent.answer(&second.nonce, None).await;
    // What is none of its business is not told.
    let other = object("AuthorizationPolicy", "bank", "nobody", json!({"rules": [{}]}));
    hub.change(|catalogue| catalogue.put("AuthorizationPolicy", &other));
    assert!(agent.is_silent().await);
    let delivered = notes.delivered.lock().unwrap().clone();
    assert_eq!(delivered.len(), 2);
    assert!(delivered[0].1.first && !delivered[1].1.first);
    assert!(delivered[1].1.bytes < delivered[0].1.bytes, "{delivered:?}");
    assert_eq!((delivered[1].1.resources, delivered[1].1.removed), (2, 1));
}

#[tokio::test]
async fn an_agent_that_comes_back_gets_what_has_changed() {
    let (hub, _) = hub();
    hub.complete();
    let mut agent = Agent::connect(&hub, peer("a"));
    agent.begin("a", &[]).await;
    let first = agent.state().await;
    let known: Vec<(&str, &str)> =
        first.resources.iter().map(|it| (it.name.as_str(), it.version.as_str())).collect();
    let known = [&known[..], &[("Service/shop/gone", "0")]].concat();
    change(&hub, 7, 8080);
    // Another replica, which has read the same.
    let mut again = Agent::connect(&hub, peer("a"));
    again.begin("a", &known).await;
    let news = again.state().await;
    assert_eq!(news.names(), ["Service/shop/service-7"]);
    assert_eq!(news.removed, ["Service/shop/gone"]);
}

#[tokio::test]
async fn a_refusal_is_noted_and_the_next_change_is_told_all_the_same() {
    let (hub, notes) = hub();
    hub.complete();
    let mut agent = Agent::connect(&hub, peer("b"));
    agent.begin("b", &[]).await;
    let first = agent.state().await;
    agent.answer(&first.nonce, Some("too much\nof it")).await;
    change(&hub, 1, 81);
    let second = agent.state().await;
    assert_eq!(second.names(), ["Service/shop/service-1"]);
    let delivered = notes.delivered.lock().unwrap().clone();
    assert_eq!(delivered[0].0, "b");
    assert_eq!(delivered[0].1.rejected.as_deref(), Some("too muchof it"));
}

#[tokio::test]
async fn whoever_asks_for_something_else_is_told_and_left() {
    let (hub, notes) = hub();
    let early = Agent::connect(&hub, peer("a"));
    assert_eq!(early.ended.await.unwrap().unwrap_err().reason, "incomplete");
    hub.complete();
    let request = |node: &str, type_url: &str, names: &[&str]| DeltaDiscoveryRequest {
        node: Some(Node { id: node.to_owned(), ..Node::default() }),
        type_url: type_url.to_owned(),
        resource_names_subscribe: names.iter().map(|&name| name.to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    for (request, kind, part) in [
        (request("b", TYPE_URL, &[ALL]), EndKind::Denied, "a stream of node a is none of node b"),
        (request("a", "x", &[ALL]), EndKind::Invalid, "there is no type x"),
        (request("a", TYPE_URL, &[]), EndKind::Invalid, "what can be subscribed to"),
        (request("a", TYPE_URL, &["Pod/shop/cart"]), EndKind::Invalid, "what can be subscribed to"),
    ] {
        let agent = Agent::connect(&hub, peer("a"));
        agent.say(request).await;
        let end = agent.ended.await.unwrap().unwrap_err();
        assert_eq!(end.kind, kind);
        assert!(end.message.contains(part), "{end:?}");
    }
    let agent = Agent::connect(&hub, peer("a"));
    agent.outgoing.send(Bytes::from_static(&[9; 9])).await.unwrap();
    assert_eq!(agent.ended.await.unwrap().unwrap_err().kind, EndKind::Invalid);
    assert_eq!(*notes.streams.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_node_has_so_many_streams_and_another_takes_the_place_of_its_oldest() {
    let (hub, notes) = hub();
    hub.complete();
    let mut agents: Vec<Agent> = (0..4).map(|_| Agent::connect(&hub, peer("a"))).collect();
    for agent in &mut agents {
        agent.begin("a", &[]).await;
        agent.state().await;
    }
    assert_eq!(*notes.streams.lock().unwrap(), 4);
    let mut other = Agent::connect(&hub, peer("b"));
    other.begin("b", &[]).await;
    other.state().await;
    let mut fifth = Agent::connect(&hub, peer("a"));
    fifth.begin("a", &[]).await;
    fifth.state().await;
    let oldest = agents.remove(0);
    assert_eq!(oldest.ended.await.unwrap().unwrap_err().kind, EndKind::Exhausted);
    assert_eq!(*notes.streams.lock().unwrap(), 5);
    // Whoever goes makes room.
    let gone = agents.remove(0);
    drop((gone.outgoing, gone.incoming));
    assert_eq!(gone.ended.await.unwrap(), Ok(()));
    let mut next = Agent::connect(&hub, peer("a"));
    next.begin("a", &[]).await;
    next.state().await;
    assert!(!agents[0].ended.is_finished() && !other.ended.is_finished());
}

#[tokio::test]
async fn an_agent_whose_pod_is_gone_or_whose_certificate_has_expired_gets_nothing_more() {
    let (hub, _) = hub();
    hub.complete();
    let mut agent = Agent::connect(&hub, peer("a"));
    agent.begin("a", &[]).await;
    let first = agent.state().await;
    agent.answer(&first.nonce, None).await;
    assert!(agent.is_silent().await);
    hub.change(|catalogue| catalogue.remove("Pod", "mesh", "agent-a"));
    assert_eq!(agent.ended.await.unwrap().unwrap_err().reason, "no_node");

    let until = Instant::now() + Duration::from_millis(300);
    let mut short = Agent::connect(&hub, Peer { until, ..peer("b") });
    short.begin("b", &[]).await;
    let first = short.state().await;
    short.answer(&first.nonce, None).await;
    assert_eq!(short.ended.await.unwrap().unwrap_err().reason, "expired");
}

#[tokio::test]
async fn two_nodes_get_what_each_of_them_needs() {
    let (hub, _) = hub();
    hub.complete();
    let mut found = Vec::new();
    for node in ["a", "b"] {
        let mut agent = Agent::connect(&hub, peer(node));
        agent.begin(node, &[]).await;
        let state = agent.state().await;
        let policies = state.names().into_iter().filter(|name| name.contains("Policy"));
        found.push(policies.map(str::to_owned).collect::<Vec<_>>());
    }
    let policy = |namespace: &str| vec![format!("AuthorizationPolicy/{namespace}/nobody")];
    assert_eq!(found, [policy("shop"), policy("bank")]);
    let _: &Notes = &Notes::default();
}
