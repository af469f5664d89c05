//! Agents of all nodes, and what they say at their metrics port. One that says nothing hides no other.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::Value;
use undermesh_control::ApiServer;
use undermesh_telemetry::Edges;

use super::{super::settings::Settings, ask};
use crate::cluster::{AGENTS, Metrics, Node, Ports, each};

/// How long it is remembered which there are.
const KNOWN: Duration = Duration::from_secs(15);

pub(super) struct Agents {
    api: ApiServer,
    path: String,
    known: Mutex<Option<(Instant, Vec<Value>)>>,
}

/// What they say of themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) nodes: Vec<Node>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) policies: Vec<Failing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Certificate {
    id: String,
    node: String,
    expires_in_seconds: i64,
}

/// A policy that does not do what is written, at some node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failing {
    kind: String,
    namespace: String,
    name: String,
    state: String,
    detail: Vec<String>,
}

impl Agents {
    pub(super) fn new(api: ApiServer, settings: &Settings) -> Self {
        let path = format!("/api/v1/namespaces/{}/pods", settings.namespace);
        Self { api, path, known: Mutex::default() }
    }

    /// Their pods.
    async fn pods(&self) -> Result<Vec<Value>, String> {
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some((_, pods)) = known.filter(|(when, _)| when.elapsed() < KNOWN) {
            return Ok(pods);
        }
        let found = self.api.objects(&self.path, AGENTS).await;
        let pods = found.map_err(|error| format!("agents are not known: {error}"))?;
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *known = Some((Instant::now(), pods.clone()));
        Ok(pods)
    }

    /// Counters by agent; none of one that does not answer.
    pub(super) async fn edges(&self) -> Result<Vec<(String, Option<Edges>)>, String> {
        let mut found = Vec::new();
        for (pod, said) in pages(self.pods().await?, "/edges").await {
            let read = said.and_then(|text| {
                serde_json::from_str::<Edges>(&text).map_err(|error| error.to_string())
            });
            let agent = text(&pod["metadata"]["uid"]);
            if let Err(error) = &read {
                tracing::debug!(agent, error, "no counters");
            }
            found.push((agent, read.ok()));
        }
        Ok(found)
    }

    /// Everything else.
    pub(super) async fn say(&self) -> Said {
        let mut said = Said::default();
        let mut failing: BTreeMap<[String; 4], Vec<String>> = BTreeMap::new();
        // Why not, the counters' round tells.
        let Ok(pods) = self.pods().await else { return said };
        for (pod, answer) in pages(pods, "/metrics").await {
            let name = text(&pod["metadata"]["name"]);
            let node = text(&pod["spec"]["nodeName"]);
            if let Ok(page) = &answer {
                let metrics = Metrics::read(page);
                let left = metrics.by_label("undermesh_certificate_expires_in_seconds", "identity");
                said.certificates.extend(left.into_iter().map(|(id, seconds)| Certificate {
                    id: id.to_owned(),
                    node: node.clone(),
                    expires_in_seconds: seconds as i64,
                }));
                let labels = ["kind", "policy_namespace", "policy", "state", "cause"];
                for [kind, namespace, name, state, cause] in
                    metrics.labels("undermesh_policy_failing", labels)
                {
                    let key = [kind, namespace, name, state].map(str::to_owned);
                    failing.entry(key).or_default().push(format!("{cause} on node {node}"));
                }
            }
            said.nodes.push(Node::of(&pod, name, answer));
        }
        said.nodes.sort_by(|a, b| a.name().cmp(b.name()));
        said.policies = failing
            .into_iter()
            .map(|([kind, namespace, name, state], detail)| Failing {
                kind,
                namespace,
                name,
                state,
                detail,
            })
            .collect();
        said
    }
}

/// Asks all of them for a page.
async fn pages(pods: Vec<Value>, path: &'static str) -> Vec<(Value, Result<String, String>)> {
    let ask = |pod: Value| async move {
        let said = match address(&pod) {
            Some(address) => ask::page(address, path).await,
            None => Err("it has no address".to_owned()),
        };
        (pod, said)
    };
    each(pods, ask).await
}

fn address(pod: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = pod["status"]["podIP"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(ip, Ports::of(pod).agent_metrics()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
