//! CUSTOM policies: requests that somebody else has to agree to, over HTTP and gRPC.

use std::{collections::BTreeMap, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{
    PORT, Pod, PodSpec, Rig, ServiceSpec,
    authorizer::{
        Authorizer, Question, Reaction,
        message::{self, allowed, bytes, denied},
    },
    pod::{
        http::{Ask, Reply, Speaks},
        protocol::Behaviour,
    },
    wait_for,
};

/// Longer than any agent takes to notice anything.
const NOTICED: Duration = Duration::from_secs(20);
/// Where authorizers serve HTTP, and where gRPC.
const HTTP: u16 = 9000;
const GRPC: u16 = 9001;
/// An authorizer on the node of the pod that is guarded, one on the other node, and one outside the mesh.
const JUDGES: [&str; 3] = ["near", "far", "outside"];

/// `server` is the pod that is guarded; whatever is asked of it under `/ask`, somebody has to agree to.
struct Guarded {
    rig: Rig,
    client: Pod,
    server: Pod,
}

impl Guarded {
    fn open() -> Result<Self> {
        let mut builder = Rig::builder()
            .node("a", [PodSpec::new("client"), PodSpec::new("far")])
            .node(
                "b",
                [PodSpec::new("server"), PodSpec::new("near"), PodSpec::new("outside").listed()],
            )
            .service(ServiceSpec::new("server", 80, PORT, &["server"]));
        for judge in JUDGES {
            let service = ServiceSpec::new(judge, HTTP, HTTP, &[judge]).port(GRPC, GRPC, "grpc");
            builder = builder.service(service);
        }
        let mut rig = builder.build()?;
        rig.manifests.write("ask", &asks("judge", "/ask*"))?;
        rig.start()?;
        let server = rig.pod("server")?;
        let at = (std::net::Ipv6Addr::UNSPECIFIED, PORT).into();
        server.listen_many(at, 1, Behaviour::Http("server".to_owned()))?;
        let client = rig.pod("client")?;
        Ok(Self { rig, client, server })
    }

    /// Makes somebody the provider `judge`, with these fields besides.
    fn provide(&self, kind: &str, judge: &str, fields: &str) -> Result<()> {
        let port = if kind == "envoyExtAuthzGrpc" { GRPC } else { HTTP };
        self.rig.apply(
            "mesh",
            &format!(
                "apiVersion: undermesh.io/v1alpha1\nkind: MeshConfig\n\
                 metadata: {{name: default, namespace: istio-system}}\n\
                 spec: {{extensionProviders: [{{name: judge, {kind}: \
                 {{service: {judge}.shop.svc.cluster.local, port: {port}, {fields}}}}}]}}\n"
            ),
        )
    }

    fn judge(&self, name: &str) -> Result<Authorizer> {
        Authorizer::http(&self.rig.place(name)?.netns, HTTP)
    }

    fn ask(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply> {
        let ask = self.question(path, headers, body)?;
        self.client.ask(ask)?.into_iter().next().context("no answer")
    }

    fn question(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Ask> {
        let headers: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Ask {
            speaks: Speaks::Http1,
            to: Some(self.rig.vip("server", 80)?),
            method: if body.is_empty() { "GET" } else { "POST" }.to_owned(),
            path: path.to_owned(),
            authority: "server".to_owned(),
            headers,
            body: body.to_vec(),
            times: 1,
            ..Ask::default()
        })
    }

    fn status(&self, path: &str) -> Result<u16> {
        Ok(self.ask(path, &[], b"")?.status)
    }
}

fn asks(provider: &str, path: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: ask-{provider}, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: server}}}}, action: CUSTOM, \
         provider: {{name: {provider}}}, rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}\n"
    )
}

fn say(text: &str) -> Reaction {
    Reaction::Say(text.as_bytes().to_vec())
}

fn yes() -> Reaction {
    say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
}

fn one(asked: Vec<Question>) -> Result<Question> {
    ensure!(asked.len() == 1, "asked {} times: {asked:?}", asked.len());
    asked.into_iter().next().context("nothing was asked")
}

#[test]
fn an_authorizer_that_speaks_http_decides_wherever_it_is() -> Result<()> {
    let guarded = Guarded::open()?;
    // Between nodes and on the node, it can only be reached with the pod's own identity.
    guarded.rig.apply(
        "strict",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {name: strict, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n",
    )?;
    for name in JUDGES {
        let judge = guarded.judge(name)?;
        guarded.provide(
            "envoyExtAuthzHttp",
            name,
            "pathPrefix: /check, includeRequestHeadersInCheck: [x-shown], \
             includeAdditionalHeadersInCheck: {x-from: mesh}, \
             headersToUpstreamOnAllow: [x-user], headersToDownstreamOnAllow: [x-seen], \
             headersToDownstreamOnDeny: [x-why]",
        )?;
        judge.react(say(
            "HTTP/1.1 200 OK\r\nx-user: you\r\nx-seen: yes\r\nx-envoy-auth-headers-to-remove: x-secret\r\n\
             content-length: 2\r\n\r\nok",
        ));
        let headers = [
            ("x-shown", "1"),
            ("x-hidden", "2"),
            ("x-secret", "3"),
            ("x-user", "forged"),
            ("authorization", "Bearer t"),
        ];
        let reply = guarded.ask("/ask/./this?q=1", &headers, b"")?;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        assert_eq!(reply.header("x-seen"), Some("yes"), "{name}");
        ensure!(reply.body.contains("x-user: you\r\n"), "{name}: {}", reply.body);
        ensure!(!reply.body.contains("forged") && !reply.body.contains("x-secret"), "{name}");
        let question = one(judge.asked())?.head.to_lowercase();
        ensure!(question.starts_with("get /check/ask/this?q=1 http/1.1\r\n"), "{name}: {question}");
        for shown in [
            "host: server\r\n",
            "x-shown: 1\r\n",
            "x-from: mesh\r\n",
            "authorization: bearer t\r\n",
        ] {
            ensure!(question.contains(shown), "{name}: {shown:?} is missing in {question}");
        }
        ensure!(!question.contains("x-hidden"), "{name}: {question}");
        assert_eq!(guarded.status("/free")?, 200, "{name}");
        ensure!(judge.asked().is_empty(), "{name} was asked about what is free");
        judge.react(say(
            "HTTP/1.1 401 No\r\nx-why: because\r\nx-other: no\r\nwww-authenticate: Basic\r\n\
             content-length: 8\r\n\r\ngo away\n",
        ));
        let reply = guarded.ask("/ask", &[], b"")?;
        assert_eq!((reply.status, reply.body.as_str()), (401, "go away\n"), "{name}");
        assert_eq!(reply.header("x-why"), Some("because"), "{name}");
        assert_eq!(reply.header("www-authenticate"), Some("Basic"), "{name}");
        assert_eq!(reply.header("x-other"), None, "{name}");
    }
    Ok(())
}

#[test]
fn an_authorizer_is_shown_as_much_of_the_body_as_it_wants() -> Result<()> {
    let guarded = Guarded::open()?;
    let judge = guarded.judge("near")?;
    judge.react(yes());
    let long = vec![b'x'; 300_000];
    let kept = |allow: bool| {
        format!("includeRequestBodyInCheck: {{maxRequestBytes: 10, allowPartialMessage: {allow}}}")
    };
    guarded.provide("envoyExtAuthzHttp", "near", &kept(true))?;
    for (body, shown, partial) in [(&b"short"[..], 5, "false"), (&long, 10, "true")] {
        let reply = guarded.ask("/ask", &[], body)?;
        assert_eq!(reply.status, 200, "{reply:?}");
        // The server answers once it has read all of it.
        ensure!(reply.body.contains(&format!("{}\r\n", body.len())), "{}", reply.body);
        let question = one(judge.asked())?;
        assert_eq!(question.body.len(), shown);
        let line = format!("x-envoy-auth-partial-body: {partial}\r\n");
        ensure!(question.head.contains(&line), "{}", question.head);
    }
    guarded.provide("envoyExtAuthzHttp", "near", &kept(false))?;
    assert_eq!(guarded.ask("/ask", &[], b"short")?.status, 200);
    assert_eq!(one(judge.asked())?.body, b"short");
    assert_eq!(guarded.ask("/ask", &[], &long[..20])?.status, 413);
    ensure!(judge.asked().is_empty(), "asked about a body that is too long");
    guarded.provide("envoyExtAuthzHttp", "near", "timeout: 20s")?;
    assert_eq!(guarded.ask("/ask", &[], &long)?.status, 200);
    ensure!(one(judge.asked())?.body.is_empty(), "a body was shown that nobody wants");
    Ok(())
}

#[test]
fn without_an_answer_fail_open_says_what_becomes_of_a_request() -> Result<()> {
    let guarded = Guarded::open()?;
    let (near, grpc) = (guarded.judge("near")?, &guarded.rig.place("far")?.netns);
    let far = Authorizer::grpc(grpc, GRPC)?;
    let kinds = [("envoyExtAuthzHttp", "near", &near), ("envoyExtAuthzGrpc", "far", &far)];
    for (kind, name, judge) in kinds {
        let settings = [("", 403), ("statusOnError: '503'", 503), ("failOpen: true", 200)];
        for (fields, expected) in settings {
            judge.react(Reaction::Hang);
            guarded.provide(kind, name, &format!("timeout: 300ms, {fields}"))?;
            assert_eq!(guarded.status("/ask")?, expected, "{kind} {fields}: too slow");
            guarded.provide(kind, name, &format!("timeout: 20s, {fields}"))?;
            judge.react(match kind {
                "envoyExtAuthzHttp" => say("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"),
                _ => Reaction::Fail(14),
            });
            assert_eq!(guarded.status("/ask")?, expected, "{kind} {fields}: a failure");
            // Nobody serves there.
            guarded.provide(kind, "outside", &format!("timeout: 20s, {fields}"))?;
            assert_eq!(guarded.status("/ask")?, expected, "{kind} {fields}: nobody there");
        }
    }
    Ok(())
}

#[test]
fn an_authorizer_that_speaks_grpc_sees_the_request_and_changes_it() -> Result<()> {
    let guarded = Guarded::open()?;
    for name in JUDGES {
        let judge = Authorizer::grpc(&guarded.rig.place(name)?.netns, GRPC)?;
        let body = "includeRequestBodyInCheck: {maxRequestBytes: 100}";
        guarded.provide("envoyExtAuthzGrpc", name, body)?;
        judge.react(Reaction::Say(allowed(&[
            bytes(2, &message::header("x-user", "you", false)),
            bytes(2, &message::header("x-group", "b", true)),
            bytes(5, b"x-secret"),
            bytes(6, &message::header("x-seen", "yes", false)),
            bytes(7, &[bytes(1, b"q"), bytes(2, b"2")].concat()),
        ])));
        let headers = [("x-secret", "3"), ("x-user", "forged"), ("x-group", "a")];
        let reply = guarded.ask("/ask?q=1", &headers, b"content")?;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        assert_eq!(reply.header("x-seen"), Some("yes"), "{name}");
        for seen in
            ["POST /ask?q=2 HTTP/1.1\r\n", "x-user: you\r\n", "x-group: a\r\n", "x-group: b\r\n"]
        {
            ensure!(reply.body.contains(seen), "{name}: {seen:?} is missing in {}", reply.body);
        }
        ensure!(!reply.body.contains("forged") && !reply.body.contains("x-secret"), "{name}");
        let question = one(judge.asked())?;
        for shown in [
            "/ask?q=1",
            "POST",
            "content",
            "x-secret",
            "spiffe://cluster.local/ns/shop/sa/client",
            "spiffe://cluster.local/ns/shop/sa/server",
            &guarded.rig.place("client")?.ip(undermesh_tests::Family::V4).to_string(),
        ] {
            ensure!(question.has(shown), "{name}: {shown:?} is not shown");
        }
        let why = message::header("x-why", "because", false);
        judge.react(Reaction::Say(denied(418, &[why], b"teapot")));
        let reply = guarded.ask("/ask", &[], b"")?;
        assert_eq!((reply.status, reply.body.as_str()), (418, "teapot"), "{name}");
        assert_eq!(reply.header("x-why"), Some("because"), "{name}");
    }
    Ok(())
}

#[test]
fn an_answer_that_cannot_be_used_never_lets_pass() -> Result<()> {
    let guarded = Guarded::open()?;
    let judge = Authorizer::grpc(&guarded.rig.place("near")?.netns, GRPC)?;
    guarded.provide("envoyExtAuthzGrpc", "near", "failOpen: true, statusOnError: '500'")?;
    let huge = allowed(&[bytes(2, &message::header("x-a", &"b".repeat(2 << 20), false))]);
    let split = allowed(&[bytes(2, &message::header("x-a", "b\r\nx-c: d", false))]);
    for (why, answer) in [("huge", huge), ("split", split), ("no message", vec![0xff; 9])] {
        judge.react(Reaction::Say(answer));
        let reply = guarded.ask("/ask", &[], b"")?;
        assert_eq!(reply.status, 500, "{why}: {reply:?}");
    }
    judge.react(Reaction::Say(allowed(&[])));
    assert_eq!(guarded.status("/ask")?, 200);
    // A refusal stays one, however much is said about it.
    let judge = guarded.judge("near")?;
    guarded.provide("envoyExtAuthzHttp", "near", "failOpen: true")?;
    let long = "b".repeat(2 << 20);
    let length = long.len();
    judge.react(say(&format!("HTTP/1.1 403 No\r\ncontent-length: {length}\r\n\r\n{long}")));
    let reply = guarded.ask("/ask", &[], b"")?;
    assert_eq!((reply.status, reply.body.len()), (403, 0));
    Ok(())
}

#[test]
fn a_client_that_goes_takes_its_question_along() -> Result<()> {
    let guarded = Guarded::open()?;
    let judges = [
        ("envoyExtAuthzHttp", guarded.judge("near")?),
        ("envoyExtAuthzGrpc", Authorizer::grpc(&guarded.rig.place("near")?.netns, GRPC)?),
    ];
    for (kind, judge) in judges {
        guarded.provide(kind, "near", "timeout: 300s")?;
        judge.react(Reaction::Hang);
        let leaving = guarded.rig.pod("client")?;
        let pid = leaving.pid().to_string();
        let ask = guarded.question("/ask", &[], b"")?;
        let waits = thread::spawn(move || leaving.ask(Ask { speaks: Speaks::Http2, ..ask }));
        wait_for("the question", NOTICED, || Ok((!judge.asked().is_empty()).then_some(())))?;
        assert_eq!(judge.gone(), 0, "{kind}");
        ensure!(Command::new("kill").args(["-KILL", &pid]).status()?.success(), "it has left");
        wait_for("the question to be given up", NOTICED, || Ok((judge.gone() == 1).then_some(())))?;
        ensure!(waits.join().is_ok_and(|asked| asked.is_err()), "it has got an answer");
        let conn = guarded.client.connect(guarded.rig.vip("server", 80)?)?;
        conn.send(b"GET /ask HTTP/1.1\r\nHost: server\r\n\r\n")?;
        wait_for("the question", NOTICED, || Ok((!judge.asked().is_empty()).then_some(())))?;
        conn.reset()?;
        wait_for("the question to be given up", NOTICED, || Ok((judge.gone() == 2).then_some(())))?;
    }
    Ok(())
}

#[test]
fn several_providers_have_to_agree_and_each_is_asked_once() -> Result<()> {
    let guarded = Guarded::open()?;
    let (near, far) = (guarded.judge("near")?, guarded.judge("far")?);
    let provider = |name: &str| {
        format!(
            "{{name: {name}, envoyExtAuthzHttp: {{service: {name}.shop.svc.cluster.local, \
             port: {HTTP}, headersToUpstreamOnAllow: [x-*], includeRequestHeadersInCheck: [x-*]}}}}"
        )
    };
    guarded.rig.apply(
        "mesh",
        &format!(
            "apiVersion: undermesh.io/v1alpha1\nkind: MeshConfig\n\
             metadata: {{name: default, namespace: istio-system}}\n\
             spec: {{extensionProviders: [{}, {}]}}\n",
            provider("near"),
            provider("far")
        ),
    )?;
    let again = asks("near", "/ask*").replace("ask-near", "again-near");
    let policies = [asks("near", "/ask*"), again, asks("far", "/ask*")].join("---\n");
    guarded.rig.apply("ask", &policies)?;
    let with = |name: &str, status: u16| {
        say(&format!("HTTP/1.1 {status} -\r\nx-{name}: said\r\ncontent-length: 0\r\n\r\n"))
    };
    for (of_near, of_far, expected) in [(200, 200, 200), (200, 401, 401), (402, 200, 402)] {
        near.react(with("near", of_near));
        far.react(with("far", of_far));
        let reply = guarded.ask("/ask", &[], b"")?;
        assert_eq!(reply.status, expected);
        let said = |question: &Question| question.head.contains("x-far: said");
        // In the order of their names: `far` first, and `near` sees what that has changed.
        assert_eq!(far.asked().len(), 1);
        let asked = near.asked();
        assert_eq!(asked.len(), usize::from(of_far == 200));
        ensure!(asked.iter().all(said), "{asked:?}");
        ensure!(expected != 200 || reply.body.contains("x-far: said"), "{}", reply.body);
    }
    Ok(())
}

#[test]
fn what_nobody_can_be_asked_about_is_refused_and_the_reason_shown() -> Result<()> {
    let guarded = Guarded::open()?;
    let rig = &guarded.rig;
    assert_eq!(guarded.status("/ask")?, 403, "the provider is not configured");
    assert_eq!(guarded.status("/free")?, 200);
    let warnings = rig.agent("b")?.status()?.warnings;
    let told = |warnings: &[String], code: &str| warnings.iter().any(|text| text.contains(code));
    ensure!(told(&warnings, "[unknown-provider]"), "{warnings:?}");
    guarded.provide("envoyExtAuthzHttp", "nowhere", "")?;
    assert_eq!(guarded.status("/ask")?, 403, "the provider's service does not exist");
    let warnings = rig.agent("b")?.status()?.warnings;
    ensure!(told(&warnings, "[provider-without-service]"), "{warnings:?}");
    // The pod that is guarded is the authorizer itself.
    guarded.provide("envoyExtAuthzHttp", "server", "failOpen: true")?;
    guarded.rig.apply(
        "mesh",
        "apiVersion: undermesh.io/v1alpha1\nkind: MeshConfig\n\
         metadata: {name: default, namespace: istio-system}\n\
         spec: {extensionProviders: [{name: judge, envoyExtAuthzHttp: \
         {service: server.shop.svc.cluster.local, port: 80, failOpen: true}}]}\n",
    )?;
    assert_eq!(guarded.status("/ask")?, 403, "it would be asked about what it is asked");
    // Bytes that are no requests, to a pod about which somebody would have to be asked.
    let opaque = guarded.server.listen("[::]:8090".parse()?, Behaviour::Echo)?;
    let conn = guarded.client.connect(rig.at("server", 8090)?)?;
    let refused = conn.exchange(b"no request at all\n");
    ensure!(refused.is_err() && opaque.accepted()?.is_empty(), "{refused:?}");
    let log = rig.agent("b")?.access_log();
    let line = log.wait(&[("event", "denied"), ("reason", "policy_denied")])?;
    let detail = line.get("detail");
    ensure!(detail.contains("AuthorizationPolicy shop/ask-judge, rule[0]"), "{detail}");
    ensure!(detail.contains("no request that could be asked about"), "{detail}");
    Ok(())
}

#[test]
fn status_says_which_policies_fail_and_why() -> Result<()> {
    let guarded = Guarded::open()?;
    let agent = guarded.rig.agent("b")?;
    let state = |name: &str| -> Result<(String, String)> {
        let status = agent.status()?;
        let row = status.policy(name).with_context(|| format!("{:?}", status.policies))?;
        ensure!(row.pods == 1 && row.action == "CUSTOM", "{row:?}");
        Ok((row.state.clone(), row.detail.join("; ")))
    };
    let (unknown, why) = state("ask-judge")?;
    assert_eq!(unknown, "fails-closed");
    let failing = |cause: &str, state: &str| {
        let series = format!("state=\"{state}\",cause=\"{cause}\"");
        agent.metric("undermesh_policy_failing", &series)
    };
    assert_eq!(failing("unknown-provider", "fails-closed")?, 1);
    ensure!(why.contains("it is not configured"), "{why}");
    for (fields, expected) in [("", "fails-closed"), ("failOpen: true", "fails-open")] {
        guarded.provide("envoyExtAuthzHttp", "near", &format!("timeout: 20s, {fields}"))?;
        // Nobody serves there.
        guarded.status("/ask")?;
        let (found, why) = state("ask-judge")?;
        assert_eq!(found, expected, "{why}");
        let series = format!("policy=\"ask-judge\",state=\"{expected}\",cause=\"no-answer\"");
        assert_eq!(agent.metric("undermesh_policy_failing", &series)?, 1);
        assert_eq!(agent.metric("undermesh_policies", &format!("state=\"{expected}\""))?, 1);
        ensure!(why.contains("gave no answer the last time"), "{why}");
    }
    let judge = guarded.judge("near")?;
    judge.react(yes());
    assert_eq!(guarded.status("/ask")?, 200);
    assert_eq!(state("ask-judge")?.0, "enforced");
    assert_eq!(agent.metric("undermesh_policy_failing", "")?, 0);
    assert_eq!(agent.metric("undermesh_policies", "state=\"enforced\"")?, 1);
    let status = agent.status()?;
    let row = status.authorizers.first().context("no authorizer is shown")?;
    let counts = (row.allowed, row.denied, row.failed_closed, row.failed_open);
    assert_eq!((row.provider.as_str(), counts, row.error.as_str()), ("judge", (1, 0, 1, 1), ""));
    for (result, count) in [("allowed", 1), ("failed_open", 1), ("failed_closed", 1)] {
        let label = format!("result=\"{result}\"");
        assert_eq!(agent.metric("undermesh_authorizer_checks_total", &label)?, count, "{result}");
    }
    guarded.rig.apply(
        "tokens",
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {name: tokens, namespace: shop}\n\
         spec: {jwtRules: [{issuer: me, jwksUri: 'http://127.0.0.1:1/keys', timeout: 2s}]}\n",
    )?;
    assert_eq!(agent.status()?.policy("tokens").context("tokens")?.state, "enforced");
    // `{"alg":"HS256"}`, `{"iss":"me"}`, and no signature.
    let token = [("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJtZSJ9.AAAA")];
    assert_eq!(guarded.ask("/free", &token, b"")?.status, 401);
    let status = agent.status()?;
    let row = status.policy("tokens").context("tokens")?;
    assert_eq!(row.state, "fails-closed", "{row:?}");
    assert_eq!(row.causes, ["no-keys"]);
    assert_eq!(failing("no-keys", "fails-closed")?, 1);
    ensure!(row.detail.join("; ").contains("no keys of issuer \"me\""), "{row:?}");
    let keys = status.token_keys.first().context("no keys are shown")?;
    ensure!(keys.keys == 0 && keys.issuer == "me" && !keys.error.is_empty(), "{keys:?}");
    ensure!(keys.retry_seconds <= 5, "{keys:?}");
    Ok(())
}
