//! What the API server has: read by the agents' own reader and compiled by their compiler, for all nodes at once.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use undermesh_control::{ApiServer, JUDGED_KINDS, read_objects};
use undermesh_model::{Generation, NamespacedName, PodLocation};
use undermesh_snapshot::{Options, compile, lint};

use crate::{analyze::Found, dashboard::Mesh};

/// Pods that are read; those of further namespaces are left out, and it is said that they are.
const MAX_PODS: usize = 20_000;
/// The node that all pods are taken to be on, so that policies of all of them are compiled.
const NODE: &str = "?";

/// Services, workloads, policies and whom they are about; and what is wrong.
///
/// # Errors
/// In words, where the API server cannot be asked.
pub(super) async fn read(api: &ApiServer, options: &Options) -> Result<(Mesh, Vec<Found>), String> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| format!("{what} cannot be read: {error}");
    let mut objects = Vec::new();
    for kind in &JUDGED_KINDS {
        objects.extend(api.judged(kind).await.map_err(|error| failed(kind.kind, &error))?);
    }
    let context = api.context().await.map_err(|error| failed("Services and Namespaces", &error))?;
    let names = |object: &Value| object["metadata"]["name"].as_str().map(str::to_owned);
    let namespaces = context.iter().filter(|it| it["kind"] == "Namespace").filter_map(names);
    let namespaces: Vec<String> = namespaces.collect();
    objects.extend(context);
    let mut omitted = Vec::new();
    let mut pods = 0;
    for namespace in namespaces {
        if pods >= MAX_PODS {
            omitted.push(format!("pods of namespace {namespace}: there are too many"));
            continue;
        }
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let found = api.objects(&path, "").await.map_err(|error| failed("pods", &error))?;
        pods += found.len();
        objects.extend(found.iter().map(trimmed));
    }
    let options = options.clone();
    let judged = tokio::task::spawn_blocking(move || judge(&objects, options, omitted)).await;
    judged.map_err(|_| "what the API server has cannot be judged".to_owned())
}

/// What of a pod is looked at: most of it is not, and there are many.
fn trimmed(pod: &Value) -> Value {
    let some = |of: &Value, fields: &[&str]| -> Value {
        let given = fields.iter().filter(|field| !of[**field].is_null());
        given
            .map(|field| ((*field).to_owned(), of[*field].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let metadata = [
        "name",
        "namespace",
        "uid",
        "generateName",
        "labels",
        "annotations",
        "ownerReferences",
        "creationTimestamp",
        "deletionTimestamp",
    ];
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let containers: Vec<Value> = containers.map(|it| some(it, &["name", "ports"])).collect();
    let mut spec = some(&pod["spec"], &["nodeName", "serviceAccountName", "hostNetwork"]);
    spec["containers"] = containers.into();
    let status = some(&pod["status"], &["phase", "podIP", "podIPs", "conditions"]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": some(&pod["metadata"], &metadata), "spec": spec, "status": status,
    })
}

fn judge(objects: &[Value], options: Options, omitted: Vec<String>) -> (Mesh, Vec<Found>) {
    let (mut cluster, mut found) = read_objects(objects);
    found.extend(lint::findings(&cluster, &options));
    let mut nodes: HashMap<NamespacedName, String> = HashMap::new();
    for (name, pod) in &mut cluster.workloads {
        let Some(node) = &mut pod.node else { continue };
        nodes.insert(name.clone(), std::mem::replace(node, NODE.to_owned()));
        pod.location.get_or_insert_with(|| PodLocation::Netns(NODE.into()));
    }
    let options = Options { node: NODE.to_owned(), ..options };
    let snapshot = compile(&cluster, &options, Generation::default()).snapshot;
    let mut mesh = Mesh::of(&snapshot);
    mesh.move_pods(|pod| nodes.get(pod).cloned().unwrap_or_default());
    mesh.omitted.extend(omitted);
    let found = found.iter().map(Found::from);
    // Several readers may find the same.
    let once: BTreeMap<_, Found> =
        found.map(|it| ((it.code.clone(), it.object(), it.message.clone()), it)).collect();
    let mut found: Vec<Found> = once.into_values().collect();
    found.sort_by_key(|it| std::cmp::Reverse(it.severity));
    (mesh, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str) -> Value {
        json!({
            "metadata": {
                "name": name, "namespace": "shop", "labels": {"app": "cart"}, "managedFields": [{"a": 1}],
            },
            "spec": {
                "nodeName": node, "serviceAccountName": "cart",
                "containers": [{"name": "c", "env": [{"name": "PASSWORD", "value": "secret"}]}],
            },
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.1.0.{}", name.len())}]},
        })
    }

    #[test]
    fn a_policy_is_about_pods_of_all_nodes_and_these_keep_their_names() {
        let mut objects: Vec<Value> =
            [pod("one", "a"), pod("other", "b")].iter().map(trimmed).collect();
        assert!(!objects[0].to_string().contains("secret"), "{}", objects[0]);
        objects.extend([
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}},
            }),
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                "metadata": {"name": "guard", "namespace": "shop"},
                "spec": {"action": "DENY", "rules": [{"from": [{"source": {"newThing": ["a"]}}]}]},
            }),
        ]);
        let (mesh, found) = judge(&objects, Options::default(), vec!["more".to_owned()]);
        let mesh = serde_json::to_value(mesh).unwrap();
        let pods = mesh["policies"][0]["pods"].as_array().unwrap();
        let of =
            |field: &str| pods.iter().map(|it| it[field].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((of("name"), of("node")), (vec!["one", "other"], vec!["a", "b"]));
        assert_eq!(mesh["omitted"], json!(["more"]));
        assert!(found.iter().any(|it| it.code == "unknown-field"), "{found:?}");
    }
}
