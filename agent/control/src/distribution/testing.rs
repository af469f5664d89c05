//! A hub without an API server, and notes of what it has distributed.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::hub::{Delivery, Hub, Observer, Peer};

/// What an observer was told.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) delivered: Mutex<Vec<(String, Delivery)>>,
    pub(super) streams: Mutex<usize>,
}

impl Observer for Notes {
    fn delivered(&self, peer: &Peer, delivery: &Delivery) {
        self.delivered.lock().unwrap().push((peer.node.clone(), delivery.clone()));
    }

    fn streams(&self, count: usize) {
        *self.streams.lock().unwrap() = count;
    }

    fn catalogue(&self, _: usize) {}
}

/// A hub with the agents of two nodes, a pod in the mesh on each, and services.
pub(super) fn hub() -> (Hub, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let hub = Hub::new(Arc::clone(&notes) as _);
    hub.change(|catalogue| {
        for name in ["shop", "bank", "mesh"] {
            catalogue.put("Namespace", &object("Namespace", "", name, json!({})));
        }
        for node in ["a", "b"] {
            let agent = format!("agent-{node}");
            let mut agent = object("Pod", "mesh", &agent, json!({"nodeName": node}));
            agent["metadata"]["labels"] = json!({});
            catalogue.put("Pod", &agent);
        }
        catalogue.put("Pod", &object("Pod", "shop", "cart", json!({"nodeName": "a"})));
        catalogue.put("Pod", &object("Pod", "bank", "vault", json!({"nodeName": "b"})));
        for number in 0..20 {
            catalogue.put("Service", &service(number, 80));
        }
        for namespace in ["shop", "bank"] {
            let policy = object("AuthorizationPolicy", namespace, "nobody", json!({}));
            catalogue.put("AuthorizationPolicy", &policy);
        }
    });
    (hub, notes)
}

pub(super) fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let api_version = match kind {
        "AuthorizationPolicy" => "security.istio.io/v1",
        _ => "v1",
    };
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "labels": {"istio.io/dataplane-mode": "ambient"},
        },
        "spec": spec,
    })
}

pub(super) fn service(number: u32, port: u16) -> Value {
    let spec = json!({
        "clusterIP": format!("10.96.0.{number}"), "ports": [{"name": "http", "port": port}],
    });
    object("Service", "shop", &format!("service-{number}"), spec)
}

pub(super) fn peer(node: &str) -> Peer {
    Peer {
        node: node.to_owned(),
        namespace: "mesh".to_owned(),
        pod: format!("agent-{node}"),
        uid: format!("uid-agent-{node}"),
        address: [127, 0, 0, 1].into(),
        until: Instant::now() + Duration::from_secs(600),
    }
}
