//! Endpoints outside the mesh that want TLS.

use std::{net::SocketAddr, sync::Arc};

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use undermesh_model::traffic::{ClientTls, KeyMaterial, TlsMode};
use undermesh_snapshot::traffic::{AppProtocol, ClusterEndpoint, ClusterSpec, PortTraffic};

use super::rig::{Rig, VIP, cluster, endpoint, rules};

/// A server that answers every connection in TLS once; what its clients asked for it by.
struct Server {
    address: SocketAddr,
    ca: String,
    task: JoinHandle<Vec<Option<String>>>,
}

async fn server(name: &str, connections: usize) -> Server {
    server_of(name, connections, true).await
}

/// `polite`: it says in TLS that it leaves.
async fn server_of(name: &str, connections: usize, polite: bool) -> Server {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let chain = vec![params.signed_by(&key, &ca).unwrap().der().clone()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let task = tokio::spawn(async move {
        let mut names = Vec::new();
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            names.push(stream.get_ref().1.server_name().map(str::to_owned));
            assert!(stream.read(&mut [0; 2048]).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret";
            stream.write_all(answer).await.unwrap();
            match polite {
                true => stream.shutdown().await.unwrap(),
                false => stream.get_mut().0.shutdown().await.unwrap(),
            }
        }
        names
    });
    Server { address, ca: ca.pem(), task }
}

fn to_it(server: &Server, protocol: AppProtocol) -> Arc<ClusterSpec> {
    let nobody = Arc::new(crate::testing::workload("nobody", &["127.0.0.1"]));
    let outside = ClusterEndpoint { workload: None, ..endpoint(server.address, &nobody) };
    let mut spec = cluster("outside".to_owned(), protocol, vec![outside]);
    let ca = Some(KeyMaterial::inline(server.ca.clone()));
    let tls = ClientTls { mode: TlsMode::Simple, ca, ..ClientTls::default() };
    Arc::make_mut(&mut spec).settings.tls = Some(tls);
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_a_server_that_wants_tls() {
    let rig = Rig::new(&[]).await;
    let host = "cart.shop.svc.cluster.local";
    let server = server(host, 1).await;
    rig.rules(rules(&to_it(&server, AppProtocol::Http), Vec::new()));
    assert_eq!(rig.get("/").await, (StatusCode::OK, "secret".to_owned()));
    assert_eq!(server.task.await.unwrap(), [Some(host.to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_name_gets_no_request() {
    let rig = Rig::new(&[]).await;
    let server = server("other.example", 3).await;
    rig.rules(rules(&to_it(&server, AppProtocol::Http), Vec::new()));
    assert_eq!(rig.get("/").await.0, StatusCode::SERVICE_UNAVAILABLE);
    server.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_sent_in_tls_too() {
    let rig = Rig::new(&[]).await;
    let host = "cart.shop.svc.cluster.local";
    let server = server(host, 1).await;
    let traffic = rules(&to_it(&server, AppProtocol::Tcp), Vec::new());
    rig.rules(PortTraffic { protocol: AppProtocol::Tcp, ..traffic });
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    stream.write_all(b"whatever this is").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("secret"), "{answer}");
    assert_eq!(server.task.await.unwrap(), [Some(host.to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_does_not_reach_a_server_with_another_name() {
    let rig = Rig::new(&[]).await;
    let server = server("other.example", 3).await;
    let traffic = rules(&to_it(&server, AppProtocol::Tcp), Vec::new());
    rig.rules(PortTraffic { protocol: AppProtocol::Tcp, ..traffic });
    rig.client.dial_in_vain(VIP.parse().unwrap()).await;
    rig.mesh.logged(&["\"reason\":\"tls_wrong_name\"", "is for other.example instead of"]).await;
    server.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_leaves_without_a_word_has_broken_the_connection() {
    let rig = Rig::new(&[]).await;
    let server = server_of("cart.shop.svc.cluster.local", 1, false).await;
    let traffic = rules(&to_it(&server, AppProtocol::Tcp), Vec::new());
    rig.rules(PortTraffic { protocol: AppProtocol::Tcp, ..traffic });
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    stream.write_all(b"whatever this is").await.unwrap();
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    rig.mesh.logged(&["\"reason\":\"server_error\"", "unexpected end of file"]).await;
}
