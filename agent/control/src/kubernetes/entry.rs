//! One object: what it says, and what of it is in force.
//!
//! What describes the cluster as it is (pods, services, their endpoints) is read as far as it can be: what
//! does not make sense in it is left out. What says how things should be (policies, routes) is taken whole
//! or not at all; with a mistake in it, its last good version stays in force, and a policy that never had
//! one is read at its strictest.

use std::sync::Arc;

use serde_json::Value;
use undermesh_model::{Diagnostic, ResourceRef, Severity};

use super::closed;
use crate::{kinds::Kind, manifests, node::Node, objects::Objects, report::Report};

/// Kinds that are read as far as they can be.
const DESCRIPTIVE: [&str; 9] = [
    "Namespace",
    "Node",
    "ServiceAccount",
    "Pod",
    "Service",
    "EndpointSlice",
    "ConfigMap",
    "Secret",
    "RuntimeClass",
];
/// Names become parts of identities: what has a wrong one is not read at all.
const WRONG_NAME: &str = "invalid-name";

/// An object of the API server.
#[derive(Clone)]
pub(crate) struct Entry {
    /// As it came.
    pub(crate) raw: Arc<[u8]>,
    /// What is in force, where that is another version.
    pub(crate) good: Option<Arc<[u8]>>,
    /// What is in force.
    pub(crate) objects: Arc<Objects>,
    /// What there is to say about it.
    pub(crate) findings: Arc<[Diagnostic]>,
    pub(crate) facts: Facts,
}

/// What is known of an object apart from its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// RFC 3339, which sorts as it reads.
    pub(crate) created: String,
    pub(crate) uid: String,
}

/// An object as its kind reads it.
struct Reading {
    objects: Objects,
    findings: Vec<Diagnostic>,
}

impl Reading {
    fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

impl Entry {
    /// Reads an object that takes the place of `former`.
    pub(crate) fn new(kind: &'static Kind, object: &Value, former: Option<&Self>) -> Self {
        let raw: Arc<[u8]> = object.to_string().into_bytes().into();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let facts =
            Facts { created: text(&metadata["creationTimestamp"]), uid: text(&metadata["uid"]) };
        let mut reading = read(object);
        let mut good = None;
        if !reading.is_good() {
            let usable = DESCRIPTIVE.contains(&kind.description.kind)
                && !reading.findings.iter().any(|finding| finding.code == WRONG_NAME);
            let last = former.filter(|former| former.is_good() && former.facts.uid == facts.uid);
            let stands = if usable {
                "it is read as far as it can be"
            } else if let Some(last) = last {
                reading.objects = Objects::clone(&last.objects);
                good = Some(Arc::clone(last.good.as_ref().unwrap_or(&last.raw)));
                "its last good version stays in force"
            } else if let Some(strict) = closed::strictest(kind.description.kind, object) {
                reading.objects = read(&strict).objects;
                "no version of it could be read, so the strictest reading is in force"
            } else {
                reading.objects = Objects::default();
                "no version of it could be read, so it is not in force"
            };
            reading.findings.push(in_force(kind, object, stands));
        }
        Self {
            raw,
            good,
            objects: Arc::new(reading.objects),
            findings: reading.findings.into(),
            facts,
        }
    }

    /// Whether a good version is in force.
    fn is_good(&self) -> bool {
        self.good.is_some() || self.findings.iter().all(|it| it.severity != Severity::Error)
    }

    /// Without the object, as far as that can be done without letting anybody in: for objects that are good
    /// alone and not beside others.
    pub(crate) fn without(&self, kind: &'static Kind) -> Arc<Objects> {
        let object: Value = serde_json::from_slice(&self.raw).unwrap_or_default();
        let strict = closed::strictest(kind.description.kind, &object);
        Arc::new(strict.map(|strict| read(&strict).objects).unwrap_or_default())
    }
}

fn read(object: &Value) -> Reading {
    let (mut objects, mut report) = (Objects::default(), Report::default());
    manifests::read_object(&Node::from(object), &mut objects, &mut report);
    Reading { objects, findings: report.into_diagnostics() }
}

fn in_force(kind: &Kind, object: &Value, stands: &str) -> Diagnostic {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let name = kind.description.kind;
    let origin = if kind.description.namespaced {
        ResourceRef::namespaced(name, text("namespace"), text("name"))
    } else {
        ResourceRef::cluster_scoped(name, text("name"))
    };
    Diagnostic {
        severity: Severity::Error,
        code: "object-with-mistakes",
        object: Some(origin),
        position: None,
        message: format!("has mistakes; {stands}"),
        remedy: "correct what is said of it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(name: &str) -> &'static Kind {
        Kind::find(name).unwrap()
    }

    fn peers(mode: &str) -> Value {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "p", "namespace": "shop", "uid": "1"},
            "spec": {"selector": {"matchLabels": {"app": "cart"}}, "mtls": {"mode": mode}},
        })
    }

    fn mode(entry: &Entry) -> String {
        format!("{:?}", entry.objects.peer_authentications[0].value.mode)
    }

    fn last_word(entry: &Entry) -> &str {
        &entry.findings.last().unwrap().message
    }

    #[test]
    fn a_policy_with_a_mistake_keeps_its_last_good_version() {
        let kind = kind("PeerAuthentication");
        let good = Entry::new(kind, &peers("DISABLE"), None);
        assert_eq!((mode(&good), good.findings.len()), ("Some(Disable)".into(), 0));
        let bad = Entry::new(kind, &peers("NONSENSE"), Some(&good));
        assert_eq!(mode(&bad), "Some(Disable)");
        assert!(last_word(&bad).ends_with("its last good version stays in force"));
        let still_bad = Entry::new(kind, &peers("NONSENSE2"), Some(&bad));
        assert_eq!(mode(&still_bad), "Some(Disable)");
        assert_eq!(still_bad.good, bad.good);
        let better = Entry::new(kind, &peers("STRICT"), Some(&still_bad));
        assert_eq!((mode(&better), better.good), ("Some(Strict)".into(), None));
    }

    #[test]
    fn a_policy_that_was_never_good_is_read_at_its_strictest() {
        let kind = kind("PeerAuthentication");
        let bad = Entry::new(kind, &peers("NONSENSE"), None);
        assert_eq!(mode(&bad), "Some(Strict)");
        assert_eq!(bad.objects.peer_authentications[0].value.selector.len(), 1);
        // Another object of the same name is another object.
        let mut other = peers("NONSENSE");
        other["metadata"]["uid"] = json!("2");
        let good = Entry::new(kind, &peers("DISABLE"), None);
        assert_eq!(mode(&Entry::new(kind, &other, Some(&good))), "Some(Strict)");
    }

    #[test]
    fn pods_are_read_as_far_as_they_can_be() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "shop", "annotations": {"undermesh.io/wire": "pigeon"},
                "labels": {"istio.io/dataplane-mode": "ambient"},
            },
            "spec": {"nodeName": "n"}, "status": {"podIP": "10.0.0.1"},
        });
        let entry = Entry::new(kind("Pod"), &pod, None);
        assert_eq!(entry.objects.pods[0].value.workload.addresses.len(), 1);
        assert!(last_word(&entry).ends_with("it is read as far as it can be"));
        let mut thief = pod;
        thief["spec"]["serviceAccountName"] = json!("../../ns/bank/sa/boss");
        assert_eq!(Entry::new(kind("Pod"), &thief, None).objects.pods.len(), 0);
    }

    #[test]
    fn a_route_that_was_never_good_is_not_in_force() {
        let route = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "v", "namespace": "shop"}, "spec": {"hosts": 7},
        });
        let entry = Entry::new(kind("VirtualService"), &route, None);
        assert_eq!(entry.objects.virtual_services.len(), 0);
        assert!(last_word(&entry).ends_with("so it is not in force"));
    }
}
