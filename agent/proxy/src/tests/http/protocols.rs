//! What a port speaks, told by its name or by the client's first bytes.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::{io::AsyncWriteExt, time::timeout};
use undermesh_model::{ResourceRef, traffic::L4Match};
use undermesh_snapshot::traffic::{AppProtocol, ClusterSpec, L4Route, PortTraffic};

use super::rig::{Rig, VIP, cluster, endpoint, route, rules, to, weighted};
use crate::tests::mesh::{SOON, Server, ping_pong, read_exactly};

/// Two servers that are left to the test.
async fn servers(rig: &Rig) -> [(Server, Arc<ClusterSpec>); 2] {
    let mut both = Vec::new();
    for name in ["one", "two"] {
        let server = rig.mesh.server(name).await;
        let endpoint = endpoint(server.address, &server.workload);
        let spec = cluster(name.to_owned(), AppProtocol::Auto, vec![endpoint]);
        both.push((server, spec));
    }
    both.try_into().unwrap_or_else(|_| unreachable!())
}

fn l4(matches: Vec<L4Match>, target: &Arc<ClusterSpec>) -> L4Route {
    let origin = ResourceRef::namespaced("VirtualService", "shop", "cart");
    L4Route { origin, matches, targets: vec![weighted(target, 1)] }
}

fn speaking(protocol: AppProtocol, traffic: PortTraffic) -> PortTraffic {
    PortTraffic { protocol, ..traffic }
}

fn hello(name: &'static str) -> Vec<u8> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard_at_a_port_that_says_nothing() {
    let rig = Rig::new(&[]).await;
    let [(server, spec), _] = servers(&rig).await;
    rig.rules(speaking(AppProtocol::Auto, rules(&spec, vec![("/", route(to(&spec)))])));
    let mut near = rig.client.dial(VIP.parse().unwrap()).await;
    let mut far = server.accept().await;
    far.write_all(b"220 ready").await.unwrap();
    assert_eq!(read_exactly(&mut near, 9).await, b"220 ready");
    ping_pong(&mut near, &mut far).await;
    let line = {
        drop((near, far));
        rig.mesh.logged(&["\"event\":\"close\"", "\"reporter\":\"source\""]).await
    };
    assert_eq!((line["bytes_sent"].as_u64(), line["bytes_received"].as_u64()), (Some(13), Some(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_something_else_is_passed_on() {
    let rig = Rig::new(&[]).await;
    let [(server, spec), _] = servers(&rig).await;
    rig.rules(speaking(AppProtocol::Auto, rules(&spec, vec![("/", route(to(&spec)))])));
    for wait in [Duration::ZERO, Duration::from_millis(100)] {
        let mut near = rig.client.dial(VIP.parse().unwrap()).await;
        tokio::time::sleep(wait).await;
        near.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
        let mut far = server.accept().await;
        assert_eq!(read_exactly(&mut far, 14).await, b"*1\r\n$4\r\nPING\r\n");
        ping_pong(&mut near, &mut far).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_recognised_early_and_late() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    rig.rules(speaking(AppProtocol::Auto, rules(&v1, vec![("/", route(to(&v1)))])));
    for wait in [Duration::ZERO, Duration::from_millis(100)] {
        let mut near = rig.client.dial(VIP.parse().unwrap()).await;
        tokio::time::sleep(wait).await;
        near.write_all(b"GET / HT").await.unwrap();
        near.write_all(b"TP/1.1\r\nHost: cart\r\n\r\n").await.unwrap();
        assert_eq!(read_exactly(&mut near, 15).await, b"HTTP/1.1 200 OK");
    }
    assert_eq!(rig.backends[0].requests()[0].headers["x-envoy-attempt-count"], "1");
    let mut sender = rig.http2().await;
    let request = http::Request::get("http://cart/").body(http_body_util::Full::default()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_port_is_never_looked_at() {
    let rig = Rig::new(&[]).await;
    let [(_one, spec), (server, other)] = servers(&rig).await;
    let traffic = rules(&spec, vec![("/", route(to(&spec)))]);
    let l4 = vec![l4(Vec::new(), &other)];
    rig.rules(PortTraffic { protocol: AppProtocol::Tcp, l4, ..traffic });
    let mut near = rig.client.dial(VIP.parse().unwrap()).await;
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut far = server.accept().await;
    assert_eq!(read_exactly(&mut far, 18).await, b"GET / HTTP/1.1\r\n\r\n");
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_where_its_server_name_leads() {
    let rig = Rig::new(&[]).await;
    let [(one, first), (two, second)] = servers(&rig).await;
    let named = L4Match { sni_hosts: vec!["*.two.example".to_owned()], ..L4Match::default() };
    let l4 = vec![l4(vec![named], &second)];
    let traffic = rules(&first, Vec::new());
    for protocol in [AppProtocol::Tls, AppProtocol::Auto] {
        rig.rules(PortTraffic { protocol, l4: l4.clone(), ..traffic.clone() });
        for (name, server) in [("a.two.example", &two), ("one.example", &one)] {
            let bytes = hello(name);
            let mut near = rig.client.dial(VIP.parse().unwrap()).await;
            near.write_all(&bytes).await.unwrap();
            let mut far = timeout(SOON, server.accept()).await.unwrap();
            assert_eq!(read_exactly(&mut far, bytes.len()).await, bytes, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_endpoint_is_refused() {
    let rig = Rig::new(&[]).await;
    let nobody = cluster("none".to_owned(), AppProtocol::Tcp, Vec::new());
    rig.rules(speaking(AppProtocol::Tcp, rules(&nobody, Vec::new())));
    rig.client.dial_in_vain(VIP.parse().unwrap()).await;
    let line = rig.mesh.logged(&["no_endpoints"]).await;
    assert_eq!(line["response_flags"], "UH");
}
