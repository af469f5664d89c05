//! Configuration from controllers, asked for by a client that shares nothing with them but Envoy's protocol.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use undermesh_tests::{
    CONTROLLER, Controller, Plane,
    apiserver::Bearer,
    certificates::{Question, Svid},
    distribution::{Asker, Resource, State, Stream},
    wait_for,
};

const SOON: Duration = Duration::from_secs(20);
/// Long enough for anything that should not happen.
const A_WHILE: Duration = Duration::from_millis(700);
const ON: [(&str, &str); 1] = [("distribute", "true")];

/// Node `a` with pods of `shop`, node `b` with pods of `bank`, their agents, and what both are configured with.
struct Mesh {
    plane: Plane,
    runtime: Runtime,
    tokens: [String; 2],
}

impl Mesh {
    fn new() -> Result<Self> {
        let plane = Plane::new()?;
        for namespace in ["shop", "bank"] {
            plane.api.put(&json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "labels": {"istio.io/dataplane-mode": "ambient"}},
            }))?;
            plane.api.put(&json!({
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                "metadata": {"name": "nobody", "namespace": namespace},
            }))?;
        }
        plane.pod("shop", "cart", "cart", "a")?;
        plane.pod("bank", "vault", "vault", "b")?;
        for number in 0..50 {
            plane.api.put(&slice(number, true))?;
        }
        let tokens = [plane.agent("a")?, plane.agent("b")?];
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build()?;
        Ok(Self { plane, runtime, tokens })
    }

    fn controller(&self, name: &str) -> Result<Controller> {
        let mut controller = self.plane.controller(name, &ON)?;
        controller.wait_ready()?;
        let gauge = "undermesh_controller_distribution_objects";
        wait_for("everything to be read", SOON, || {
            let (_, metrics) = controller.page("metricsAddress", "/metrics")?;
            let line = metrics.lines().find(|line| line.starts_with(gauge));
            Ok(line.filter(|line| !line.ends_with(" 0")).map(drop))
        })?;
        Ok(controller)
    }

    fn token(&self, node: &str) -> &str {
        &self.tokens[usize::from(node == "b")]
    }

    /// The certificate of whose a token is.
    fn svid(&self, controller: &Controller, token: &str) -> Result<Svid> {
        let roots = self.plane.roots()?;
        let question = Question::new(controller.address("grpcAddress")?, CONTROLLER, &roots, token);
        question.ask()?.map_err(|(code, why)| anyhow::anyhow!("refused with status {code}: {why}"))
    }

    fn open(
        &self,
        controller: &Controller,
        asker: impl FnOnce(&mut Asker<'_>),
        node: &str,
        has: &[Resource],
    ) -> Result<Result<Stream, (u16, String)>> {
        let (token, roots) = (self.token(node), self.plane.roots()?);
        let svid = self.svid(controller, token)?;
        let mut who = Asker {
            address: controller.address("grpcAddress")?,
            name: CONTROLLER,
            roots: &roots,
            token: Some(token),
            svid: Some(&svid),
            node,
            narrow: false,
        };
        asker(&mut who);
        self.runtime.block_on(Stream::open(&who, has))
    }

    /// An agent of a node, and all that it is to know.
    fn agent(&self, controller: &Controller, node: &str) -> Result<(Stream, State)> {
        self.returning(controller, node, &[])
    }

    fn returning(
        &self,
        controller: &Controller,
        node: &str,
        has: &[Resource],
    ) -> Result<(Stream, State)> {
        let opened = self.open(controller, |_| {}, node, has)?;
        let mut stream = opened.map_err(|(code, why)| anyhow::anyhow!("status {code}: {why}"))?;
        let state = self.state(&mut stream)?;
        stream.answer(&state, None)?;
        Ok((stream, state))
    }

    fn state(&self, stream: &mut Stream) -> Result<State> {
        let state = self.runtime.block_on(stream.state(SOON))?;
        state.map_err(|(code, why)| anyhow::anyhow!("status {code}: {why}"))
    }

    fn is_silent(&self, stream: &mut Stream) -> bool {
        self.runtime.block_on(stream.state(A_WHILE)).is_err()
    }
}

fn slice(number: u32, ready: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("slice-{number}"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": format!("service-{number}")},
        },
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [format!("10.1.0.{number}")], "conditions": {"ready": ready}}],
    })
}

#[test]
fn an_agent_gets_what_its_node_needs_and_of_a_change_what_has_changed() -> Result<()> {
    let mesh = Mesh::new()?;
    let controller = mesh.controller("one")?;
    let (mut a, whole) = mesh.agent(&controller, "a")?;
    let (mut b, other) = mesh.agent(&controller, "b")?;
    let policies = |state: &State| -> Vec<String> {
        let names = state.names().into_iter().filter(|name| name.contains("Policy"));
        names.map(str::to_owned).collect()
    };
    assert_eq!(policies(&whole), ["AuthorizationPolicy/shop/nobody"]);
    assert_eq!(policies(&other), ["AuthorizationPolicy/bank/nobody"]);
    assert!(whole.names().contains(&"Pod/bank/vault"), "{:?}", whole.names());
    assert!(whole.names().iter().all(|name| !name.starts_with("Secret/")));

    mesh.plane.api.put(&slice(7, false))?;
    for stream in [&mut a, &mut b] {
        let change = mesh.state(stream)?;
        assert_eq!(change.names(), ["EndpointSlice/shop/slice-7"]);
        ensure!(change.bytes < 600 && change.bytes * 4 < whole.bytes, "{change:?}");
        stream.answer(&change, None)?;
    }
    // One more policy is told where it restricts somebody.
    mesh.plane.api.delete("security.istio.io/v1", "AuthorizationPolicy", "bank", "nobody");
    let change = mesh.state(&mut b)?;
    assert_eq!(change.removed, ["AuthorizationPolicy/bank/nobody"]);
    assert!(mesh.is_silent(&mut a));
    // What the API server writes without changing anything that is read is told to nobody.
    let mut same = slice(8, true);
    same["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    mesh.plane.api.put(&same)?;
    assert!(mesh.is_silent(&mut a));
    let lines = controller.audit("configuration_distributed");
    let first = lines.iter().find(|line| line["node"] == "a").context("no audit line")?;
    assert_eq!((first["what"].as_str(), first["states"].as_u64()), (Some("first"), Some(1)));
    assert_eq!(first["objects"], whole.resources.len());
    assert_eq!(first["pod"], "undermesh-agent-a");
    Ok(())
}

#[test]
fn who_comes_back_gets_the_rest_whether_from_the_same_replica_or_from_another() -> Result<()> {
    let mesh = Mesh::new()?;
    let one = mesh.controller("one")?;
    let (_, whole) = mesh.agent(&one, "a")?;
    drop(one);
    mesh.plane.api.put(&slice(3, false))?;
    mesh.plane.api.delete("discovery.k8s.io/v1", "EndpointSlice", "shop", "slice-4");
    for name in ["one", "two"] {
        let controller = mesh.controller(name)?;
        let (mut stream, rest) = mesh.returning(&controller, "a", &whole.resources)?;
        assert_eq!(rest.names(), ["EndpointSlice/shop/slice-3"]);
        assert_eq!(rest.removed, ["EndpointSlice/shop/slice-4"]);
        ensure!(rest.bytes * 4 < whole.bytes, "{} of {}", rest.bytes, whole.bytes);
        assert!(mesh.is_silent(&mut stream));
    }
    Ok(())
}

#[test]
fn a_refusal_of_a_state_is_audited_and_counted() -> Result<()> {
    let mesh = Mesh::new()?;
    let controller = mesh.controller("one")?;
    let opened = mesh.open(&controller, |_| {}, "a", &[])?;
    let mut stream = opened.map_err(|(code, why)| anyhow::anyhow!("status {code}: {why}"))?;
    let state = mesh.state(&mut stream)?;
    stream.answer(&state, Some("there are more than 3 objects"))?;
    let line = wait_for("the audit line", SOON, || {
        Ok(controller.audit("configuration_distributed").pop())
    })?;
    assert_eq!((line["what"].as_str(), line["node"].as_str()), (Some("rejected"), Some("a")));
    assert_eq!(line["message"], "there are more than 3 objects");
    let (_, metrics) = controller.page("metricsAddress", "/metrics")?;
    let counted = "undermesh_controller_distribution_states_total{result=\"rejected\"} 1";
    ensure!(metrics.contains(counted), "{metrics}");
    // It is told of later changes all the same.
    mesh.plane.api.put(&slice(9, false))?;
    assert_eq!(mesh.state(&mut stream)?.names(), ["EndpointSlice/shop/slice-9"]);
    Ok(())
}

/// What it is about, the token and the certificate that are shown, the node that is said, and status and words of the refusal.
type Case<'a> = (&'a str, Option<&'a str>, Option<&'a Svid>, &'a str, u16, &'a str);

#[test]
fn nobody_gets_configuration_but_an_agent_for_its_own_node() -> Result<()> {
    let mesh = Mesh::new()?;
    let controller = mesh.controller("one")?;
    let plain = mesh.plane.api.issue(Bearer::account("shop", "cart", &["undermesh-ca"]));
    let unbound = Bearer::account("undermesh-system", "undermesh-agent", &["undermesh-ca"]);
    let unbound = mesh.plane.api.issue(unbound);
    let carts = mesh.svid(&controller, &plain)?;
    let agents = mesh.svid(&controller, mesh.token("a"))?;
    let other = mesh.token("b").to_owned();
    // Lifetimes of what is shown are those of the test.
    let cases: Vec<Case<'_>> = vec![
        ("a bad token", Some("nonsense"), Some(&agents), "a", 16, "the token is not good"),
        ("no token", None, Some(&agents), "a", 16, "both of them"),
        ("no certificate", Some(mesh.token("a")), None, "a", 16, "both of them"),
        (
            "another's certificate",
            Some(mesh.token("a")),
            Some(&carts),
            "a",
            7,
            "the certificate of",
        ),
        ("no agent", Some(&plain), Some(&carts), "a", 7, "is no node agent"),
        ("no pod", Some(&unbound), Some(&agents), "a", 7, "its node is unknown"),
        ("another node", Some(mesh.token("a")), Some(&agents), "b", 7, "is none of node b"),
        ("another node's token", Some(&other), Some(&agents), "a", 7, "is none of node a"),
    ];
    let roots = mesh.plane.roots()?;
    for (what, token, svid, node, code, part) in cases {
        let asker = Asker {
            address: controller.address("grpcAddress")?,
            name: CONTROLLER,
            roots: &roots,
            token,
            svid,
            node,
            narrow: false,
        };
        let refused = match mesh.runtime.block_on(Stream::open(&asker, &[]))? {
            Err(refused) => refused,
            Ok(mut stream) => match mesh.runtime.block_on(stream.state(SOON))? {
                Err(refused) => refused,
                Ok(state) => anyhow::bail!("{what}: {} resources", state.resources.len()),
            },
        };
        assert_eq!(refused.0, code, "{what}: {}", refused.1);
        ensure!(refused.1.contains(part), "{what}: {}", refused.1);
    }
    let audited = controller.audit("distribution_refused");
    let reasons: Vec<&str> = audited.iter().filter_map(|line| line["reason"].as_str()).collect();
    for reason in
        ["unauthenticated", "certificate_mismatch", "not_a_node_agent", "no_node", "node_mismatch"]
    {
        ensure!(reasons.contains(&reason), "{reason} is not in {reasons:?}");
    }
    Ok(())
}

#[test]
fn a_controller_that_does_not_distribute_says_so_and_one_that_cannot_read_makes_agents_wait()
-> Result<()> {
    let mesh = Mesh::new()?;
    let mut off = mesh.plane.controller("off", &[])?;
    off.wait_ready()?;
    let (code, why) = mesh.open(&off, |_| {}, "a", &[])?.err().context("a stream of nobody")?;
    assert_eq!(code, 12, "{why}");
    drop(off);
    let controller = mesh.controller("one")?;
    let (mut stream, _) = mesh.agent(&controller, "a")?;
    // The API server goes and comes; streams stay, and what has changed is told.
    mesh.plane.api.stop();
    assert!(mesh.is_silent(&mut stream));
    mesh.plane.api.resume()?;
    mesh.plane.api.put(&slice(11, false))?;
    assert_eq!(mesh.state(&mut stream)?.names(), ["EndpointSlice/shop/slice-11"]);
    // Stopped, it says that others may go on.
    controller.stop()?;
    let ended = mesh.runtime.block_on(stream.state(SOON))?;
    let (code, why) = ended.err().context("something else than the end")?;
    assert_eq!((code, why.contains("stops")), (14, true), "{why}");
    Ok(())
}

#[test]
fn secrets_that_a_rule_names_go_to_the_nodes_of_their_namespace_alone() -> Result<()> {
    let mesh = Mesh::new()?;
    for namespace in ["shop", "bank"] {
        mesh.plane.api.put(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "client", "namespace": namespace},
            "data": {"tls.crt": "YQ==", "tls.key": "YQ==", "password": "eA=="},
        }))?;
        mesh.plane.api.put(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "other", "namespace": namespace}, "data": {"tls.key": "YQ=="},
        }))?;
    }
    mesh.plane.api.put(&json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "out", "namespace": "shop"},
        "spec": {"host": "out.example", "trafficPolicy": {
            "tls": {"mode": "MUTUAL", "credentialName": "client"},
        }},
    }))?;
    let controller = mesh.controller("one")?;
    for (node, own) in [("a", "Secret/shop/client"), ("b", "Secret/bank/client")] {
        let (_, state) = mesh.agent(&controller, node)?;
        let names = state.names();
        let secrets: Vec<_> = names.iter().filter(|name| name.starts_with("Secret/")).collect();
        assert_eq!(secrets, [&own]);
    }
    Ok(())
}
