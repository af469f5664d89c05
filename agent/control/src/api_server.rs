//! The API server as the controller uses it: single questions and single writes, where the agent's source
//! only follows lists. Writes are checked by revision, so that of two writers one is told.
//!
//! Knows Kubernetes' objects; says what is in them in plain words.

mod forward;
mod lease;
mod objects;
mod pods;
mod secrets;
mod statuses;
mod tokens;
mod webhooks;

use std::{fmt, path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::{Client, client::Body};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::kube_client::{self, chain};

pub use forward::Forwarded;
pub use lease::{Lease, LeaseState};
pub use objects::ObjectPath;
pub use pods::PodPlace;
pub use secrets::{Keeping, KeptSecret};
pub use statuses::{ACCEPTED, CONTROLLER, JUDGED_KINDS, JudgedKind, StatusWrite};
pub use tokens::TokenOwner;

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// What a request fails with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The server has answered, and refuses.
    Refused {
        /// Its status in HTTP.
        code: u16,
        /// Its words.
        message: String,
    },
    /// It has not answered, or nothing that can be read; what was asked for may have been done.
    Lost(String),
}

impl ApiError {
    /// There is no such object.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Somebody else has written in between, or has made it before.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, .. })
    }

    fn lost(error: impl fmt::Display) -> Self {
        Self::Lost(error.to_string())
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => write!(f, "{message} ({code})"),
            Self::Lost(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ApiError {}

/// The way to an API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    server: String,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("server", &self.server).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Reads how to reach the server; does not ask it anything. Without a kubeconfig, the account of the pod
    /// that this runs in is used.
    ///
    /// # Errors
    /// Where neither says it.
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self, String> {
        let (client, server) = kube_client::connect(kubeconfig, CONNECT).await?;
        Ok(Self { client, server })
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.send(Method::GET, path, None, "").await
    }

    /// As `get`, with `None` for what is not there.
    pub(crate) async fn find<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Option<T>, ApiError> {
        match self.get(path).await {
            Err(error) if error.is_missing() => Ok(None),
            found => found.map(Some),
        }
    }

    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.write(Method::POST, path, object, "application/json").await
    }

    pub(crate) async fn update<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.write(Method::PUT, path, object, "application/json").await
    }

    async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        object: &impl Serialize,
        content_type: &'static str,
    ) -> Result<T, ApiError> {
        let body = serde_json::to_vec(object).map_err(ApiError::lost)?;
        self.send(method, path, Some(body), content_type).await
    }

    /// One request and its answer. What is in an answer gets into no error and no log.
    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        content_type: &'static str,
    ) -> Result<T, ApiError> {
        let bytes = self.exchange(method, path, body, content_type).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let (kind, line) = (error.classify(), error.line());
            ApiError::Lost(format!("the answer cannot be read: {kind:?} error at line {line}"))
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        content_type: &'static str,
    ) -> Result<Bytes, ApiError> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let body = body.map_or_else(Body::empty, Body::from);
        let request = request.body(body).map_err(ApiError::lost)?;
        let answer = async {
            let response =
                self.client.send(request).await.map_err(|error| ApiError::Lost(chain(&error)))?;
            let code = response.status();
            let bytes = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let bytes = bytes.map_err(ApiError::lost)?.to_bytes();
            if code.is_success() { Ok(bytes) } else { Err(refused(code, &bytes)) }
        };
        let timely = tokio::time::timeout(ANSWER, answer).await;
        timely.unwrap_or_else(|_| Err(ApiError::Lost(format!("no answer within {ANSWER:?}"))))
    }
}

/// What a Status says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
}

fn refused(code: StatusCode, body: &[u8]) -> ApiError {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let message = match status.message.is_empty() {
        true => format!("the API server answers {code}"),
        false => status.message.chars().filter(|c| !c.is_control()).take(1000).collect(),
    };
    ApiError::Refused { code: code.as_u16(), message }
}

/// Whether a text may stand in a path as the name of an object (RFC 1123, as Kubernetes has it). Names that
/// a token says are not taken on trust.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| is_part(byte) || b"-.".contains(&byte))
        && text.bytes().next().is_some_and(is_part)
}
