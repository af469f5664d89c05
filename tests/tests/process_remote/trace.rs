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

fn trace(steps: &[&str], records: &[Value]) -> String {
    let step = |step: &&str| json!({"atUs": 1, "step": step, "detail": "-"});
    let proxy: Vec<Value> = steps.iter().map(step).collect();
    json!({"state": "ended", "carried": false, "pod": "shop/client", "netnsCookie": 7,
        "dialled": "10.96.0.1:80", "source": "10.1.0.10:4711", "kernel": [], "proxy": proxy,
        "rules": [], "probe": null, "records": records})
    .to_string()
}

/// The command's answer, where the client's agent tells of this trace.
fn far(cluster: &Cluster, records: &[Value]) -> Result<(String, Value)> {
    far_of(cluster, &[], records)
}

/// The same, with these steps of the proxy.
fn far_of(cluster: &Cluster, steps: &[&str], records: &[Value]) -> Result<(String, Value)> {
    let near = Agent::start(&[], 0)?;
    near.answers("/trace?id=1", &trace(steps, records));
    near.answers("/trace?", "1\n");
    let admin = near.address.to_string();
    let args = ["trace", "shop/client", "--all-nodes", "--admin", &admin];
    let (code, text, err) = cluster.run(&args)?;
    assert_eq!(code, Some(1), "it was refused: {text} {err}");
    let (_, json, _) = cluster.run(&[&args[..], &["-o", "json"]].concat())?;
    Ok((text, serde_json::from_str::<Value>(&json)?["far"].clone()))
}

/// The destination, on node b.
fn cart(cluster: &Cluster) -> Result<()> {
    let api = &cluster.plane.api;
    api.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))?;
    api.put(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "cart"}, "spec": {"nodeName": "b"}}))?;
    Ok(())
}

#[test]
fn the_other_ends_agent_is_asked_for_its_records_of_the_same_connection() -> Result<()> {
    let cluster = Cluster::new()?;
    let own = [record("source", "close", "10.1.0.10:4711")];

    let (_, answer) = far(&cluster, &own)?;
    assert_eq!(answer["error"], "the cluster has no pod shop/cart, or no more");

    cart(&cluster)?;
    let (_, answer) = far(&cluster, &own)?;
    assert_eq!(
        answer,
        json!({"node": "b", "records": [], "shared": false, "error": "no agent runs on node b"})
    );

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
    assert_eq!(answer, json!({"node": "b", "records": [same], "shared": false, "error": ""}));
    let line = "\n  denied: policy_denied, native to - AuthorizationPolicy shop/guard\nREFUSED";
    assert!(text.contains(line), "{text}");
    let asked = there.asked();
    assert!(asked.iter().all(|it| it == "/flows?reporter=destination&pod=shop/cart"), "{asked:?}");

    let (_, answer) = far(&cluster, &[])?;
    assert_eq!(answer["error"], "no record names a pod that it has led to");
    Ok(())
}

#[test]
fn a_request_over_a_connection_that_others_share_is_found_by_its_own_identifier() -> Result<()> {
    const OWN: &str = "10.1.0.10:4711";
    const FIRST: &str = "10.1.0.10:4700";
    let cluster = Cluster::new()?;
    cart(&cluster)?;
    let there = Agent::start(&[], 0)?;
    cluster.agent("b", &there)?;
    let of = |reporter: &str, event: &str, source: &str, id: &str| {
        let mut record = record(reporter, event, source);
        if !id.is_empty() {
            record["request_id"] = id.into();
        }
        record
    };
    let own = [of("source", "request", OWN, "mine")];

    // Of the destination's agent, which judges no requests: the address is that of an older connection.
    there.keeps(of("destination", "open", FIRST, "").to_string());
    there.keeps(of("destination", "close", OWN, "").to_string());
    let (text, answer) = far_of(&cluster, &["request", "reused"], &own)?;
    assert_eq!((&answer["records"], &answer["shared"]), (&json!([]), &json!(true)), "{text}");
    let says = "the agent of node b: the request has gone over a connection that was there before, \
                and it keeps no record of it";
    assert!(text.contains(says), "{text}");

    // One that does judge them. Another request of the same connection, and one that the application has passed on with
    // its identifier, are not this one.
    let mut passed_on = of("destination", "request", "10.1.0.20:1", "mine");
    passed_on["source"]["pod"] = "other".into();
    let mine = of("destination", "request", FIRST, "mine");
    for record in [&of("destination", "request", FIRST, "another"), &passed_on, &mine] {
        there.keeps(record.to_string());
    }
    let (text, answer) = far_of(&cluster, &["request", "reused"], &own)?;
    assert_eq!(answer["records"], json!([mine]), "{text}");
    assert!(text.contains("the agent of node b, over a connection that was there before: \n"));

    // A connection that was made for this one has its address, and requests of others later.
    let cluster = Cluster::new()?;
    cart(&cluster)?;
    let there = Agent::start(&[], 0)?;
    cluster.agent("b", &there)?;
    there.keeps(of("destination", "open", OWN, "").to_string());
    there.keeps(of("destination", "request", OWN, "another").to_string());
    let (text, answer) = far_of(&cluster, &["request", "session"], &own)?;
    let records = json!([of("destination", "open", OWN, "")]);
    let expected = json!({"node": "b", "records": records, "shared": false, "error": ""});
    assert_eq!(answer, expected, "{text}");
    Ok(())
}
