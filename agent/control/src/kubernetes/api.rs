//! Requests to the API server: one answer, or lines for as long as they come.

use std::{fmt, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::{Client, client::Body};
use serde::Deserialize;
use serde_json::Value;

use super::{backoff::Backoff, health::Health};
use crate::kube_client::{self, chain};

/// Largest answer, in bytes: a page of a list.
const MAX_ANSWER: usize = 256 << 20;
/// Largest line of a watch, in bytes; etcd takes objects of 1.5 MB.
const MAX_LINE: usize = 16 << 20;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// What a request fails with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server has answered, and refuses.
    Refused {
        code: u16,
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It has not answered, or not to the end, or nothing that can be read.
    Lost(String),
}

impl Trouble {
    /// The revision is no longer known.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { code: 410, .. })
    }

    /// There is no such resource.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// The server does not do what it was asked for in this way.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Refused { code: 400 | 405 | 415 | 422, .. })
    }

    /// Nobody may ask that.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { code: 401 | 403, .. })
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Lost(_) => None,
        }
    }

    fn lost(error: impl fmt::Display) -> Self {
        Self::Lost(error.to_string())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message, .. } => write!(f, "{message} ({code})"),
            Self::Lost(message) => f.write_str(message),
        }
    }
}

/// What a Status says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    code: u16,
}

/// A Status as an event of a watch.
pub(crate) fn trouble_of(status: &Value) -> Trouble {
    let Status { message, code } = Status::deserialize(status).unwrap_or_default();
    Trouble::Refused { code, message, retry_after: None }
}

/// The way to an API server.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    server: String,
}

impl Api {
    /// Reads how to reach the server; does not ask it anything.
    pub(crate) async fn new(kubeconfig: Option<&Path>) -> Result<Self, String> {
        let (client, server) = kube_client::connect(kubeconfig, CONNECT).await?;
        Ok(Self { client, server })
    }

    /// The same, tried again until it works.
    pub(crate) async fn reach(
        kubeconfig: Option<&Path>,
        mut backoff: Backoff,
        health: &Health,
    ) -> Self {
        loop {
            match Self::new(kubeconfig).await {
                Ok(api) => {
                    health.reached(api.server());
                    return api;
                }
                Err(problem) => health.problem(Some(problem)),
            }
            tokio::time::sleep(backoff.next(None)).await;
        }
    }

    /// The server's address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// One answer as JSON. What is in it gets into no error and no log.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> Result<Value, Trouble> {
        let answer = async {
            let body = self.send(path, accept).await?;
            let bytes = Limited::new(body, MAX_ANSWER).collect().await.map_err(Trouble::lost)?;
            serde_json::from_slice(&bytes.to_bytes())
                .map_err(|error| Trouble::Lost(format!("the answer is no JSON: {}", place(&error))))
        };
        timely(ANSWER, answer).await
    }

    /// The lines of a watch.
    pub(crate) async fn open(&self, path: &str, accept: &str) -> Result<Lines, Trouble> {
        let body = timely(ANSWER, self.send(path, accept)).await?;
        Ok(Lines { body, buffer: BytesMut::new(), searched: 0 })
    }

    async fn send(&self, path: &str, accept: &str) -> Result<Body, Trouble> {
        let request = Request::get(path)
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .map_err(Trouble::lost)?;
        let response =
            self.client.send(request).await.map_err(|error| Trouble::Lost(chain(&error)))?;
        let code = response.status();
        if code == StatusCode::OK {
            return Ok(response.into_body());
        }
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), MAX_LINE).collect().await;
        let status: Option<Status> =
            body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
        let message = status.map(|status| status.message).filter(|message| !message.is_empty());
        Err(Trouble::Refused {
            code: code.as_u16(),
            message: message.unwrap_or_else(|| format!("the API server answers {code}")),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

/// The lines of a watch that is under way.
pub(crate) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to hold no end of a line.
    searched: usize,
}

impl Lines {
    /// The next line; `None` at the end. Half a line is none. May be dropped while it waits, and called
    /// again.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(at) = found {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(Trouble::Lost(format!("an event has more than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Trouble::Lost(chain(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Waits for an answer, but not for ever.
pub(crate) async fn timely<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Trouble::Lost(format!("nothing has come for {limit:?}"))),
    }
}

/// Where a text ceases to be JSON; what stands there may be a secret.
pub(crate) fn place(error: &serde_json::Error) -> String {
    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column())
}
