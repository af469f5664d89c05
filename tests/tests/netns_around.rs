//! Every way in which somebody might try to get around a policy that looks at requests, for every kind of policy that
//! does: the pod's address instead of the service's, another port of the same container, HTTP/2 with prior knowledge,
//! upgrades, CONNECT, requests that are smuggled, and clients outside the mesh, on the same node and of the node itself.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use undermesh_tests::{
    PORT, Pod, PodSpec, Rig, ServiceSpec,
    pod::protocol::Behaviour,
    raw::{ask, http2_status, status},
};

/// Another port of the same container.
const SECOND: u16 = 8081;
/// A token that is none.
const TOKEN: &str = "Bearer a.b.c";

/// A kind of policy about the pod `server`.
struct Kind {
    name: &'static str,
    object: &'static str,
    /// What is wrong with a request, beside its path.
    header: Option<&'static str>,
    /// The status of what it refuses.
    refused: u16,
    /// What is no HTTP is refused as well.
    refuses_others: bool,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "AuthorizationPolicy DENY",
        object: "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {name: guard, namespace: shop}\n\
                 spec: {selector: {matchLabels: {app: server}}, action: DENY, \
                 rules: [{to: [{operation: {paths: ['/admin*']}}]}]}\n",
        header: None,
        refused: 403,
        refuses_others: true,
    },
    Kind {
        name: "AuthorizationPolicy ALLOW",
        object: "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {name: guard, namespace: shop}\n\
                 spec: {selector: {matchLabels: {app: server}}, action: ALLOW, \
                 rules: [{to: [{operation: {paths: ['/ok*']}}]}]}\n",
        header: None,
        refused: 403,
        refuses_others: true,
    },
    // Whom it asks does not exist, so that what is asked about is refused.
    Kind {
        name: "AuthorizationPolicy CUSTOM",
        object: "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {name: guard, namespace: shop}\n\
                 spec: {selector: {matchLabels: {app: server}}, action: CUSTOM, \
                 provider: {name: nobody}, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}\n",
        header: None,
        refused: 403,
        refuses_others: true,
    },
    Kind {
        name: "RequestAuthentication",
        object: "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                 metadata: {name: guard, namespace: shop}\n\
                 spec: {selector: {matchLabels: {app: server}}, \
                 jwtRules: [{issuer: me, jwks: '{\"keys\": []}'}]}\n",
        header: Some(TOKEN),
        refused: 401,
        refuses_others: false,
    },
    // Of which there is one in half a day, and it has been.
    Kind {
        name: "RateLimitPolicy",
        object: "apiVersion: undermesh.io/v1alpha1\nkind: RateLimitPolicy\n\
                 metadata: {name: guard, namespace: shop}\n\
                 spec: {selector: {matchLabels: {app: server}}, rules: [{name: admin, \
                 to: [{operation: {paths: ['/admin*']}}], requests: {count: 1, per: 12h}}]}\n",
        header: None,
        refused: 429,
        refuses_others: false,
    },
];

/// A client, and where it may reach the server.
struct Client {
    who: &'static str,
    pod: Pod,
    ways: Vec<SocketAddr>,
}

/// `near` and `server` are on one node, `far` and a pod outside the mesh on another.
struct Town {
    rig: Rig,
    clients: Vec<Client>,
    _server: Pod,
}

impl Town {
    fn open() -> Result<Self> {
        let mut rig = Rig::builder()
            .node("a", [PodSpec::new("near"), PodSpec::new("server")])
            .node("b", [PodSpec::new("far"), PodSpec::new("stranger").listed()])
            .service(ServiceSpec::new("server", 80, PORT, &["server"]))
            .build()?;
        rig.start()?;
        let server = rig.pod("server")?;
        for port in [PORT, SECOND] {
            let at = (Ipv6Addr::UNSPECIFIED, port).into();
            server.listen_many(at, 1, Behaviour::Http("server".to_owned()))?;
        }
        let own = [rig.at("server", PORT)?, rig.at("server", SECOND)?];
        let six = [rig.at6("server", PORT)?];
        let meshed = || -> Result<Vec<SocketAddr>> {
            Ok([&[rig.vip("server", 80)?][..], &own, &six].concat())
        };
        let clients = vec![
            Client { who: "a pod of the same node", pod: rig.pod("near")?, ways: meshed()? },
            Client { who: "a pod of another node", pod: rig.pod("far")?, ways: meshed()? },
            Client { who: "outside the mesh", pod: rig.pod("stranger")?, ways: own.to_vec() },
            Client { who: "the node", pod: rig.process_on("a", "host")?, ways: own.to_vec() },
        ];
        Ok(Self { rig, clients, _server: server })
    }

    /// Puts one policy in force, and uses up what it allows once.
    fn guard(&self, kind: &Kind) -> Result<()> {
        self.rig.apply("guard", kind.object)?;
        if kind.refused == 429 {
            let to = self.rig.at("server", PORT)?;
            let first =
                self.clients.first().map(|client| status(&client.pod, to, "GET /admin", ""));
            ensure!(first == Some(200), "the first request: {first:?}");
        }
        Ok(())
    }
}

#[test]
fn no_way_leads_around_a_policy_about_requests() -> Result<()> {
    let town = Town::open()?;
    for kind in &KINDS {
        town.guard(kind)?;
        for client in &town.clients {
            tried(kind, client)
                .map_err(|error| error.context(format!("{}, {}", kind.name, client.who)))?;
        }
    }
    Ok(())
}

/// Tries every way of one client.
fn tried(kind: &Kind, client: &Client) -> Result<()> {
    let token = kind.header.map(|token| format!("Authorization: {token}\r\n"));
    let bad = token.unwrap_or_default();
    let refused = |found: u16, what: &str| {
        // What may be read in several ways may be no request at all.
        ensure!([kind.refused, 400].contains(&found), "{what} was answered with {found}");
        Ok(())
    };
    let pod = &client.pod;
    for to in &client.ways {
        ensure!(status(pod, *to, "GET /ok", "") == 200, "{to} serves nobody");
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
            refused(status(pod, *to, line, &bad), &format!("{to} {line}"))?;
        }
        for upgrade in [
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n",
        ] {
            let headers = format!("{upgrade}{bad}");
            refused(status(pod, *to, "GET /admin", &headers), &format!("{to} {upgrade}"))?;
        }
        // What is inside would be judged by nobody.
        let connect = status(pod, *to, "CONNECT server:80", &bad);
        ensure!(connect == 403, "{to}: CONNECT was answered with {connect}");
        let header: Vec<_> =
            kind.header.map(|token| ("authorization", token)).into_iter().collect();
        let found = http2_status(pod, *to, "/admin", &header)?;
        ensure!(found == kind.refused.to_string(), "{to}: HTTP/2 was answered with {found}");
        let found = http2_status(pod, *to, "/ok", &[])?;
        ensure!(found == "200", "{to}: HTTP/2 was answered with {found}");
        smuggled(pod, *to, &bad)?;
        if kind.refuses_others {
            let raw = ask(pod, *to, b"\x00\x01\x02 /admin\r\n\r\n");
            ensure!(raw.is_err(), "{to}: what is no HTTP was answered: {raw:?}");
        }
    }
    Ok(())
}

/// Behind a request whose end two readers see at different places there is no other.
fn smuggled(pod: &Pod, to: SocketAddr, bad: &str) -> Result<()> {
    let inner = format!("GET /admin HTTP/1.1\r\nHost: server\r\n{bad}\r\n");
    for headers in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
        format!("Content-Length: 4\r\nContent-Length: {}\r\n", inner.len()),
    ] {
        let request = format!("POST /ok HTTP/1.1\r\nHost: server\r\n{headers}\r\n0\r\n\r\n{inner}");
        let answer = ask(pod, to, request.as_bytes()).unwrap_or_default();
        let fine = answer.is_empty() || answer.starts_with("HTTP/1.1 400");
        ensure!(fine, "{to} {headers}: {answer}");
    }
    Ok(())
}
