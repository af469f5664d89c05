//! Tokens of requests (RequestAuthentication), verified by the destination's agent.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use undermesh_tests::{
    Issuer, PORT, Pod, PodSpec, Rig, ServiceSpec, pod::protocol::Behaviour, wait_for,
};

/// Longer than any agent waits before it asks for keys again.
const NOTICED: Duration = Duration::from_secs(20);

/// A client, and a server on another node that serves HTTP.
struct Guarded {
    rig: Rig,
    client: Pod,
    _server: Pod,
}

impl Guarded {
    fn open(rule: &str) -> Result<Self> {
        let mut rig = Rig::builder()
            .node("a", [PodSpec::new("client")])
            .node("b", [PodSpec::new("server")])
            .service(ServiceSpec::new("server", 80, PORT, &["server"]))
            .build()?;
        let yaml = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: tokens, namespace: shop}}\n\
             spec: {{selector: {{matchLabels: {{app: server}}}}, jwtRules: [{rule}]}}\n"
        );
        rig.manifests.write("tokens", &yaml)?;
        rig.start()?;
        let server = rig.pod("server")?;
        let at = (Ipv6Addr::UNSPECIFIED, PORT).into();
        server.listen_many(at, 1, Behaviour::Http("server".to_owned()))?;
        let client = rig.pod("client")?;
        Ok(Self { rig, client, _server: server })
    }

    /// Status and the whole answer to a request with these headers.
    fn ask(&self, target: &str, headers: &str) -> Result<(u16, String)> {
        let conn = self.client.connect(self.rig.vip("server", 80)?)?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: server\r\n{headers}\r\n");
        conn.send(request.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(conn.receive(1)?);
        }
        let mut answer = String::from_utf8(head)?;
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(Ok(0), str::parse)?;
        answer.push_str(&String::from_utf8(conn.receive(length)?)?);
        let status = answer.split(' ').nth(1).unwrap_or_default().parse()?;
        Ok((status, answer))
    }

    /// What `undermesh explain` says at a node of a request with a token.
    fn explained(&self, node: &str, token: &str) -> Result<Value> {
        let mut command = self.rig.undermesh_on(node)?;
        command.args(["explain", "-o", "json", "shop/client", "server", "GET", "/", "-H"]);
        let output = command.arg(format!("authorization: Bearer {token}")).output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What is explained at a node has become of the newest request.
    fn agrees(&self, node: &str, token: &str, status: u16) -> Result<()> {
        let told = self.explained(node, token)?;
        if status == 200 {
            assert_eq!(told["verdict"], "carried", "{told:#}");
            return Ok(());
        }
        let page = self.rig.agent("b")?.admin("/flows?last=1&status=4xx")?;
        let record: Value = serde_json::from_str(&page)?;
        for field in ["reason", "detail", "status"] {
            assert_eq!(told[field], record[field], "{told:#} {record:#}");
        }
        assert_eq!((&told["verdict"], &told["status"]), (&json!("refused"), &json!(status)));
        Ok(())
    }

    fn with(&self, token: &str) -> Result<(u16, String)> {
        self.ask("/", &format!("Authorization: Bearer {token}\r\n"))
    }
}

#[test]
fn a_token_is_verified_and_its_claims_decide() -> Result<()> {
    let (issuer, stranger) = (Issuer::new("me")?, Issuer::new("me")?);
    let guarded = Guarded::open(&format!(
        "{{issuer: me, audiences: [shop], jwks: '{}', \
         outputClaimToHeaders: [{{header: X-Sub, claim: sub}}]}}",
        issuer.set()?
    ))?;
    let good = json!({"iss": "me", "sub": "you", "aud": "shop", "exp": Issuer::within(600)});
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let (status, answer) = guarded.ask("/", "X-Sub: forged\r\n")?;
    ensure!(status == 200 && !answer.contains("forged"), "without a token: {answer}");
    let (status, answer) = guarded.with(&issuer.token(&good)?)?;
    assert_eq!(status, 200);
    ensure!(answer.contains("x-sub: you\r\n"), "the claim is not passed on: {answer}");
    ensure!(!answer.to_lowercase().contains("authorization:"), "the token is: {answer}");
    let (status, answer) =
        guarded.ask(&format!("/?access_token={}&a=b", issuer.token(&good)?), "")?;
    assert_eq!(status, 200);
    ensure!(answer.contains("GET /?a=b HTTP/1.1\r\n"), "the token stays in the query: {answer}");
    for (token, expected, text) in [
        (issuer.token(&but("exp", json!(Issuer::within(-3600))))?, 401, "Jwt is expired"),
        (issuer.token(&but("nbf", json!(Issuer::within(3600))))?, 401, "Jwt not yet valid"),
        (issuer.token(&but("iss", json!("you")))?, 401, "Jwt issuer is not configured"),
        (issuer.token(&but("aud", json!(["other"])))?, 403, "Audiences in Jwt are not allowed"),
        (stranger.token(&good)?, 401, "Jwt verification fails"),
        ("nonsense".to_owned(), 401, "Jwt is not in the form"),
    ] {
        let (status, answer) = guarded.with(&token)?;
        assert_eq!(status, expected, "{text}: {answer}");
        ensure!(answer.contains(text), "{answer}");
        ensure!(answer.contains("www-authenticate: Bearer"), "{answer}");
        guarded.agrees("a", &token, status)?;
        guarded.agrees("b", &token, status)?;
    }
    guarded.agrees("a", &issuer.token(&good)?, 200)?;
    guarded.rig.apply(
        "allow",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: allow, namespace: shop}\nspec: {selector: {matchLabels: {app: server}}, \
         rules: [{from: [{source: {requestPrincipals: ['me/you']}}], \
         when: [{key: 'request.auth.claims[role]', values: [admin]}]}]}\n",
    )?;
    assert_eq!(guarded.ask("/", "")?.0, 403, "nobody's request was allowed");
    assert_eq!(guarded.with(&issuer.token(&good)?)?.0, 403, "a claim is missing");
    let admin = issuer.token(&but("role", json!(["user", "admin"])))?;
    assert_eq!(guarded.with(&admin)?.0, 200);
    Ok(())
}

/// Publishes keys over HTTP, in a node's namespace; and says where they are, as issuers do.
struct Publisher {
    set: Arc<Mutex<Option<String>>>,
    address: SocketAddr,
}

/// Where an issuer says where its keys are (OpenID Connect Discovery 1.0, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

impl Publisher {
    fn start(rig: &Rig, node: &str) -> Result<Self> {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = rig.node(node)?.netns.run(bind)??;
        let address = listener.local_addr()?;
        let set = Arc::new(Mutex::new(None));
        let published = Arc::clone(&set);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let set = published.lock().ok().and_then(|set| set.clone());
                // A client that leaves early has its own reasons.
                let _ = answer(&stream, address, set.as_deref());
            }
        });
        Ok(Self { set, address })
    }

    fn publish(&self, set: Option<String>) {
        if let Ok(mut published) = self.set.lock() {
            *published = set;
        }
    }
}

fn answer(mut stream: &TcpStream, own: SocketAddr, set: Option<&str>) -> std::io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut line)?;
    let document = json!({ "jwks_uri": format!("http://{own}/keys") }).to_string();
    let asked = line.split(' ').nth(1).unwrap_or_default();
    let set = set.filter(|_| asked == "/keys").or((asked == DISCOVERY).then_some(&*document));
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let (status, body) = set.map_or(("503 -", ""), |set| ("200 -", set));
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[test]
fn keys_are_fetched_followed_when_they_change_and_outlive_their_publisher() -> Result<()> {
    let (first, second) = (Issuer::new("first")?, Issuer::new("second")?);
    // The rule names an address that is only known once the node is there.
    let guarded = Guarded::open("{issuer: nobody, jwks: '{\"keys\": []}'}")?;
    let publisher = Publisher::start(&guarded.rig, "b")?;
    guarded.rig.apply(
        "tokens",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: tokens, namespace: shop}}\n\
             spec: {{jwtRules: [{{issuer: me, jwksUri: 'http://{}/keys'}}]}}\n",
            publisher.address
        ),
    )?;
    let claims = json!({"iss": "me", "sub": "you", "exp": Issuer::within(600)});
    let depends = |node: &str, part: &str| -> Result<()> {
        let told = guarded.explained(node, &first.token(&claims)?)?;
        assert_eq!(told["reason"], "keys_not_at_hand", "{told:#}");
        ensure!(told["detail"].as_str().is_some_and(|it| it.contains(part)), "{part}: {told:#}");
        Ok(())
    };
    depends("b", "nobody has needed them yet")?;
    let (status, answer) = guarded.with(&first.token(&claims)?)?;
    assert_eq!(status, 401, "{answer}");
    ensure!(answer.contains("Jwks remote fetch is failed"), "{answer}");
    depends("b", "answers with 503")?;
    assert_eq!(guarded.ask("/", "")?.0, 200, "a request without a token needs no keys");
    let accepted =
        |issuer: &Issuer| -> Result<bool> { Ok(guarded.with(&issuer.token(&claims)?)?.0 == 200) };
    publisher.publish(Some(first.set()?));
    wait_for("the first key to be known", NOTICED, || Ok(accepted(&first)?.then_some(())))?;
    guarded.agrees("b", &first.token(&claims)?, 200)?;
    depends("a", "the agent of node b fetches them")?;
    let expired = first.token(&json!({"iss": "me", "sub": "you", "exp": Issuer::within(-600)}))?;
    assert_eq!(guarded.with(&expired)?.0, 401);
    guarded.agrees("b", &expired, 401)?;
    let told = guarded.explained("b", &second.token(&claims)?)?;
    assert_eq!(told["reason"], "keys_not_at_hand", "newer keys were not thought of: {told:#}");
    publisher.publish(Some(second.set()?));
    wait_for("the second key to be known", NOTICED, || Ok(accepted(&second)?.then_some(())))?;
    assert_eq!(guarded.with(&first.token(&claims)?)?.0, 401, "a key that was withdrawn is in use");
    publisher.publish(None);
    assert_eq!(guarded.with(&first.token(&claims)?)?.0, 401);
    ensure!(accepted(&second)?, "keys did not outlive their publisher");
    Ok(())
}

#[test]
fn an_issuer_says_where_its_keys_are() -> Result<()> {
    let key = Issuer::new("key")?;
    let guarded = Guarded::open("{issuer: nobody, jwks: '{\"keys\": []}'}")?;
    let publisher = Publisher::start(&guarded.rig, "b")?;
    // With and without a slash at its end, as issuers write themselves.
    for issuer in
        [format!("http://{}", publisher.address), format!("http://{}/", publisher.address)]
    {
        publisher.publish(None);
        guarded.rig.apply(
            "tokens",
            &format!(
                "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                 metadata: {{name: tokens, namespace: shop}}\n\
                 spec: {{jwtRules: [{{issuer: '{issuer}'}}]}}\n"
            ),
        )?;
        let claims = json!({"iss": issuer, "sub": "you", "exp": Issuer::within(600)});
        let (status, answer) = guarded.with(&key.token(&claims)?)?;
        assert_eq!(status, 401, "{answer}");
        ensure!(answer.contains("Jwks remote fetch is failed"), "{answer}");
        publisher.publish(Some(key.set()?));
        wait_for("the keys to be known", NOTICED, || {
            Ok((guarded.with(&key.token(&claims)?)?.0 == 200).then_some(()))
        })?;
        let other = json!({"iss": "http://127.0.0.1:1", "sub": "you", "exp": Issuer::within(600)});
        assert_eq!(guarded.with(&key.token(&other)?)?.0, 401, "a token of another issuer");
        assert_eq!(guarded.ask("/", "")?.0, 200, "a request without a token needs no keys");
    }
    Ok(())
}
