//! Endpoints of the client's own node: the request passes one proxy, once.

use std::sync::Arc;

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use undermesh_snapshot::WorkloadInfo;

use super::rig::{Rig, VIP, cluster, endpoint, get, route, rules, to};
use crate::{
    testing,
    tests::{
        judged::look_at_requests,
        mesh::{Mesh, SOON, eventually, reset},
    },
};

/// The rig's backend, known as a pod of this node.
fn known_as_local(rig: &Rig) -> Arc<WorkloadInfo> {
    let workload = &rig.backends[0].server.workload;
    Arc::new(WorkloadInfo { local: true, direct: true, ..(**workload).clone() })
}

fn lead_there(rig: &Rig) {
    let backend = &rig.backends[0].server;
    let endpoint = endpoint(backend.address, &known_as_local(rig));
    let local =
        cluster("local".to_owned(), undermesh_snapshot::traffic::AppProtocol::Http, vec![endpoint]);
    rig.rules(rules(&local, vec![("/", route(to(&local)))]));
}

fn tunnels(mesh: &Mesh) -> u64 {
    mesh.metric("undermesh_proxy_tunnels{direction=\"outbound\"}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_this_node_is_reached_without_a_tunnel() {
    let rig = Rig::new(&["v1"]).await;
    lead_there(&rig);
    assert_eq!(rig.get("/").await, (StatusCode::OK, "v1".to_owned()));
    assert_eq!(tunnels(&rig.mesh), 0);
    rig.plain_rules();
    assert_eq!(rig.get("/").await, (StatusCode::OK, "v1".to_owned()));
    assert_eq!(tunnels(&rig.mesh), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_policy_holds_all_the_same() {
    let rig = Rig::new(&["v1"]).await;
    lead_there(&rig);
    let allow = |namespace: &str| {
        let name = rig.backends[0].server.workload.name.clone();
        let policy = Arc::new(testing::policy(&[namespace]));
        rig.mesh.configure(|snapshot| drop(snapshot.policies.insert(name, policy)));
    };
    allow("elsewhere");
    assert_eq!(rig.get("/").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.backends[0].requests().len(), 0);
    allow("shop");
    assert_eq!(rig.get("/").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_request_ends_when_policy_turns_against_it() {
    let rig = Rig::new(&["v1"]).await;
    lead_there(&rig);
    let mut sender = rig.http1().await;
    let mut request = get("/");
    request.headers_mut().insert("x-wait-ms", http::HeaderValue::from_static("60000"));
    let waiting = tokio::spawn(sender.send_request(request));
    eventually("it is under way", || !rig.backends[0].requests().is_empty()).await;
    let name = rig.backends[0].server.workload.name.clone();
    let policy = Arc::new(testing::policy(&["elsewhere"]));
    rig.mesh.configure(|snapshot| drop(snapshot.policies.insert(name, policy)));
    let answer = tokio::time::timeout(SOON, waiting).await.unwrap();
    assert_eq!(answer.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_judged_request_along() {
    let rig = Rig::new(&["v1"]).await;
    lead_there(&rig);
    look_at_requests(&rig.mesh, &rig.backends[0].server);
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    let ask = "GET /left HTTP/1.1\r\nHost: cart\r\nX-Wait-Ms: 60000\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    eventually("it is under way", || !rig.backends[0].requests().is_empty()).await;
    reset(stream);
    for reporter in ["\"source\"", "\"destination\""] {
        let line = rig.mesh.logged(&["\"/left\"", reporter]).await;
        assert_eq!(line["reason"], "client_reset", "{line}");
        assert_eq!(line["response_flags"], "DC", "{line}");
    }
}
