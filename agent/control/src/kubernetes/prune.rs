//! What of an object is kept: what is read of it. The rest is most of it, on the wire and in memory.

use serde_json::{Map, Value};
use zeroize::Zeroize;

/// Metadata that nobody reads.
const METADATA: [&str; 4] = ["managedFields", "selfLink", "generateName", "resourceVersion"];
/// The copy of itself that `kubectl apply` leaves in an object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const CONTAINER: [&str; 7] = [
    "name",
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "restartPolicy",
];
/// Keys of Secrets that are read ([`crate::convert::secret`]).
const SECRET: [&str; 8] =
    ["cert", "tls.crt", "key", "tls.key", "cacert", "ca.crt", "crl", "ca.crl"];

/// Drops what is not read.
pub(super) fn prune(kind: &str, object: &mut Value) {
    let Some(object) = object.as_object_mut() else { return };
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        METADATA.iter().for_each(|field| drop(metadata.remove(*field)));
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
    }
    match kind {
        "Pod" => pod(object),
        "Node" => {
            object.remove("spec");
            keep(object.get_mut("status"), &["addresses"]);
        }
        "ConfigMap" => {
            object.remove("binaryData");
            keep(object.get_mut("data"), &["ca.crt"]);
        }
        "Secret" => secret(object),
        "Namespace" | "ServiceAccount" => object.retain(|field, _| field == "metadata"),
        // What it does is in its spec.
        "Service" | "EndpointSlice" | "RuntimeClass" => {}
        _ => drop(object.remove("status")),
    }
}

fn pod(object: &mut Map<String, Value>) {
    let spec = object.get_mut("spec");
    let fields = [
        "nodeName",
        "serviceAccountName",
        "hostNetwork",
        "runtimeClassName",
        "containers",
        "initContainers",
    ];
    if let Some(spec) = keep(spec, &fields) {
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
            {
                keep(Some(container), &CONTAINER);
            }
        }
    }
    let status = keep(object.get_mut("status"), &["phase", "podIP", "podIPs", "conditions"]);
    let conditions = status.and_then(|status| status.get_mut("conditions"));
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] == "Ready");
        for condition in conditions {
            // The rest changes with every look of the kubelet.
            keep(Some(condition), &["type", "status"]);
        }
    }
}

/// What is not needed of secrets is wiped.
fn secret(object: &mut Map<String, Value>) {
    for field in ["data", "stringData"] {
        let Some(data) = object.get_mut(field).and_then(Value::as_object_mut) else { continue };
        for (_, value) in data.iter_mut().filter(|(key, _)| !SECRET.contains(&key.as_str())) {
            if let Value::String(text) = value {
                text.zeroize();
            }
        }
        data.retain(|key, _| SECRET.contains(&key.as_str()));
    }
}

fn keep<'a>(value: Option<&'a mut Value>, fields: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let map = value?.as_object_mut()?;
    map.retain(|field, _| fields.contains(&field.as_str()));
    Some(map)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_read_stays_and_the_rest_goes() {
        let mut pod = json!({
            "metadata": {
                "name": "a", "managedFields": [{}], "labels": {"x": "y"},
                "annotations": {"undermesh.io/wire": "hbone", LAST_APPLIED: "{}"},
            },
            "spec": {
                "nodeName": "n", "volumes": [{}],
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}],
            },
            "status": {
                "podIP": "10.0.0.1", "hostIP": "10.9.9.9",
                "conditions": [
                    {"type": "Ready", "status": "True", "lastProbeTime": null},
                    {"type": "Initialized", "status": "True"},
                ],
            },
        });
        prune("Pod", &mut pod);
        let expected = json!({
            "metadata": {
                "name": "a", "labels": {"x": "y"}, "annotations": {"undermesh.io/wire": "hbone"},
            },
            "spec": {
                "nodeName": "n", "containers": [{"name": "c", "ports": [{"containerPort": 1}]}],
            },
            "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert_eq!(pod, expected);
    }

    #[test]
    fn of_secrets_only_certificates_and_keys_are_kept() {
        let mut secret = json!({"metadata": {}, "data": {"tls.key": "a2V5", "password": "x"}});
        prune("Secret", &mut secret);
        assert_eq!(secret, json!({"metadata": {}, "data": {"tls.key": "a2V5"}}));
    }
}
