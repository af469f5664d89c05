//! Traffic rules as users write them: YAML in, requests through two real agents, and what came back.

use std::{fs, net::Ipv6Addr};

use anyhow::{Context, Result};
use undermesh_tests::{Conn, PORT, Pod, PodSpec, Rig, ServiceSpec, pod::protocol::Behaviour};

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Who has answered; empty where it was an agent.
    fn pod(&self) -> &str {
        self.header("x-pod").unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| *field == name).map(|(_, value)| value).next()
    }
}

/// Pods `client` and `one` on a node, `two` on another; the service `shop` leads to `one` and `two`, of which the
/// DestinationRule makes the subsets `v1` and `v2`.
struct Shop {
    client: Pod,
    /// They serve for as long as their processes run.
    _servers: Vec<Pod>,
    rig: Rig,
}

const SUBSETS: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
    metadata: {name: shop, namespace: shop}\nspec:\n  host: shop\n  subsets:\n  \
    - {name: v1, labels: {app: one}}\n  - {name: v2, labels: {app: two}}\n";

impl Shop {
    fn open() -> Result<Self> {
        let mut rig = Rig::builder()
            .node("a", [PodSpec::new("client"), PodSpec::new("one")])
            .node("b", [PodSpec::new("two")])
            .service(ServiceSpec::new("shop", 80, PORT, &["one", "two"]))
            .build()?;
        let service = fs::read_to_string(rig.manifests.path("service-shop"))?;
        rig.manifests.write("service-shop", &service.replace("name: tcp-80", "name: http-80"))?;
        rig.manifests.write("subsets", SUBSETS)?;
        rig.start()?;
        let mut servers = Vec::new();
        for name in ["one", "two"] {
            let server = rig.pod(name)?;
            let at = (Ipv6Addr::UNSPECIFIED, PORT).into();
            server.listen_many(at, 1, Behaviour::Http(name.to_owned()))?;
            servers.push(server);
        }
        let client = rig.pod("client")?;
        Ok(Self { client, _servers: servers, rig })
    }

    /// Puts the `http` part of a VirtualService of `shop` in force.
    fn routes(&self, http: &str) -> Result<()> {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: shop, namespace: shop}}\nspec:\n  hosts: [shop]\n  http:\n{http}"
        );
        self.rig.apply("routes", &yaml)
    }

    /// Sends one request: its first line without the version, and headers.
    fn ask(&self, line: &str, headers: &[&str]) -> Result<Answer> {
        let conn = self.client.connect(self.rig.vip("shop", 80)?)?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        conn.send(format!("{line} HTTP/1.1\r\nHost: shop\r\n{headers}\r\n").as_bytes())?;
        read(&conn).with_context(|| format!("no answer to {line}"))
    }

    /// How many of `count` requests each of the pods has answered.
    fn shares(&self, count: usize) -> Result<(usize, usize)> {
        let answers: Result<Vec<_>> = (0..count).map(|_| self.ask("GET /", &[])).collect();
        let answers = answers?;
        let of = |name: &str| answers.iter().filter(|answer| answer.pod() == name).count();
        Ok((of("one"), of("two")))
    }
}

fn read(conn: &Conn<'_>) -> Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(conn.receive(1)?);
    }
    let head = String::from_utf8(head)?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let mut answer = Answer { status, head, body: String::new() };
    let length = answer.header("content-length").map_or(Ok(0), str::parse)?;
    answer.body = String::from_utf8(conn.receive(length)?)?;
    Ok(answer)
}

#[test]
fn a_header_chooses_the_subset() -> Result<()> {
    let shop = Shop::open()?;
    shop.routes(
        "  - match: [{headers: {version: {exact: v2}}}]\n    route: [{destination: {host: shop, subset: v2}}]\n  \
         - route: [{destination: {host: shop, subset: v1}}]\n",
    )?;
    for _ in 0..5 {
        assert_eq!(shop.ask("GET /", &["version: v2"])?.pod(), "two");
        assert_eq!(shop.ask("GET /", &["version: v1"])?.pod(), "one");
        assert_eq!(shop.ask("GET /", &[])?.pod(), "one");
    }
    Ok(())
}

#[test]
fn requests_are_matched_changed_answered_and_spread_as_rules_say() -> Result<()> {
    let shop = Shop::open()?;
    let v1 = "route: [{destination: {host: shop, subset: v1}}]";

    shop.routes(&format!(
        "  - match: [{{uri: {{prefix: /old}}}}]\n    rewrite: {{uri: /new, authority: other}}\n    \
         headers: {{request: {{set: {{x-set: a}}, remove: [x-gone]}}, response: {{add: {{x-added: b}}}}}}\n    {v1}\n"
    ))?;
    let answer = shop.ask("GET /old/path?q=1", &["x-gone: 1"])?;
    assert!(answer.body.starts_with("GET /new/path?q=1 "), "{}", answer.body);
    assert!(answer.body.contains("host: other\r\n") && answer.body.contains("x-set: a\r\n"));
    assert!(!answer.body.contains("x-gone"), "{}", answer.body);
    assert_eq!(answer.header("x-added"), Some("b"));
    assert_eq!(shop.ask("GET /else", &[])?.status, 404, "no rule is about it");

    shop.routes("  - redirect: {uri: /there, authority: example.com, redirectCode: 308}\n")?;
    let answer = shop.ask("GET /", &[])?;
    assert_eq!((answer.status, answer.header("location")), (308, Some("http://example.com/there")));

    shop.routes("  - directResponse: {status: 418, body: {string: teapot}}\n")?;
    let answer = shop.ask("GET /", &[])?;
    assert_eq!((answer.status, answer.body.as_str()), (418, "teapot"));

    shop.routes(&format!(
        "  - fault: {{abort: {{httpStatus: 555, percentage: {{value: 100}}}}}}\n    {v1}\n"
    ))?;
    assert_eq!(shop.ask("GET /", &[])?.status, 555);

    shop.routes(&format!("  - timeout: 100ms\n    {v1}\n"))?;
    assert_eq!(shop.ask("GET /delay/2000", &[])?.status, 504);
    assert_eq!(shop.ask("GET /delay/0", &[])?.status, 200);

    shop.routes(
        "  - route:\n    - {destination: {host: shop, subset: v1}, weight: 90}\n    \
         - {destination: {host: shop, subset: v2}, weight: 10}\n",
    )?;
    let (one, two) = shop.shares(200)?;
    assert_eq!(one + two, 200);
    assert!((4..=45).contains(&two), "{two} of 200 went to v2");

    // `one` always fails: what it answers is asked again elsewhere.
    shop.routes(
        "  - retries: {attempts: 3, retryOn: 5xx}\n    route: [{destination: {host: shop}}]\n",
    )?;
    let answer = shop.ask("GET /status/503", &[])?;
    assert_eq!(answer.status, 503);
    let attempts =
        answer.body.lines().find_map(|line| line.strip_prefix("x-envoy-attempt-count: "));
    assert_eq!(attempts, Some("4"), "{}", answer.body);
    Ok(())
}

#[test]
fn without_rules_the_service_goes_back_to_the_kernel() -> Result<()> {
    let shop = Shop::open()?;
    shop.routes("  - directResponse: {status: 204}\n")?;
    assert_eq!(shop.ask("GET /", &[])?.status, 204);
    shop.rig.manifests.remove("subsets")?;
    shop.rig.apply("routes", "apiVersion: v1\nkind: Namespace\nmetadata: {name: none}\n")?;
    let (one, two) = shop.shares(20)?;
    assert_eq!(one + two, 20);
    let answer = shop.ask("GET /", &[])?;
    assert!(!answer.body.contains("x-request-id"), "nobody looks at it: {}", answer.body);
    Ok(())
}
