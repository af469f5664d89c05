//! Traces of requests through two real agents, and the receivers that they send spans to: one agent speaks
//! OTLP/gRPC, the other OTLP/HTTP.

use std::{collections::BTreeMap, fs, net::Ipv6Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{
    PORT, Pod, PodSpec, Received, Receiver, Rig, ServiceSpec,
    pod::{
        http::{Ask, Reply, Speaks},
        protocol::Behaviour,
    },
    wait_for,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
/// A batch waits for a second, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
const CLIENT: i32 = 3;
const SERVER: i32 = 2;

/// `client` on node a asks `server` on node b, whose policy looks at requests.
struct Traced {
    receiver: Receiver,
    client: Pod,
    rig: Rig,
    _server: Pod,
}

impl Traced {
    /// With this share of traces recorded, and perhaps nobody who takes spans.
    fn open(percent: &str, is_up: bool) -> Result<Self> {
        let mut rig = Rig::builder()
            .node("a", [PodSpec::new("client")])
            .node("b", [PodSpec::new("server")])
            .service(ServiceSpec::new("shop", 80, PORT, &["server"]))
            .build()?;
        let service = fs::read_to_string(rig.manifests.path("service-shop"))?;
        let looked_at = "  annotations:\n    undermesh.io/l7: \"true\"\nspec:\n";
        let service = service.replace("name: tcp-80", "name: http-80");
        rig.manifests.write("service-shop", &service.replacen("spec:\n", looked_at, 1))?;
        let guard = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {name: guard, namespace: shop}\n\
             spec: {selector: {matchLabels: {app: server}}, action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}\n";
        rig.manifests.write("guard", guard)?;
        let receiver = Receiver::new()?;
        for (node, protocol) in [("a", "grpc"), ("b", "http")] {
            let netns = &rig.node(node)?.netns;
            let port = if is_up { receiver.listen(netns, protocol)? } else { 1 };
            let settings = &mut rig.node_mut(node)?.settings;
            settings.set("tracingEndpoint", &format!("http://127.0.0.1:{port}"));
            settings.set("tracingProtocol", protocol);
            settings.set("tracingSampling", percent);
            settings.set("tracingTags", "[\"zone=literal:west\", \"tenant=header:x-tenant\"]");
        }
        rig.start()?;
        let server = rig.pod("server")?;
        let at = (Ipv6Addr::UNSPECIFIED, PORT).into();
        server.listen_many(at, 1, Behaviour::Http("server".to_owned()))?;
        let client = rig.pod("client")?;
        Ok(Self { receiver, client, rig, _server: server })
    }

    fn ask(&self, path: &str, speaks: Speaks, headers: &[(&str, &str)]) -> Result<Reply> {
        let headers: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let ask = Ask {
            speaks,
            to: Some(self.rig.vip("shop", 80)?),
            method: if speaks == Speaks::Grpc { "POST" } else { "GET" }.to_owned(),
            path: path.to_owned(),
            authority: "shop".to_owned(),
            headers,
            times: 1,
            ..Ask::default()
        };
        let replies = self.client.ask(ask)?;
        replies.into_iter().next().context("nothing came back")
    }

    /// Asks as often, for the replies.
    fn ask_often(&self, path: &str, times: u32) -> Result<Vec<Reply>> {
        Ok(self.client.ask(Ask {
            to: Some(self.rig.vip("shop", 80)?),
            method: "GET".to_owned(),
            path: path.to_owned(),
            authority: "shop".to_owned(),
            times,
            ..Ask::default()
        })?)
    }

    /// The spans of a trace, when there are as many.
    fn trace(&self, trace: &str, count: usize) -> Result<Vec<Received>> {
        wait_for(&format!("{count} spans of {trace}"), PATIENCE, || {
            let spans = self.receiver.spans();
            let found: Vec<_> = spans.iter().filter(|span| span.trace == trace).cloned().collect();
            ensure!(found.len() == count, "{} of the trace, of all: {spans:#?}", found.len());
            Ok(Some(found))
        })
    }

    /// How many spans an agent has sent or lost.
    fn metric(&self, node: &str, name: &str) -> Result<u64> {
        let text = self.rig.agent(node)?.metrics()?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
    }
}

/// A header of the request as the application saw it.
fn seen<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let fields = reply.body.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(field, _)| *field == name).map(|(_, value)| value).next().unwrap_or_default()
}

fn of_kind(spans: &[Received], kind: i32) -> Result<&Received> {
    spans.iter().find(|span| span.kind == kind).with_context(|| format!("no {kind} in {spans:#?}"))
}

#[test]
fn a_request_is_one_trace_from_the_caller_to_the_application() -> Result<()> {
    let traced = Traced::open("0", true)?;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [
        ("traceparent", parent.as_str()),
        ("tracestate", "a=b"),
        ("x-tenant", "blue"),
        ("x-request-id", "r-1"),
    ];
    let reply = traced.ask("/cart?user=me", Speaks::Http1, &headers)?;
    assert_eq!(reply.status, 200, "{reply:?}");
    let spans = traced.trace(TRACE, 2)?;
    let (client, server) = (of_kind(&spans, CLIENT)?, of_kind(&spans, SERVER)?);
    assert_eq!((client.over, server.over), ("grpc", "http"));
    assert_eq!(client.parent, SPAN);
    assert_eq!(server.parent, client.id, "the destination's span hangs on the source's");
    assert_eq!(seen(&reply, "traceparent"), format!("00-{TRACE}-{}-01", server.id));
    assert_eq!(seen(&reply, "tracestate"), "a=b");
    assert_eq!(client.name, "shop.shop.svc.cluster.local:80/*");
    assert_eq!(server.name, "shop.shop.svc.cluster.local:8080/*");
    assert!(!client.failed && !server.failed);
    for (span, service) in [(client, "client.shop"), (server, "server.shop")] {
        for (key, value) in [
            ("service.name", service),
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("url.path", "/cart"),
            ("url.query", "user=*"),
            ("guid:x-request-id", "r-1"),
            ("response_flags", "-"),
            ("zone", "west"),
            ("tenant", "blue"),
            ("source.principal", "spiffe://cluster.local/ns/shop/sa/client"),
            ("destination.principal", "spiffe://cluster.local/ns/shop/sa/server"),
            ("connection_security_policy", "mutual_tls"),
        ] {
            assert_eq!(span.get(key), value, "{key} of {span:#?}");
        }
    }
    assert_eq!(client.get("upstream_cluster"), "outbound|80||shop.shop.svc.cluster.local");
    Ok(())
}

#[test]
fn b3_is_answered_in_b3() -> Result<()> {
    let traced = Traced::open("0", true)?;
    let single = format!("{TRACE}-{SPAN}-1");
    let reply = traced.ask("/", Speaks::Http1, &[("b3", &single)])?;
    let spans = traced.trace(TRACE, 2)?;
    let (client, server) = (of_kind(&spans, CLIENT)?, of_kind(&spans, SERVER)?);
    assert_eq!((client.parent.as_str(), &server.parent), (SPAN, &client.id));
    assert_eq!(seen(&reply, "b3"), format!("{TRACE}-{}-1-{}", server.id, client.id));
    assert_eq!(seen(&reply, "traceparent"), "");

    let other = "463ac35c9f6413ad48485a3953bb6124";
    let several = [("x-b3-traceid", other), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")];
    let reply = traced.ask("/", Speaks::Http2, &several)?;
    let spans = traced.trace(other, 2)?;
    let server = of_kind(&spans, SERVER)?;
    assert_eq!(seen(&reply, "x-b3-traceid"), other);
    assert_eq!(seen(&reply, "x-b3-spanid"), server.id);
    assert_eq!(seen(&reply, "x-b3-parentspanid"), server.parent);
    Ok(())
}

#[test]
fn denials_failures_and_retries_are_told() -> Result<()> {
    let traced = Traced::open("0", true)?;
    let ask = |path, number: u8, speaks, plan: &str| {
        let trace = format!("{number:032x}");
        let parent = format!("00-{trace}-{SPAN}-01");
        let reply = traced.ask(path, speaks, &[("traceparent", &parent), ("x-plan", plan)])?;
        anyhow::Ok((reply, trace))
    };
    let (reply, trace) = ask("/admin", 1, Speaks::Http1, "")?;
    assert_eq!(reply.status, 403, "{reply:?}");
    let spans = traced.trace(&trace, 2)?;
    let (client, server) = (of_kind(&spans, CLIENT)?, of_kind(&spans, SERVER)?);
    assert_eq!((server.get("response_flags"), server.failed), ("UAEX", false), "{server:#?}");
    assert_eq!((client.get("error.type"), client.failed), ("403", true), "{client:#?}");

    let (_, trace) = ask("/shop.Cart/Get", 2, Speaks::Grpc, "grpc=9")?;
    let spans = traced.trace(&trace, 2)?;
    for (kind, failed) in [(CLIENT, true), (SERVER, false)] {
        let span = of_kind(&spans, kind)?;
        assert_eq!(span.get("rpc.grpc.status_code"), "9", "{span:#?}");
        assert_eq!((span.get("rpc.service"), span.get("rpc.method")), ("shop.Cart", "Get"));
        assert_eq!(span.failed, failed, "{span:#?}");
    }

    // gRPC's `unavailable` is tried twice more without any rule.
    let (_, trace) = ask("/shop.Cart/Get", 3, Speaks::Grpc, "grpc=14;grpc=14;grpc=0")?;
    let spans = traced.trace(&trace, 4)?;
    let client = of_kind(&spans, CLIENT)?;
    assert_eq!((client.events.len(), client.get("http.request.resend_count")), (2, "2"));
    assert!(client.events.iter().all(|event| event == "retry"), "{client:#?}");
    let attempts = spans.iter().filter(|span| span.kind == SERVER && span.parent == client.id);
    assert_eq!(attempts.count(), 3, "{spans:#?}");
    Ok(())
}

#[test]
fn what_is_not_recorded_sends_nothing_and_a_tenth_is_a_tenth() -> Result<()> {
    let traced = Traced::open("10", true)?;
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    let reply = traced.ask("/", Speaks::Http1, &[("traceparent", &unsampled)])?;
    assert_eq!(
        seen(&reply, "traceparent"),
        unsampled,
        "nobody's parent is a span that is not recorded"
    );

    let mut sampled = 0;
    for _ in 0..20 {
        for reply in traced.ask_often("/many", 100)? {
            ensure!(reply.status == 200, "{reply:?}");
            sampled += usize::from(seen(&reply, "traceparent").ends_with("-03"));
        }
    }
    // Six standard deviations.
    assert!((120..=280).contains(&sampled), "{sampled} of 2000");
    wait_for("all spans", PATIENCE, || {
        let spans = traced.receiver.spans();
        ensure!(spans.len() >= 2 * sampled, "{} of {sampled} traces", spans.len());
        Ok(Some(()))
    })?;
    let spans = traced.receiver.spans();
    assert_eq!(spans.len(), 2 * sampled, "what was not sampled was sent");
    assert!(spans.iter().all(|span| span.trace != TRACE && span.get("url.path") == "/many"));
    for node in ["a", "b"] {
        wait_for("what was sent to be counted", PATIENCE, || {
            let sent = traced.metric(node, "undermesh_spans_exported_total")?;
            Ok((sent == sampled as u64).then_some(()))
        })?;
        assert_eq!(traced.metric(node, "undermesh_spans_dropped_total")?, 0);
    }
    Ok(())
}

#[test]
fn without_a_receiver_requests_are_answered_and_spans_are_counted_as_lost() -> Result<()> {
    let mut traced = Traced::open("100", false)?;
    for reply in traced.ask_often("/", 20)? {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    for node in ["a", "b"] {
        let what = format!("the spans of {node} to be lost");
        // A second batch waits longer, since the first has failed.
        wait_for(&what, PATIENCE * 4, || {
            let lost =
                traced.metric(node, "undermesh_spans_dropped_total{reason=\"unavailable\"}")?;
            Ok((lost == 20).then_some(()))
        })?;
        assert_eq!(traced.metric(node, "undermesh_spans_exported_total")?, 0);
    }
    // Nor does it keep anybody from leaving.
    traced.ask("/", Speaks::Http1, &[])?;
    let ended = traced.rig.take_agent("a")?.stop()?;
    assert!(ended.success(), "{ended}");
    Ok(())
}

#[test]
fn the_last_spans_are_sent_when_the_agent_leaves() -> Result<()> {
    let mut traced = Traced::open("100", true)?;
    for _ in 0..10 {
        assert_eq!(traced.ask("/", Speaks::Http1, &[])?.status, 200);
    }
    let ended = traced.rig.take_agent("a")?.stop()?;
    assert!(ended.success(), "{ended}");
    let clients = traced.receiver.spans().iter().filter(|span| span.kind == CLIENT).count();
    assert_eq!(clients, 10);
    Ok(())
}
