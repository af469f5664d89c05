//! Who has talked to whom, as an agent says it, after real traffic of every kind.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use undermesh_tests::{
    Agent, PORT, Rig,
    pod::{
        http::{Ask, PLAN},
        protocol::Behaviour,
    },
    wait_for,
};

const SOON: Duration = Duration::from_secs(20);

/// The edge from `client` to a service of the page, by protocol.
fn edge(agent: &Agent, service: &str, protocol: &str) -> Result<Option<Value>> {
    let page: Value = serde_json::from_str(&agent.admin("/edges")?)?;
    let edges = page["edges"].as_array().context("no edges")?;
    let is = |edge: &&Value| {
        edge["reporter"] == "source"
            && edge["source"]["workload"] == "client"
            && edge["destination"]["serviceName"] == service
            && edge["protocol"] == protocol
    };
    Ok(edges.iter().find(is).cloned())
}

/// Requests to the service, each answered by the word.
fn ask(rig: &Rig, service: &str, word: &str, times: u32) -> Result<()> {
    let ask = Ask {
        to: Some(rig.vip(service, 80)?),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        authority: service.to_owned(),
        headers: BTreeMap::from([(PLAN.to_owned(), word.to_owned())]),
        times,
        ..Ask::default()
    };
    let replies = rig.pod("client")?.ask(ask)?;
    assert!(replies.iter().all(|reply| reply.error.is_none()), "{replies:?}");
    Ok(())
}

#[test]
fn an_agent_says_who_has_talked_to_whom_within_the_node_and_beyond() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    let far = rig.manifests.path("service-far");
    let text = fs::read_to_string(&far)?.replace("name: tcp-80", "name: http-80");
    let looked_at = "  annotations:\n    undermesh.io/l7: \"true\"\nspec:\n";
    rig.manifests.write("service-far", &text.replacen("spec:\n", looked_at, 1))?;
    rig.start()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    let any = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let _near = near.listen(any(PORT), Behaviour::Echo)?;
    let _server = server.listen(any(PORT), Behaviour::Http("server".to_owned()))?;
    let agent = rig.agent("a")?;

    let local = client.connect(rig.vip("near", 80)?)?;
    local.exchange(b"neighbour")?;
    local.close()?;
    ask(&rig, "far", "200", 3)?;
    ask(&rig, "far", "503", 2)?;
    ask(&rig, "far", "404 wait=60", 1)?;

    let local = wait_for("the end of the local connection", SOON, || {
        let ended = |edge: &Value| edge["connections"]["closed"] == 1;
        Ok(edge(agent, "near", "tcp")?.filter(ended))
    })?;
    assert_eq!(local["bytes"], serde_json::json!({"received": 9, "sent": 9}));
    assert_eq!(local["security"], "none");
    assert_eq!(local["destination"]["principal"], "spiffe://cluster.local/ns/shop/sa/near");
    assert_eq!(local["connections"]["failed"], 0);

    let far = wait_for("the last request", SOON, || {
        Ok(edge(agent, "far", "http")?.filter(|edge| edge["requests"]["total"] == 6))
    })?;
    let requests = &far["requests"];
    assert_eq!(requests["byClass"], serde_json::json!({"2xx": 3, "4xx": 1, "5xx": 2}));
    assert_eq!((&requests["failed"], &far["security"]), (&2.into(), &"mutual_tls".into()));
    let counts: Vec<u64> = serde_json::from_value(requests["durationCounts"].clone())?;
    let page: Value = serde_json::from_str(&agent.admin("/edges")?)?;
    let bounds: Vec<f64> = serde_json::from_value(page["durationBoundsMilliseconds"].clone())?;
    let slow: u64 = counts[bounds.partition_point(|bound| *bound < 60.0)..].iter().sum();
    assert_eq!(counts.iter().sum::<u64>(), 6);
    assert!(slow >= 1, "one took 60 ms: {counts:?}");

    // The metrics say the same, and the server's agent has its own side.
    assert_eq!(agent.metric("istio_requests_total", "response_code=\"503\"")?, 2);
    let page: Value = serde_json::from_str(&rig.agent("b")?.admin("/edges")?)?;
    let edges = page["edges"].as_array().context("no edges")?;
    assert!(edges.iter().any(|edge| edge["reporter"] == "destination"), "{page}");
    assert_eq!(page["node"], "b");
    Ok(())
}
