//! Which pods there are, and where.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ApiError, ApiServer, is_name};

/// Objects of a list that come at once.
const PAGE: u32 = 500;
/// Pages of one list that are read; a node has some hundred pods at most.
const MAX_PAGES: usize = 20;

/// A pod, as far as it has to do with who may speak for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlace {
    /// Its UID.
    pub uid: String,
    /// Its node; empty while it has none.
    pub node: String,
    /// Namespace and name of its service account.
    pub account: (String, String),
    /// It has run to its end.
    pub has_ended: bool,
}

impl PodPlace {
    fn read(pod: &Value) -> Self {
        let text = |pointer: &str| {
            pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let account = match text("/spec/serviceAccountName") {
            name if name.is_empty() => "default".to_owned(),
            name => name,
        };
        Self {
            uid: text("/metadata/uid"),
            node: text("/spec/nodeName"),
            account: (text("/metadata/namespace"), account),
            has_ended: matches!(text("/status/phase").as_str(), "Succeeded" | "Failed"),
        }
    }
}

impl ApiServer {
    /// A pod, if there is one of this name.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodPlace>, ApiError> {
        if !is_name(namespace) || !is_name(name) {
            return Ok(None);
        }
        let found = self.find(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await?;
        Ok(found.as_ref().map(PodPlace::read))
    }

    /// The service accounts of a node's pods that have not ended.
    ///
    /// # Errors
    /// Where the server cannot be asked, or has more pods there than a node can have.
    pub async fn accounts_on(&self, node: &str) -> Result<BTreeSet<(String, String)>, ApiError> {
        let mut accounts = BTreeSet::new();
        if !is_name(node) {
            return Ok(accounts);
        }
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let path = format!(
                "/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&limit={PAGE}&continue={token}"
            );
            let page: Value = self.get(&path).await?;
            let pods = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let places = pods.iter().map(PodPlace::read).filter(|pod| !pod.has_ended);
            // A server that does not know the selector must not make everybody's pods this node's.
            accounts.extend(places.filter(|pod| pod.node == node).map(|pod| pod.account));
            token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                return Ok(accounts);
            }
        }
        Err(ApiError::Lost(format!("node {node} has too many pods")))
    }
}
