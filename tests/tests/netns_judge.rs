//! Requests judged at their destination. Ways around that are tried in `netns_around.rs`.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{
    PORT, Pod, PodSpec, Rig, ServiceSpec,
    pod::protocol::Behaviour,
    raw::{read, status},
    wait_for,
};

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
            .node("b", [PodSpec::new("far")])
            .service(ServiceSpec::new("server", 80, PORT, &["server"]))
            .build()?;
        policy(&rig, spec)?;
        rig.start()?;
        let server = rig.pod("server")?;
        let at = (Ipv6Addr::UNSPECIFIED, PORT).into();
        server.listen_many(at, 1, Behaviour::Http("server".to_owned()))?;
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
fn a_policy_that_comes_to_look_at_requests_ends_what_nobody_has_looked_at() -> Result<()> {
    let guarded = Guarded::open("action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}]")?;
    let rig = &guarded.rig;
    for name in ["near", "far"] {
        let client = rig.pod(name)?;
        let conn = client.connect(rig.at("server", PORT)?)?;
        conn.send(b"GET /admin HTTP/1.1\r\nHost: server\r\n\r\n")?;
        ensure!(read(&conn)?.starts_with("HTTP/1.1 200 "), "{name}");
        rig.apply("guard", &guard_yaml(NO_ADMIN))?;
        // Connections are judged again right after the policy is in force.
        wait_for("the old connection to end", Duration::from_secs(5), || {
            let again = conn.send(b"GET /admin HTTP/1.1\r\nHost: server\r\n\r\n");
            let again = again.and_then(|()| read(&conn));
            ensure!(again.is_err(), "{name} is answered on its old connection: {again:?}");
            Ok(Some(()))
        })?;
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
