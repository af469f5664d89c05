//! What the agents of all nodes say of themselves: their metrics, which the API server fetches, so that no node has to
//! be reached and no program has to be run on one.

mod metrics;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;
use undermesh_control::{ApiError, ApiServer};

use super::{ClusterArgs, Ports};
use crate::status::{duration, section};
pub(crate) use metrics::Metrics;

/// Agents that are asked at once.
const AT_ONCE: usize = 16;
/// Labels of their pods.
pub(crate) const AGENTS: &str =
    "app.kubernetes.io/name=undermesh,app.kubernetes.io/component=agent";

/// A node, and what its agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    node: String,
    /// The agent's; absent where there is none.
    pod: Option<String>,
    /// Absent where it says nothing.
    version: Option<String>,
    ready: bool,
    /// Pods by what they are: `enrolled`, `pending`, `waiting`, `impossible`.
    pods: BTreeMap<String, u64>,
    certificates: u64,
    /// Of the first that will; absent where there is none.
    certificates_expire_in_seconds: Option<i64>,
    connections: u64,
    /// Why not everything is as it should be.
    problems: Vec<String>,
}

impl Node {
    pub(crate) fn name(&self) -> &str {
        &self.node
    }

    /// There is an agent, it is ready, and it answers.
    pub(super) fn is_good(&self) -> bool {
        self.ready && self.version.is_some()
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(super) fn enrolled(&self) -> u64 {
        self.pods.get("enrolled").copied().unwrap_or_default()
    }
}

/// Asks about each of them, some at once; answers come in any order.
pub(crate) async fn each<T, F>(items: Vec<T>, ask: impl Fn(T) -> F) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut found = Vec::new();
    each_as_it_comes(items, AT_ONCE, ask, |answer| found.push(answer)).await;
    found
}

/// The same, so many at once, with each answer taken as it comes.
pub(crate) async fn each_as_it_comes<T, F>(
    items: Vec<T>,
    at_once: usize,
    ask: impl Fn(T) -> F,
    mut take: impl FnMut(F::Output),
) where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut pending = items.into_iter();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < at_once
            && let Some(item) = pending.next()
        {
            asking.spawn(ask(item));
        }
        match asking.join_next().await {
            None => return,
            Some(Ok(answer)) => take(answer),
            // It has panicked, and said so.
            Some(Err(_)) => {}
        }
    }
}

/// Names of the nodes on which there should be an agent.
///
/// # Errors
/// Where the API server does not say it.
pub(crate) async fn names(api: &ApiServer) -> Result<Vec<String>, ApiError> {
    let nodes = api.objects("/api/v1/nodes", "").await?;
    let ours = nodes.iter().filter(|it| it["status"]["nodeInfo"]["operatingSystem"] != "windows");
    Ok(ours.filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

/// Asks all of them; one that cannot be asked hides no other.
///
/// # Errors
/// Where the API server does not say which there are.
pub(super) async fn ask(api: &ApiServer, args: &ClusterArgs) -> Result<Vec<Node>, ApiError> {
    let path = format!("/api/v1/namespaces/{}/pods", args.namespace);
    let pods = api.objects(&path, AGENTS).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = each(pods, |pod| {
        let (api, namespace) = (api.clone(), args.namespace.clone());
        async move {
            let name = text(&pod["metadata"]["name"]);
            let port = Ports::of(&pod).agent_metrics();
            let said = api.pod_page((&namespace, &name), port, "metrics").await;
            Node::of(&pod, name, said)
        }
    })
    .await;
    for name in names(api).await? {
        if !found.iter().any(|it| it.node == name) {
            let problems = vec!["no agent runs here".to_owned()];
            found.push(Node { node: name, problems, ..Node::default() });
        }
    }
    found.sort_by(|a, b| (&a.node, &a.pod).cmp(&(&b.node, &b.pod)));
    Ok(found)
}

impl Node {
    /// By the agent's pod and its page of metrics.
    pub(crate) fn of<E: fmt::Display>(pod: &Value, name: String, said: Result<String, E>) -> Self {
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let mut node = Self {
            node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
            pod: Some(name),
            ready: conditions.any(|it| it["type"] == "Ready" && it["status"] == "True"),
            ..Self::default()
        };
        if !node.ready {
            node.problems.push("it is not ready".to_owned());
        }
        match said {
            Err(error) => node.problems.push(format!("it does not answer: {error}")),
            Ok(text) => node.read(&Metrics::read(&text)),
        }
        node
    }

    fn read(&mut self, metrics: &Metrics) {
        let Some(version) = metrics.label("undermesh_build_info", "version") else {
            self.problems.push("what answers is no agent".to_owned());
            return;
        };
        self.version = Some(version.to_owned());
        for (state, count) in metrics.by_label("undermesh_pods", "state") {
            if count > 0.0 {
                self.pods.insert(state.to_owned(), count as u64);
            }
        }
        let times = metrics.by_label("undermesh_certificate_expires_in_seconds", "identity");
        self.certificates = times.len() as u64;
        self.certificates_expire_in_seconds = times.iter().map(|(_, left)| *left as i64).min();
        self.connections = metrics.sum("undermesh_proxy_connections") as u64;
        let mut say = |bad: bool, problem: String| {
            if bad {
                self.problems.push(problem);
            }
        };
        let state = |name: &str| self.pods.get(name).copied().unwrap_or_default();
        let (pending, impossible) = (state("pending"), state("impossible"));
        say(pending > 0, format!("{pending} pods cannot be enrolled yet"));
        say(impossible > 0, format!("{impossible} pods cannot be enrolled"));
        say(
            metrics.sum("undermesh_configuration_rejected") > 0.0,
            "a newer configuration is rejected".to_owned(),
        );
        let complete = metrics.by_label("undermesh_kubernetes_complete", "");
        say(
            complete.iter().any(|(_, it)| *it < 1.0),
            "not everything has been read from the API server".to_owned(),
        );
        let failing = metrics.by_label("undermesh_kubernetes_failing_lists", "list");
        for (list, _) in failing.iter().filter(|(_, count)| *count > 0.0) {
            say(true, format!("{list} cannot be kept up to date"));
        }
        let overdue = metrics.sum("undermesh_certificates_overdue") as u64;
        say(overdue > 0, format!("{overdue} certificates cannot be renewed"));
        let policies = metrics.by_label("undermesh_policy_failing", "policy").len();
        say(policies > 0, format!("{policies} policies do not do what is written"));
        let step = metrics.sum("undermesh_overload_step");
        say(step > 0.0, format!("overload, step {step}"));
    }
}

/// For people.
pub(super) struct Table<'a>(pub(super) &'a [Node]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "there are no nodes");
        }
        let head = [
            "NODE",
            "AGENT",
            "VERSION",
            "READY",
            "PODS",
            "NOT IN",
            "CERTIFICATES",
            "EXPIRE IN",
            "CONNECTIONS",
        ];
        section(f, "Nodes", &head, self.0.iter().map(Node::row))?;
        let problems = self.0.iter().flat_map(|node| {
            node.problems.iter().map(|problem| vec![node.node.clone(), problem.clone()])
        });
        section(f, "Warnings", &["NODE", "WHAT"], problems)
    }
}

impl Node {
    fn row(&self) -> Vec<String> {
        let or = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
        let enrolled = self.enrolled();
        let out: u64 = self.pods.values().sum::<u64>() - enrolled;
        let expire = self.certificates_expire_in_seconds.map(duration);
        vec![
            self.node.clone(),
            or(self.pod.as_ref()),
            or(self.version.as_ref()),
            if self.ready { "yes" } else { "NO" }.to_owned(),
            enrolled.to_string(),
            out.to_string(),
            self.certificates.to_string(),
            or(expire.as_ref()),
            self.connections.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str) -> Value {
        json!({
            "spec": {"nodeName": "a"},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    #[test]
    fn an_agent_is_known_by_its_metrics() {
        let text = "# TYPE undermesh_build info\n\
            undermesh_build_info{version=\"1.2.3\"} 1\n\
            undermesh_pods{state=\"enrolled\"} 7\nundermesh_pods{state=\"pending\"} 2\n\
            undermesh_pods{state=\"waiting\"} 0\n\
            undermesh_certificate_expires_in_seconds{identity=\"spiffe://a\"} 3600\n\
            undermesh_certificate_expires_in_seconds{identity=\"spiffe://b\"} 60\n\
            undermesh_proxy_connections{direction=\"inbound\"} 3\n\
            undermesh_proxy_connections{direction=\"outbound\"} 4\n\
            undermesh_configuration_rejected 1\nundermesh_kubernetes_complete 1\n\
            undermesh_kubernetes_failing_lists{list=\"pods\"} 1\n# EOF\n";
        let node = Node::of(&pod("True"), "agent-a".to_owned(), Ok::<_, ApiError>(text.to_owned()));
        assert!(node.is_good());
        assert_eq!(node.version.as_deref(), Some("1.2.3"));
        assert_eq!((node.enrolled(), node.pods.get("pending"), node.connections), (7, Some(&2), 7));
        assert_eq!((node.certificates, node.certificates_expire_in_seconds), (2, Some(60)));
        assert_eq!(
            node.problems,
            [
                "2 pods cannot be enrolled yet",
                "a newer configuration is rejected",
                "pods cannot be kept up to date",
            ]
        );
        let table = Table(&[node]).to_string();
        assert!(table.contains("a     agent-a  1.2.3    yes    7"), "{table}");
        assert!(table.contains("a     a newer configuration is rejected"), "{table}");
    }

    #[test]
    fn who_does_not_answer_or_is_not_ready_is_shown() {
        let lost: Result<String, _> = Err(ApiError::Lost("no answer".to_owned()));
        let node = Node::of(&pod("True"), "agent-a".to_owned(), lost);
        assert!(!node.is_good());
        assert_eq!(node.problems, ["it does not answer: no answer"]);
        let node =
            Node::of(&pod("False"), "agent-a".to_owned(), Ok::<_, ApiError>("up 1\n".to_owned()));
        assert_eq!(node.problems, ["it is not ready", "what answers is no agent"]);
    }
}
