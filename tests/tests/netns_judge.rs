//! Requests judged at their destination, and every way that somebody might try to get around that.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{
    Conn, PORT, Pod, PodSpec, Rig, ServiceSpec,
    pod::protocol::{Behaviour, Failure},
};

/// Another port of the same container.
const SECOND: u16 = 8081;

/// `near` and `far` are clients, `server` is the pod that is guarded: on `near`'s node.
struct Guarded {
    rig: Rig,
    _server: Pod,
}

impl Guarded {
    /// Serves HTTP behind this policy of `server`.
    fn open(spec: &str) -> Result<Self> {
        let mut rig = Rig::builder()
            .node("a", [PodSpec::new("near"), PodSpec::new("server")])
            .node("b", [PodSpec::new("far"), PodSpec::new("stranger").listed()])
            .service(ServiceSpec::new("server", 80, PORT, &["server"]))
            .build()?;
        policy(&rig, spec)?;
        rig.start()?;
        let server = rig.pod("server")?;
        for port in [PORT, SECOND] {
            let at = (Ipv6Addr::UNSPECIFIED, port).into();
            server.listen_many(at, 1, Behaviour::Http("server".to_owned()))?;
        }
        Ok(Self { rig, _server: server })
    }
}

fn policy(rig: &Rig, spec: &str) -> Result<()> {
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: guard, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: server}}}}, {spec}}}\n"
    );
    rig.manifests.write("guard", &yaml)
}

/// The whole answer to these bytes, read until `end` says that it is complete.
fn ask(pod: &Pod, to: SocketAddr, bytes: &[u8]) -> Result<String, Failure> {
    let conn = pod.connect(to)?;
    conn.send(bytes)?;
    read(&conn)
}

/// One answer with a length.
fn read(conn: &Conn<'_>) -> Result<String, Failure> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(conn.receive(1)?);
    }
    let mut answer = String::from_utf8_lossy(&head).into_owned();
    let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    answer.push_str(&String::from_utf8_lossy(&conn.receive(length)?));
    Ok(answer)
}

/// Status of the answer to a request of HTTP/1.1; 0 where there is none.
fn status(pod: &Pod, to: SocketAddr, line: &str, headers: &str) -> u16 {
    let request = format!("{line} HTTP/1.1\r\nHost: server\r\n{headers}\r\n");
    let answer = ask(pod, to, request.as_bytes()).unwrap_or_default();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

const NO_ADMIN: &str = "action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]";

#[test]
fn requests_are_judged_one_by_one_from_the_same_node_and_from_another() -> Result<()> {
    let guarded = Guarded::open(NO_ADMIN)?;
    let rig = &guarded.rig;
    for name in ["near", "far"] {
        let client = rig.pod(name)?;
        for to in [rig.vip("server", 80)?, rig.at("server", PORT)?, rig.at6("server", PORT)?] {
            let conn = client.connect(to)?;
            for (path, expected) in [("/", "200"), ("/admin", "403"), ("/public", "200")] {
                conn.send(format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n").as_bytes())?;
                let answer = read(&conn)?;
                ensure!(
                    answer.starts_with(&format!("HTTP/1.1 {expected} ")),
                    "{to} {path}: {answer}"
                );
                if expected == "403" {
                    ensure!(answer.ends_with("RBAC: access denied"), "{answer}");
                } else {
                    let of = format!("URI=spiffe://cluster.local/ns/shop/sa/{name}\r\n");
                    ensure!(answer.contains(&of), "the client is not named: {answer}");
                    ensure!(answer.contains("x-pod: server\r\n"), "{answer}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_application_sees_its_clients_own_address() -> Result<()> {
    let guarded = Guarded::open(NO_ADMIN)?;
    let rig = &guarded.rig;
    let at = (Ipv6Addr::UNSPECIFIED, 8082).into();
    let listener = guarded._server.listen(at, Behaviour::Http("second".to_owned()))?;
    for name in ["near", "far"] {
        let client = rig.pod(name)?;
        let conn = client.connect(rig.at("server", 8082)?)?;
        let own = conn.socket_name()?;
        conn.send(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n")?;
        ensure!(read(&conn)?.starts_with("HTTP/1.1 200 "));
        let accepted = listener.accepted()?;
        let last = accepted.last().context("nothing was accepted")?;
        assert_eq!(last.peer.ip().to_canonical(), own.ip(), "{name}");
        assert_eq!(last.peer.port(), own.port(), "{name}");
    }
    Ok(())
}

#[test]
fn no_way_leads_around_a_rule_about_requests() -> Result<()> {
    let guarded = Guarded::open(NO_ADMIN)?;
    let rig = &guarded.rig;
    let (near, far, stranger) = (rig.pod("near")?, rig.pod("far")?, rig.pod("stranger")?);
    let host = rig.process_on("a", "host")?;
    let server = rig.at("server", PORT)?;
    for (who, client, ways) in [
        ("near", &near, vec![rig.vip("server", 80)?, server, rig.at("server", SECOND)?]),
        ("far", &far, vec![rig.vip("server", 80)?, server, rig.at("server", SECOND)?]),
        ("a client outside the mesh", &stranger, vec![server, rig.at("server", SECOND)?]),
        ("a process of the node", &host, vec![server, rig.at("server", SECOND)?]),
    ] {
        for to in ways {
            assert_eq!(status(client, to, "GET /ok", ""), 200, "{who} {to}");
            for line in [
                "GET /admin",
                "GET http://server/admin",
                "GET //admin",
                "GET /ok/../admin",
                "GET /ok/%2e%2e/admin",
                "GET /%61dmin",
                "GET /ok%2f..%2fadmin",
                "GET /ok/%252e%252e/admin",
                "GET /x;a/..;b/admin",
                "GET /admin;x",
                "GET /ok\\..\\admin",
                "POST /admin?x=/ok",
            ] {
                let found = status(client, to, line, "");
                assert!([400, 403].contains(&found), "{who} {to} {line}: {found}");
            }
        }
        let to = server;
        let smuggled = "GET /admin HTTP/1.1\r\nHost: server\r\n\r\n";
        for headers in [
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_owned(),
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
            format!("Content-Length: 4\r\nContent-Length: {}\r\n", smuggled.len()),
        ] {
            let request =
                format!("POST /ok HTTP/1.1\r\nHost: server\r\n{headers}\r\n0\r\n\r\n{smuggled}");
            let answer = ask(client, to, request.as_bytes()).unwrap_or_default();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{who}: {answer}");
        }
        assert_eq!(status(client, to, "CONNECT server:80", ""), 403, "{who}");
        let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
        assert_eq!(status(client, to, "GET /admin", upgrade), 403, "{who}");
        let h2c = "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n";
        assert_eq!(status(client, to, "GET /admin", h2c), 403, "{who}");
        assert_eq!(http2_status(client, to, "/admin")?, "403", "{who}");
        assert_eq!(http2_status(client, to, "/ok")?, "200", "{who}");
        // What is no HTTP is denied as the rule without its paths would deny it.
        let raw = ask(client, to, b"\x00\x01\x02 /admin\r\n\r\n");
        assert!(raw.is_err(), "{who}: {raw:?}");
    }
    Ok(())
}

/// The status that HTTP/2 with prior knowledge is answered with.
fn http2_status(client: &Pod, to: SocketAddr, path: &str) -> Result<String> {
    let conn = client.connect(to)?;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    // `:method: GET` and `:scheme: http` are in the static table; the others are literals.
    let mut block = vec![0x82, 0x86];
    block.extend(literal(0x04, path));
    block.extend(literal(0x01, "server"));
    bytes.extend(frame(1, 0x5, 1, &block));
    conn.send(&bytes)?;
    loop {
        let head = conn.receive(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = conn.receive(length)?;
        if head[3] == 1 {
            // 200 has an entry of HPACK's table; 403 is a literal in the digits of its Huffman code.
            let known: [(&[u8], _); 2] =
                [(&[0x88], "200"), (&[0x48, 0x83, 0x68, 0x0c, 0xff], "403")];
            let found = known.iter().find(|(code, _)| payload.starts_with(code));
            return Ok(found.map_or(format!("{payload:x?}"), |(_, status)| (*status).to_owned()));
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field with an indexed name that is not to be indexed.
fn literal(name: u8, value: &str) -> Vec<u8> {
    let mut field = vec![name, value.len() as u8];
    field.extend(value.bytes());
    field
}

#[test]
fn a_policy_that_comes_to_look_at_requests_ends_what_nobody_has_looked_at() -> Result<()> {
    let guarded = Guarded::open("action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}]")?;
    let rig = &guarded.rig;
    for name in ["near", "far"] {
        let client = rig.pod(name)?;
        let conn = client.connect(rig.at("server", PORT)?)?;
        conn.send(b"GET /admin HTTP/1.1\r\nHost: server\r\n\r\n")?;
        ensure!(read(&conn)?.starts_with("HTTP/1.1 200 "), "{name}");
        rig.apply("guard", &guard_yaml(NO_ADMIN))?;
        let again =
            conn.send(b"GET /admin HTTP/1.1\r\nHost: server\r\n\r\n").and_then(|()| read(&conn));
        ensure!(again.is_err(), "{name} was answered on its old connection: {again:?}");
        assert_eq!(status(&client, rig.at("server", PORT)?, "GET /admin", ""), 403);
        rig.apply(
            "guard",
            &guard_yaml("action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}]"),
        )?;
    }
    Ok(())
}

fn guard_yaml(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: guard, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: server}}}}, {spec}}}\n"
    )
}

#[test]
fn allow_by_identity_and_request_lets_nobody_else_and_nothing_else_through() -> Result<()> {
    let guarded = Guarded::open(
        "action: ALLOW, rules: [{from: [{source: {serviceAccounts: [near]}}], \
         to: [{operation: {methods: [GET], paths: ['/a/{*}']}}], \
         when: [{key: 'request.headers[x-team]', values: [blue]}]}]",
    )?;
    let rig = &guarded.rig;
    let to = rig.vip("server", 80)?;
    let (near, far) = (rig.pod("near")?, rig.pod("far")?);
    for (line, headers, expected) in [
        ("GET /a/b", "x-team: blue\r\n", 200),
        ("GET /a/b", "x-team: red\r\n", 403),
        ("GET /a/b", "", 403),
        ("GET /a/b/c", "x-team: blue\r\n", 403),
        ("POST /a/b", "x-team: blue\r\n", 403),
        ("GET /a/x/../b", "x-team: blue\r\n", 200),
    ] {
        assert_eq!(status(&near, to, line, headers), expected, "{line} {headers}");
    }
    // Nothing that `far` could ask would be allowed: it is not let in at all.
    assert_eq!(status(&far, to, "GET /a/b", "x-team: blue\r\n"), 0);
    Ok(())
}
