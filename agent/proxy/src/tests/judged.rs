//! Requests that are judged at their destination, and the connections that are kept for them.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use undermesh_model::{
    AuthorizationPolicy, JwtKeys, JwtRule, NamespacedName, Operation, PathMatch, PolicyAction,
    ResourceRef, Rule, TokenLocation, Values,
};
use undermesh_snapshot::{CompiledPolicy, Statement};

use super::mesh::{Mesh, SOON, Server, read_exactly, reset};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A policy that has to look at every request, and refuses those for `/admin`.
pub(super) fn look_at_requests(mesh: &Mesh, server: &Server) {
    let paths = Values { any_of: vec![PathMatch::parse("/admin").unwrap()], none_of: Vec::new() };
    let policy = AuthorizationPolicy {
        origin: ResourceRef::namespaced("AuthorizationPolicy", "shop", "no-admin"),
        name: NamespacedName::new("shop", "no-admin"),
        action: PolicyAction::Deny,
        provider: None,
        selector: [].into(),
        dry_run: false,
        rules: vec![Rule {
            to: vec![Operation { paths, ..Operation::default() }],
            ..Rule::default()
        }],
    };
    let deny = vec![Arc::new(Statement::new(&policy))];
    let policy = Arc::new(CompiledPolicy { deny, ..CompiledPolicy::default() });
    mesh.configure(|snapshot| {
        snapshot.policies.insert(server.workload.name.clone(), policy);
    });
}

/// Requests are looked at for their tokens; what carries none may pass.
pub(super) fn look_for_tokens(mesh: &Mesh, server: &Server) {
    let rule = JwtRule {
        origin: ResourceRef::namespaced("RequestAuthentication", "shop", "tokens"),
        issuer: "issuer".to_owned(),
        audiences: Vec::new(),
        keys: JwtKeys::Inline("{\"keys\":[]}".to_owned()),
        locations: vec![TokenLocation::Parameter("access_token".to_owned())],
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        words: Vec::new(),
        timeout: Duration::from_secs(1),
    };
    let policy = CompiledPolicy { tokens: vec![Arc::new(rule)], ..CompiledPolicy::default() };
    mesh.configure(|snapshot| {
        snapshot.policies.insert(server.workload.name.clone(), Arc::new(policy));
    });
}

/// Reads up to the end of a head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exactly(stream, 1).await);
    }
    String::from_utf8(head).unwrap()
}

/// How an application lets go of a connection that it has just got another request on.
#[derive(Clone, Copy)]
enum LetGo {
    Close,
    Reset,
}

/// Asks twice on one connection; the application answers the first, and lets go when the second has come. Gives
/// the status of the second answer.
async fn ask_twice(request: &str, let_go: LetGo) -> String {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    look_at_requests(&mesh, &server);
    let mut near = client.dial(server.address).await;
    near.write_all(request.as_bytes()).await.unwrap();
    let mut far = server.accept().await;
    head(&mut far).await;
    far.write_all(ANSWER).await.unwrap();
    assert_eq!(status(&head(&mut near).await), "200");
    assert_eq!(read_exactly(&mut near, 2).await, b"ok");
    near.write_all(request.as_bytes()).await.unwrap();
    head(&mut far).await;
    match let_go {
        LetGo::Close => drop(far),
        LetGo::Reset => reset(far),
    }
    let answer_again = async {
        let mut far = server.accept().await;
        head(&mut far).await;
        far.write_all(ANSWER).await.unwrap();
        // Open until the answer was read.
        std::future::pending().await
    };
    tokio::select! {
        never = answer_again => never,
        head = head(&mut near) => status(&head).to_owned(),
    }
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_is_asked_again_where_the_application_was_closing_the_connection() {
    for let_go in [LetGo::Close, LetGo::Reset] {
        let status = ask_twice("GET / HTTP/1.1\r\nhost: server\r\n\r\n", let_go).await;
        assert_eq!(status, "200");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_done_is_not_done_twice() {
    for let_go in [LetGo::Close, LetGo::Reset] {
        let request = "POST / HTTP/1.1\r\nhost: server\r\ncontent-length: 0\r\n\r\n";
        let status = ask_twice(request, let_go).await;
        assert_eq!(status, "503");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_at_its_first_request_is_not_tried_again() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    look_at_requests(&mesh, &server);
    let mut near = client.dial(server.address).await;
    near.write_all(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n").await.unwrap();
    let mut far = server.accept().await;
    head(&mut far).await;
    drop(far);
    assert_eq!(status(&head(&mut near).await), "503");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stands_still_is_answered_for_the_application() {
    let mesh = Mesh::with(|config| config.body_idle_timeout = Duration::from_millis(200));
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    look_at_requests(&mesh, &server);
    let mut near = client.dial(server.address).await;
    let request = b"POST / HTTP/1.1\r\nhost: server\r\ncontent-length: 5\r\n\r\nab";
    near.write_all(request).await.unwrap();
    let mut far = server.accept().await;
    head(&mut far).await;
    assert_eq!(status(&head(&mut near).await), "408");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_in_the_end() {
    let mesh = Mesh::with(|config| config.http_idle_timeout = Duration::from_millis(500));
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    look_at_requests(&mesh, &server);
    let mut near = client.dial(server.address).await;
    near.write_all(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n").await.unwrap();
    let mut far = server.accept().await;
    head(&mut far).await;
    far.write_all(ANSWER).await.unwrap();
    assert_eq!(status(&head(&mut near).await), "200");
    assert_eq!(read_exactly(&mut near, 2).await, b"ok");
    let ended = tokio::time::timeout(Duration::from_secs(60), near.read(&mut [0; 1])).await;
    match ended.expect("an end") {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_not_waited_for_and_the_application_hears_of_it() {
    for native in [false, true] {
        let mesh = Mesh::new();
        let (client, server) = if native {
            (mesh.native_client("client"), mesh.native_server("server").await)
        } else {
            (mesh.client("client"), mesh.server("server").await)
        };
        look_at_requests(&mesh, &server);
        let mut near = client.dial(server.address).await;
        let request = b"GET /left HTTP/1.1\r\nhost: server\r\n\r\n";
        near.write_all(request).await.unwrap();
        let mut far = server.accept().await;
        head(&mut far).await;
        reset(near);
        let ended = tokio::time::timeout(SOON, far.read(&mut [0; 1])).await;
        let ended = ended.unwrap_or_else(|_| panic!("the application waits, native: {native}"));
        assert!(matches!(ended, Ok(0) | Err(_)), "native: {native}");
        let line = mesh.logged(&["\"/left\"", "\"destination\""]).await;
        assert_eq!(line["reason"], "client_reset", "native: {native} {line}");
        assert_eq!(line["response_flags"], "DC", "native: {native} {line}");
        assert!(line["status"].is_null(), "native: {native} {line}");
    }
}
