//! The other end: what the agent of the destination's node has recorded of a connection, asked for through the API server.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use undermesh_control::ApiServer;

use super::report::Trace;
use crate::cluster::{self, ADMIN_PORT, MeshArgs, Reach};

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
    /// Its flow records of the connection.
    pub(crate) records: Vec<Value>,
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
    let port = agent.ports.admin.unwrap_or(ADMIN_PORT);
    let mut reach = Reach::new(api, namespace, &agent.pod, port);
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let page = format!("/flows?reporter=destination&pod={of}/{pod}");
        let lines = reach.get(&page, MOST).await?;
        let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let same = |record: &Value| record["source"]["address"] == *trace.source;
        far.records = records.filter(same).collect();
        // A connection that was carried has been closed there, too, or each of its requests has ended.
        if far.records.iter().any(|record| record["event"] != "open") {
            return Ok(());
        }
    }
    if far.records.is_empty() {
        bail!("it keeps no record of a connection from {}", trace.source);
    }
    Ok(())
}
