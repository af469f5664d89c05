//! `undermesh flows` of several nodes.

use std::sync::PoisonError;

use anyhow::Result;
use serde_json::{Value, json};
use undermesh_tests::{apiserver::Door, wait_for};

use super::{ADMIN, Agent, Cluster, SOON, running::Running};

fn pods(lines: &str) -> Vec<String> {
    let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let shown = records.map(|record| {
        let (node, pod) = (&record["node"], &record["source"]["pod"]);
        format!("{} {}", node.as_str().unwrap_or("?"), pod.as_str().unwrap_or("lost"))
    });
    shown.collect()
}

#[test]
fn flow_records_of_all_nodes_are_one_stream_by_time_and_who_does_not_answer_ends_none() -> Result<()>
{
    let cluster = Cluster::new()?;
    let a = Agent::start(&[("01.000", "one"), ("03.000", "three"), ("05.000", "five")], 0)?;
    let b = Agent::start(&[("02.000", "two"), ("04.000", "four")], 7)?;
    cluster.agent("a", &a)?;
    cluster.agent("node-b", &b)?;
    let (code, out, err) = cluster.run(&["flows", "--all-nodes", "-o", "json", "--port", "80"])?;
    assert_eq!(code, Some(0), "{err}");
    let all = ["a one", "node-b lost", "node-b two", "a three", "node-b four", "a five"];
    assert_eq!(pods(&out), all, "{out}");
    assert!(out.contains(r#"{"node":"node-b","count":7,"event":"lost"}"#), "{out}");
    assert!(err.contains("node node-b: 2 records shown; 7 lost because"), "{err}");
    assert!(!err.contains("node a:"), "nothing of it was lost: {err}");
    assert!(a.asked()[0].ends_with("&port=80"), "{:?}", a.asked());

    // Nothing listens in the pod of c, and d has none.
    cluster.pods.add(&cluster.plane.api, "agent", "agent-c", "c")?;
    cluster
        .plane
        .api
        .put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "d"}}))?;
    let (code, out, err) = cluster.run(&["flows", "--all-nodes", "--last", "2"])?;
    assert_eq!(code, Some(1), "{err}");
    let lines: Vec<Vec<&str>> =
        out.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
    assert_eq!(
        lines,
        [
            ["2026-01-02T03:04:04.000Z", "node-b", "open", "shop/four"],
            ["2026-01-02T03:04:05.000Z", "a", "open", "shop/five"]
        ]
    );
    for part in [
        "node c: pod agent-c does not answer at port 15000 of its loopback",
        "an error occurred forwarding 15000",
        "node d: no agent runs here",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (code, out, _) = cluster.run(&["flows", "--node", "node-b", "-o", "compact"])?;
    assert_eq!(code, Some(0));
    assert_eq!(
        out,
        "... 7 records of node node-b were lost: they came faster than they were read\n\
         03:04:02.000 node-b + shop/two -> 10.0.0.2:80\n\
         03:04:04.000 node-b + shop/four -> 10.0.0.2:80\n"
    );
    let (code, _, err) = cluster.run(&["flows", "--node", "nowhere"])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("node nowhere: no agent runs here"), "{err}");
    Ok(())
}

#[test]
fn a_follower_of_nodes_goes_on_from_where_it_was_over_connections_that_it_keeps() -> Result<()> {
    let cluster = Cluster::new()?;
    let (a, b) = (Agent::start(&[("01.000", "old")], 0)?, Agent::start(&[], 0)?);
    cluster.agent("a", &a)?;
    // Nothing listens there yet.
    cluster.pods.add(&cluster.plane.api, "agent", "agent-b", "b")?;
    let mut follower =
        Running::start(cluster.command(&["flows", "--all-nodes", "-f", "-o", "json"])?)?;
    follower.says("\"pod\":\"old\"")?;
    follower.complains("node b: pod agent-b does not answer")?;
    a.happens("02.000", "new");
    let line = follower.says("\"pod\":\"new\"")?;
    assert!(line.starts_with("{\"node\":\"a\","), "{line}");
    b.happens("03.000", "late");
    cluster.pods.open("agent-b", ADMIN, Door::here(b.address));
    follower.complains("node b: it answers again")?;
    follower.says("\"pod\":\"late\"")?;
    let rounds = a.asked().len();
    cluster.forwards();
    wait_for("more rounds", SOON, || Ok((a.asked().len() > rounds + 2).then_some(())))?;
    assert_eq!(cluster.forwards(), 0, "a connection for every question");
    assert_eq!(follower.interrupt()?, Some(0));
    let out = follower.out.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    assert_eq!(pods(&out), ["a old", "a new", "b late"]);
    Ok(())
}
