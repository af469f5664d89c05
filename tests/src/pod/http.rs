//! What a test asks a pod to ask, and what was answered.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// Pairs of a header's name, in lower case, and its value, in the order of the message.
pub type Headers = Vec<(String, String)>;

/// The request header that tells a server of [`super::protocol::Behaviour::Http`] what to do. Answers to
/// successive attempts are separated by `;`, the last one is for all that follow. Each is a list of words:
///
/// | word | |
/// |---|---|
/// | `503` | the status |
/// | `wait=200` | milliseconds before the answer |
/// | `name=value` | a header of the answer |
/// | `grpc=14` | a status of gRPC in the head of the answer, without a body |
/// | `trailer=14` | a status of gRPC after the body |
/// | `reset` | the connection is reset instead |
/// | `refuse` | the stream is refused (HTTP/2) |
/// | `hold` | the answer waits until [`super::Pod::release`] |
/// | `one:503` | any of these, for the server of this name alone |
pub const PLAN: &str = "x-plan";
/// The request header whose value finds a request again among those that a server has heard.
pub const MARK: &str = "x-case";
/// The header of an answer that names the server's connection; no two of a server have the same.
pub const CONNECTION: &str = "x-connection";
/// The header of an answer that says how many requests its connection has had, this one included.
pub const NTH: &str = "x-nth";

/// What a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Speaks {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// A unary call of gRPC.
    Grpc,
    /// HTTP/1.1 that asks for a WebSocket, and sends the body through it.
    WebSocket,
    /// Sends the body, and reads until a line ends.
    Tcp,
}

/// A request, made on a connection of its own. `$n` in its path and its headers stands for how many were made
/// before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// How.
    pub speaks: Speaks,
    /// Whom.
    pub to: Option<SocketAddr>,
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `Host` or `:authority`.
    pub authority: String,
    /// More headers.
    pub headers: BTreeMap<String, String>,
    /// Content.
    pub body: Vec<u8>,
    /// How often, one after the other.
    pub times: u32,
    /// All of them at once instead.
    pub at_once: bool,
    /// Each brings the cookies that answers have set before.
    pub cookies: bool,
}

/// Requests without end, as fast as they are answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// What is asked, over connections that are kept open.
    pub ask: Ask,
    /// How many ask at a time: over one connection in HTTP/2, over one each in HTTP/1.1.
    pub askers: u32,
    /// Milliseconds between an answer and the next request of an asker.
    pub pause: u64,
}

/// What came of a [`Load`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers by who gave them; empty for an agent.
    pub pods: BTreeMap<String, u64>,
    /// Requests without an answer, by error.
    pub errors: BTreeMap<String, u64>,
    /// Connections that were opened.
    pub connections: u64,
    /// The first that was not answered with 200.
    pub example: String,
}

impl LoadReport {
    /// How many requests were made.
    pub fn asked(&self) -> u64 {
        self.statuses.values().chain(self.errors.values()).sum()
    }

    /// How many of them were not answered with 200.
    pub fn failed(&self) -> u64 {
        self.asked() - self.statuses.get(&200).copied().unwrap_or_default()
    }
}

/// What was answered to an [`Ask`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// The status; 0 where there is none.
    pub status: u16,
    /// Headers of the answer.
    pub headers: Headers,
    /// Content. What a WebSocket or a connection has carried back.
    pub body: String,
    /// Trailers.
    pub trailers: Headers,
    /// Milliseconds to the end of the answer.
    pub took: u64,
    /// Why there is no answer, or no end of it.
    pub error: Option<String>,
}

impl Reply {
    /// The first header, or else trailer, of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.headers.iter().chain(&self.trailers);
        fields.filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).next()
    }
}
