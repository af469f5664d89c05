//! The mesh's own pods, as an API server knows them, with ports that lead to what runs in truth.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{ApiServer, Call, Door, Hook, Refusal};

/// Where they are.
const NAMESPACE: &str = "undermesh-system";

/// Agents and controllers of a server.
#[derive(Debug, Default)]
pub struct MeshPods {
    doors: Mutex<BTreeMap<(String, u16), Door>>,
    denied: AtomicBool,
}

impl MeshPods {
    /// None yet, at this server.
    ///
    /// # Errors
    /// Where the server does not take their namespace.
    pub fn of(api: &ApiServer) -> Result<Arc<Self>> {
        api.put(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        )?;
        let pods = Arc::new(Self::default());
        api.hook(Arc::clone(&pods) as _);
        Ok(pods)
    }

    /// Adds a ready `agent` or `controller`, and its node.
    ///
    /// # Errors
    /// Where the server does not take it.
    pub fn add(&self, api: &ApiServer, component: &str, name: &str, node: &str) -> Result<()> {
        self.with(api, component, (name, node), &json!({"name": component}))
    }

    /// The same, with this container.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn with(
        &self,
        api: &ApiServer,
        component: &str,
        (name, node): (&str, &str),
        container: &Value,
    ) -> Result<()> {
        api.put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}))?;
        let mut pod = pod(component, (name, node), "True");
        pod["spec"]["containers"] = json!([container]);
        api.put(&pod).map(drop)
    }

    /// The same, that is ready or not.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn put(
        &self,
        api: &ApiServer,
        component: &str,
        (name, node): (&str, &str),
        ready: &str,
    ) -> Result<()> {
        api.put(&pod(component, (name, node), ready)).map(drop)
    }

    /// Says where a port of a pod leads.
    pub fn open(&self, pod: &str, port: u16, door: Door) {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.insert((pod.to_owned(), port), door);
    }

    /// From now on, nobody has the right.
    pub fn deny(&self) {
        self.denied.store(true, Ordering::Relaxed);
    }
}

fn pod(component: &str, (name, node): (&str, &str), ready: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {
            "app.kubernetes.io/name": "undermesh", "app.kubernetes.io/component": component,
        }},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
    })
}

impl Hook for MeshPods {
    fn forward(&self, _: &ApiServer, call: &Call, port: u16) -> Option<Result<Door, Refusal>> {
        if call.namespace != NAMESPACE {
            return None;
        }
        if self.denied.load(Ordering::Relaxed) {
            let message =
                format!("pods {:?} is forbidden: User cannot get pods/portforward", call.name);
            return Some(Err(Refusal::new(403, "Forbidden", message)));
        }
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a pod's other ports, nothing listens at any.
        let nobody = Door::here(([127, 0, 0, 1], 1).into());
        Some(Ok(doors.get(&(call.name.clone(), port)).cloned().unwrap_or(nobody)))
    }
}
