//! `undermesh trace --all-nodes`: what the other end's agent has recorded.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Agent, Cluster};

/// A connection's record, as an agent has it.
fn record(reporter: &str, event: &str, source: &str) -> Value {
    json!({"time": "T", "event": event, "reporter": reporter, "reason": "policy_denied",
        "source": {"address": source, "namespace": "shop", "pod": "client"},
        "destination": {"address": "10.2.0.10:8080", "namespace": "shop", "pod": "cart"},
        "transport": "native", "detail": "AuthorizationPolicy shop/guard"})
}

fn trace(records: &[Value]) -> String {
    json!({"state": "ended", "carried": false, "pod": "shop/client", "netnsCookie": 7,
        "dialled": "10.96.0.1:80", "source": "10.1.0.10:4711", "kernel": [], "proxy": [],
        "rules": [], "probe": null, "records": records})
    .to_string()
}

/// The command's answer, where the client's agent tells of this trace.
fn far(cluster: &Cluster, records: &[Value]) -> Result<(String, Value)> {
    let near = Agent::start(&[], 0)?;
    near.answers("/trace?id=1", &trace(records));
    near.answers("/trace?", "1\n");
    let admin = near.address.to_string();
    let args = ["trace", "shop/client", "--all-nodes", "--admin", &admin];
    let (code, text, err) = cluster.run(&args)?;
    assert_eq!(code, Some(1), "it was refused: {text} {err}");
    let (_, json, _) = cluster.run(&[&args[..], &["-o", "json"]].concat())?;
    Ok((text, serde_json::from_str::<Value>(&json)?["far"].clone()))
}

#[test]
fn the_other_ends_agent_is_asked_for_its_records_of_the_same_connection() -> Result<()> {
    let cluster = Cluster::new()?;
    let own = [record("source", "close", "10.1.0.10:4711")];

    let (_, answer) = far(&cluster, &own)?;
    assert_eq!(answer["error"], "the cluster has no pod shop/cart, or no more");

    cluster.plane.api.put(&json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop"}}))?;
    cluster.plane.api.put(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "cart"}, "spec": {"nodeName": "b"}}))?;
    let (_, answer) = far(&cluster, &own)?;
    assert_eq!(answer, json!({"node": "b", "records": [], "error": "no agent runs on node b"}));

    let there = Agent::start(&[], 0)?;
    cluster.agent("b", &there)?;
    let (text, answer) = far(&cluster, &own)?;
    let none = "it keeps no record of a connection from 10.1.0.10:4711";
    assert_eq!(answer["error"], none);
    assert!(text.contains(&format!("the agent of node b: {none}\n")), "{text}");

    there.keeps(record("destination", "denied", "10.1.0.99:1").to_string());
    there.keeps(record("destination", "denied", "10.1.0.10:4711").to_string());
    let (text, answer) = far(&cluster, &own)?;
    let same = record("destination", "denied", "10.1.0.10:4711");
    assert_eq!(answer, json!({"node": "b", "records": [same], "error": ""}));
    let line = "\n  denied: policy_denied, native to - AuthorizationPolicy shop/guard\nREFUSED";
    assert!(text.contains(line), "{text}");
    let asked = there.asked();
    assert!(asked.iter().all(|it| it == "/flows?reporter=destination&pod=shop/cart"), "{asked:?}");

    let (_, answer) = far(&cluster, &[])?;
    assert_eq!(answer["error"], "no record names a pod that it has led to");
    Ok(())
}
