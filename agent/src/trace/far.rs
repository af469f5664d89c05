//! The other end: what the agent of the destination's node has recorded of a connection, asked for through the API server.
//!
//! It knows a connection by its client's address. Requests of several connections may share one between the agents, which
//! has the address of the first: requests are known by their identifiers alone.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use undermesh_control::ApiServer;

use super::report::Trace;
use crate::cluster::{self, MeshArgs, Reach};

/// Most that is taken of an answer, in bytes.
const MOST: usize = 16 << 20;
/// How often it is asked for records that are not there yet, and the time between.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// What the other node's agent says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Far {
    /// Empty where it is not known.
    pub(crate) node: String,
    /// Its flow records of the connection, or of the very request.
    pub(crate) records: Vec<Value>,
    /// The request went over a connection between the agents that was there before.
    #[serde(default)]
    pub(crate) shared: bool,
    /// Why there are none.
    pub(crate) error: String,
}

/// Asks for what belongs to a trace that has ended.
///
/// # Errors
/// Where no API server can be reached.
pub(super) fn ask(args: &MeshArgs, trace: &Trace) -> Result<Far> {
    cluster::run(async {
        let api = args.api().await?;
        let mut far = Far::default();
        if let Err(error) = fill(&api, args.namespace(), trace, &mut far).await {
            far.error = format!("{error:#}");
        }
        Ok(far)
    })
}

async fn fill(api: &ApiServer, namespace: &str, trace: &Trace, far: &mut Far) -> Result<()> {
    let destination = trace.records.iter().find_map(|record| {
        let end = &record["destination"];
        Some((end["namespace"].as_str()?, end["pod"].as_str()?))
    });
    let (of, pod) = destination.context("no record names a pod that it has led to")?;
    let found = api.pod(of, pod).await.with_context(|| format!("cannot ask for pod {of}/{pod}"))?;
    let found = found.with_context(|| format!("the cluster has no pod {of}/{pod}, or no more"))?;
    far.node = found.node;
    let agents = cluster::agents(api, namespace).await?;
    let agent = agents.into_iter().find(|agent| agent.node == far.node);
    let agent = agent.with_context(|| format!("no agent runs on node {}", far.node))?;
    let port = agent.ports.agent_admin();
    let mut reach = Reach::new(api, namespace, &agent.pod, port);
    let meant = Meant::of(trace);
    far.shared = meant.shared;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let page = format!("/flows?reporter=destination&pod={of}/{pod}");
        let lines = reach.get(&page, MOST).await?;
        let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        far.records = meant.among(records.collect());
        // A connection that was carried has been closed there, too, or each of its requests has ended.
        if far.records.iter().any(|record| record["event"] != "open") {
            return Ok(());
        }
    }
    if !far.records.is_empty() {
        return Ok(());
    }
    if meant.shared {
        bail!(
            "the request has gone over a connection that was there before, and it keeps no record of it: requests are \
             recorded there where a policy judges them"
        );
    }
    bail!("it keeps no record of a connection from {}", trace.source)
}

/// What tells a trace's records from others.
struct Meant<'a> {
    source: &'a str,
    pod: &'a str,
    /// Of its requests, where this end has looked at requests at all.
    requests: Option<Vec<&'a str>>,
    /// No connection between the agents was made for it.
    shared: bool,
}

impl<'a> Meant<'a> {
    fn of(trace: &'a Trace) -> Self {
        let took = |step: &str| trace.proxy.iter().any(|it| it.step == step);
        let requests = trace.records.iter().filter(|record| is_request(record));
        let ids: Vec<&str> = requests.clone().filter_map(identifier).collect();
        Self {
            source: &trace.source,
            pod: &trace.pod,
            requests: (requests.count() > 0).then_some(ids),
            shared: took("reused") && !took("session"),
        }
    }

    fn among(&self, mut records: Vec<Value>) -> Vec<Value> {
        let same = |record: &Value| record["source"]["address"] == *self.source;
        let Some(ids) = &self.requests else {
            records.retain(same);
            return records;
        };
        records.retain(|record| match is_request(record) {
            true => {
                let known = identifier(record).is_some_and(|id| ids.contains(&id));
                known && self.is_pods(&record["source"])
            }
            false => !self.shared && same(record),
        });
        records
    }

    /// Identifiers of requests are passed on by applications; who that is may not be known there.
    fn is_pods(&self, source: &Value) -> bool {
        match (source["namespace"].as_str(), source["pod"].as_str()) {
            (Some(namespace), Some(pod)) => self.pod.split_once('/') == Some((namespace, pod)),
            _ => true,
        }
    }
}

fn is_request(record: &Value) -> bool {
    record["event"] == "request"
}

fn identifier(record: &Value) -> Option<&str> {
    record["request_id"].as_str()
}
