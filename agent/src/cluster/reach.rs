//! Pages that agents and controllers serve at loopback alone, asked for from anywhere: the API server leads into their
//! pods' network. Who may do that is its own to judge. A connection is kept from one question to the next.

use std::{error::Error, fmt, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;
use undermesh_control::{ApiServer, Forwarded};

use super::{AGENTS, CONTROLLERS, Ports};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most words of a refusal that are passed on.
const MAX_WORDS: usize = 4096;

/// One of the mesh's own pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) pod: String,
    pub(crate) is_ready: bool,
    /// Ports that it says its pages are at.
    pub(crate) ports: Ports,
}

impl Place {
    fn of(pod: &Value) -> Option<Self> {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|it| it["type"] == "Ready");
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        (!["Succeeded", "Failed"].contains(&phase)).then_some(Self {
            node: pod["spec"]["nodeName"].as_str()?.to_owned(),
            pod: pod["metadata"]["name"].as_str()?.to_owned(),
            is_ready: ready.any(|it| it["status"] == "True"),
            ports: Ports::of(pod),
        })
    }
}

/// The agents, by node: of two that overlap one, since both have the node's network.
///
/// # Errors
/// Where the API server does not say which there are.
pub(crate) async fn agents(api: &ApiServer, namespace: &str) -> Result<Vec<Place>> {
    let mut found = places(api, namespace, AGENTS).await?;
    found.sort_by(|a, b| (&a.node, !a.is_ready, &a.pod).cmp(&(&b.node, !b.is_ready, &b.pod)));
    found.dedup_by(|a, b| a.node == b.node);
    Ok(found)
}

/// The controller's replicas, those first that are ready.
///
/// # Errors
/// Where the API server does not say which there are.
pub(crate) async fn controllers(api: &ApiServer, namespace: &str) -> Result<Vec<Place>> {
    let mut found = places(api, namespace, CONTROLLERS).await?;
    found.sort_by(|a, b| (!a.is_ready, &a.pod).cmp(&(!b.is_ready, &b.pod)));
    Ok(found)
}

async fn places(api: &ApiServer, namespace: &str, selector: &str) -> Result<Vec<Place>> {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let pods = api.objects(&path, selector).await;
    let pods = pods.with_context(|| format!("cannot list the mesh's pods in {namespace}"))?;
    Ok(pods.iter().filter_map(Place::of).collect())
}

/// A pod answers, but not with the page.
#[derive(Debug)]
pub(crate) struct Refused {
    page: String,
    code: u16,
    words: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}: {}", self.page, self.code, self.words)
    }
}

impl Error for Refused {}

/// The way to the pages of one pod.
pub(crate) struct Reach {
    api: ApiServer,
    namespace: String,
    pod: String,
    port: u16,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl Reach {
    pub(crate) fn new(api: &ApiServer, namespace: &str, pod: &str, port: u16) -> Self {
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Self { api: api.clone(), namespace, pod, port, kept: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A page of at most so many bytes; anything but 200 is an error with the answer's own words.
    pub(crate) async fn get(&mut self, page: &str, most: usize) -> Result<String> {
        self.ask(Method::GET, page, most).await
    }

    /// Asks for something to be done.
    pub(crate) async fn post(&mut self, page: &str) -> Result<String> {
        self.ask(Method::POST, page, MAX_WORDS).await
    }

    /// A connection to it, for somebody else to speak over.
    pub(crate) async fn connect(&self) -> Result<Forwarded> {
        Ok(self.api.forward((&self.namespace, &self.pod), self.port).await?)
    }

    async fn ask(&mut self, method: Method, page: &str, most: usize) -> Result<String> {
        let asked = timeout(PATIENCE, self.exchange(method, page, most)).await;
        asked.map_err(|_| anyhow!("no answer within {} s", PATIENCE.as_secs()))?
    }

    async fn exchange(&mut self, method: Method, page: &str, most: usize) -> Result<String> {
        let response = self.send(&method, page).await?;
        let code = response.status();
        let limit = if code.is_success() { most } else { MAX_WORDS };
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|error| anyhow!("{page} cannot be read to its end: {error}"))?;
        let text = String::from_utf8(body.to_bytes().to_vec()).context("it is no text")?;
        if !code.is_success() {
            let words = text.trim().to_owned();
            bail!(Refused { page: page.to_owned(), code: code.as_u16(), words });
        }
        Ok(text)
    }

    async fn send(&mut self, method: &Method, page: &str) -> Result<Response<Incoming>> {
        // The other end lets none be kept for longer than a minute; what only looks can be asked for again.
        if let Some(mut kept) = self.kept.take()
            && kept.ready().await.is_ok()
        {
            match kept.send_request(self.request(method, page)?).await {
                Ok(response) => {
                    self.kept = Some(kept);
                    return Ok(response);
                }
                Err(error) if *method != Method::GET => return Err(error.into()),
                Err(_) => {}
            }
        }
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await?;
        // What becomes of it, the answer tells.
        tokio::spawn(async move { drop(connection.await) });
        let response = sender.send_request(self.request(method, page)?).await;
        let response = response.with_context(|| {
            format!("pod {} does not answer at port {} of its loopback", self.pod, self.port)
        })?;
        self.kept = Some(sender);
        Ok(response)
    }

    fn request(&self, method: &Method, page: &str) -> Result<Request<Full<Bytes>>> {
        let request = Request::builder().method(method).uri(page);
        let host = format!("127.0.0.1:{}", self.port);
        Ok(request.header(HOST, host).body(Full::default())?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_known_by_its_node_and_whether_it_is_ready() {
        let pod = |node: Value, phase: &str, ready: &str| {
            Place::of(&json!({
                "metadata": {"name": "agent-x"}, "spec": {"nodeName": node},
                "status": {"phase": phase, "conditions": [
                    {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]},
            }))
        };
        let place = pod(json!("a"), "Running", "True").unwrap();
        assert_eq!(
            (place.node.as_str(), place.pod.as_str(), place.is_ready),
            ("a", "agent-x", true)
        );
        assert!(!pod(json!("a"), "Running", "False").unwrap().is_ready);
        // Not on a node yet, or no more.
        assert_eq!(pod(json!(null), "Pending", "False"), None);
        assert_eq!(pod(json!("a"), "Failed", "False"), None);
    }
}
