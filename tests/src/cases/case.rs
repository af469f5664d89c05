//! The shape of a case.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::Token;

/// Objects, requests, and answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name, a claim.
    pub case: String,
    /// Kubernetes objects. `$ip(POD)` and `$vip(SERVICE)` stand for IPv4 addresses, `$ip6(POD)` for one of IPv6,
    /// `$keys` for the key set of the issuer that signs [`Exchange::token`], `$root` for the root of the authority
    /// that certifies servers outside the mesh, to be written between double quotes.
    #[serde(default)]
    pub objects: Vec<Value>,
    /// Codes of what the agents have to say about the objects; they say nothing else.
    #[serde(default)]
    pub reports: Vec<String>,
    /// The objects are refused, in these words; what was before stays in force.
    pub refused: Option<String>,
    /// What is asked, in this order.
    #[serde(default)]
    pub requests: Vec<Exchange>,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// A unary call of gRPC; `ask` is its path.
    Grpc,
    /// HTTP/1.1 that asks for a WebSocket and says `body` through it.
    Websocket,
    /// Bytes: says `ask`, and hears who answers.
    Tcp,
    /// The beginning of TLS, with the server name `ask`.
    Tls,
}

/// A request and its answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Method and path; see [`Protocol`] for those without.
    pub ask: String,
    /// Who asks.
    #[serde(default = "client")]
    pub from: String,
    /// Service and port, pod and port (`one@8080`), or address and port.
    #[serde(default = "shop")]
    pub to: String,
    /// By the IPv6 address.
    #[serde(default)]
    pub ipv6: bool,
    /// How.
    #[serde(default)]
    pub by: Protocol,
    /// The authority; the service's name where there is none.
    pub host: Option<String>,
    /// More headers. `$n` in them and in `ask` is the number of requests before this one, of `times`, and `$token`
    /// is [`Self::token`].
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A token; in `Authorization`, unless it is placed somewhere else.
    pub token: Option<Token>,
    /// Content.
    #[serde(default)]
    pub body: String,
    /// What servers do, attempt by attempt ([`crate::pod::http::PLAN`]).
    pub plan: Option<String>,
    /// How often, each time on a connection of its own.
    #[serde(default = "once")]
    pub times: u32,
    /// All at once, instead of one after the other.
    #[serde(default)]
    pub at_once: bool,
    /// Requests that the plan has servers hold go on once so many are held, and counters are as expected.
    #[serde(default)]
    pub held: usize,
    /// Each request brings the cookies that answers to those before it have set.
    #[serde(default)]
    pub cookies: bool,
    /// Asked again until the answer is right, for a while.
    #[serde(default)]
    pub eventually: bool,
    /// What is to come of it, each time.
    #[serde(default)]
    pub answer: Expected,
}

/// What is expected. What is not said is not looked at, but for the status, which is 200.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Expected {
    /// The status.
    pub status: Option<u16>,
    /// Who answers; empty for an agent.
    pub pod: Option<String>,
    /// Headers or trailers; `null` for one that is not there.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// Headers or trailers, of which the value has this in it.
    #[serde(default)]
    pub contains: BTreeMap<String, String>,
    /// The content.
    pub body: Option<String>,
    /// The status of gRPC.
    pub grpc: Option<u16>,
    /// The request as the pod has seen it.
    pub seen: Option<Seen>,
    /// How many attempts there were, as the last one's header says.
    pub attempts: Option<u32>,
    /// Milliseconds, at least and at most.
    pub took: Option<[u64; 2]>,
    /// Of all answers together: how many come from each pod, at least and at most.
    pub shares: Option<BTreeMap<String, [usize; 2]>>,
    /// Of all answers together: how many have each status, at least and at most.
    pub statuses: Option<BTreeMap<u16, [usize; 2]>>,
    /// Of all answers together: how many different pods they come from, at least and at most.
    pub pods: Option<[usize; 2]>,
    /// Of all answers together: over how many connections pods were asked.
    pub connections: Option<[usize; 2]>,
    /// Of all answers together: the most requests that one of these connections has had.
    pub per_connection: Option<[usize; 2]>,
    /// By how much counters of the client's agent go up: `NAME` or `NAME{label="value"}`, summed over all series.
    #[serde(default)]
    pub rises: BTreeMap<String, u64>,
    /// Figures of the client's agent, in the end.
    #[serde(default)]
    pub figures: BTreeMap<String, u64>,
    /// Which pods have heard the request, and how often.
    pub copies: Option<BTreeMap<String, Copies>>,
    /// The connection is refused, or ends without an answer.
    #[serde(default)]
    pub closed: bool,
    /// The reason that an agent logs for a refusal has these words.
    pub because: Option<String>,
    /// Findings of policies without a say, by kind: how many there are more afterwards, at both agents together.
    #[serde(default)]
    pub findings: BTreeMap<String, u64>,
}

/// A request as a pod has seen it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Method and path.
    pub line: Option<String>,
    /// Version of HTTP.
    pub version: Option<String>,
    /// Headers; `null` for one that is not there.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
}

/// Requests that a pod has heard.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copies {
    /// At least and at most.
    pub times: [usize; 2],
    /// What each looks like.
    #[serde(default)]
    pub seen: Seen,
}

impl Case {
    /// Reads a file of cases, after `put_in` has replaced what stands for something else.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(file: &Path, put_in: impl FnOnce(String) -> Result<String>) -> Result<Vec<Self>> {
        let what = || format!("cannot read {}", file.display());
        let text = put_in(fs::read_to_string(file).with_context(what)?).with_context(what)?;
        serde_yaml_ng::from_str(&text).with_context(what)
    }
}

fn client() -> String {
    "client".to_owned()
}

fn shop() -> String {
    "shop:80".to_owned()
}

fn once() -> u32 {
    1
}
