//! The controller's side of one stream: what an agent has, what it is to have, and what it says to that.
//!
//! One state at a time is under way. What changes meanwhile is told with the next: of an object that changes often, a slow
//! agent gets the last version, and costs nothing but the number of the change that it has.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;

use super::{
    catalogue::TYPE_URL,
    diff::{Diff, Has, diff},
    frames::{self, Frames},
    hub::{Delivery, EndKind, Hub, Peer, StreamEnd},
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    scope::{Scope, Terms},
};

/// Everything that a node has to know.
pub(super) const ALL: &str = "*";
/// Entries of a node's metadata.
pub(super) const ROOT_NAMESPACE: &str = "ROOT_NAMESPACE";
pub(super) const REACH: &str = "REACH";
/// The value of [`REACH`] that asks for no more than what the node's pods may reach.
pub(super) const NARROW: &str = "narrow";

/// How long the first request may take, all of it.
const FIRST: Duration = Duration::from_secs(30);
/// How long an agent may take for a part of a state, and until it says what it makes of all of it.
const TAKE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(180);
/// What changes within this time is told together.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes of one response before compression, about, and names of what is gone in it.
const RESPONSE: usize = 8 << 20;
const NAMES: usize = 20_000;
/// Objects that an agent may say it has.
const MAX_HAS: usize = 400_000;
/// Longest text that is taken over from an agent.
const MAX_TEXT: usize = 512;

pub(super) struct Session {
    hub: Hub,
    peer: Peer,
    requests: Requests,
    outgoing: mpsc::Sender<Bytes>,
    nonces: u64,
}

/// What comes from the agent.
struct Requests {
    incoming: mpsc::Receiver<Result<Bytes, String>>,
    frames: Frames,
}

/// What was sent last and is not answered.
struct Sent {
    nonce: String,
    delivery: Delivery,
    at: Instant,
}

/// The end, where nobody is to be told anything.
type Over = Option<StreamEnd>;

impl Session {
    pub(super) fn new(
        hub: Hub,
        peer: Peer,
        incoming: mpsc::Receiver<Result<Bytes, String>>,
        outgoing: mpsc::Sender<Bytes>,
    ) -> Self {
        let requests = Requests { incoming, frames: Frames::default() };
        Self { hub, peer, requests, outgoing, nonces: 0 }
    }

    pub(super) async fn run(mut self) -> Result<(), StreamEnd> {
        match self.follow().await {
            Err(Some(end)) => Err(end),
            Ok(()) | Err(None) => Ok(()),
        }
    }

    async fn follow(&mut self) -> Result<(), Over> {
        let mut published = self.hub.published();
        let until = tokio::time::Instant::from_std(self.peer.until);
        // Lists of what agents have are large; they are read a few at a time, and forgotten when compared.
        let beginnings = self.hub.beginnings();
        let beginning = beginnings.acquire().await.map_err(|_| None)?;
        let first = tokio::time::timeout(FIRST, self.requests.next()).await;
        let first = first.map_err(|_| invalid("no request has come in time"))??;
        let Some(first) = first else { return Ok(()) };
        let (terms, versions) = self.begin(first)?;
        published.mark_unchanged();
        let (mut seq, mut scope, initial) = self.compare(Has::These(versions), &terms);
        drop(beginning);
        let mut sent = Some(self.send(initial, seq, true).await?);
        let mut scoped = None;
        loop {
            let waiting =
                sent.as_ref().map(|sent| tokio::time::Instant::from_std(sent.at + ANSWER));
            tokio::select! {
                request = self.requests.next() => match request? {
                    None => return Ok(()),
                    Some(request) => self.answered(request, &mut sent)?,
                },
                changed = published.changed(), if sent.is_none() => {
                    changed.map_err(|_| None)?;
                    tokio::time::sleep(GATHER).await;
                    published.mark_unchanged();
                    self.is_still_there()?;
                    (seq, scope) = self.news(seq, scope, &terms, &mut scoped, &mut sent).await?;
                }
                () = tokio::time::sleep_until(waiting.unwrap_or(until)), if waiting.is_some() => {
                    return Err(unavailable("silent", "no answer to a state has come in time"));
                }
                () = tokio::time::sleep_until(until) => {
                    return Err(unavailable("expired", "what was shown is no longer good; show it again"));
                }
            }
        }
    }

    /// What the first request asks for.
    fn begin(
        &self,
        first: DeltaDiscoveryRequest,
    ) -> Result<(Terms, HashMap<String, String>), Over> {
        let node = first.node.unwrap_or_default();
        if node.id != self.peer.node {
            let message =
                format!("a stream of node {} is none of node {}", self.peer.node, clip(&node.id));
            return Err(Some(StreamEnd::new(EndKind::Denied, "node_mismatch", message)));
        }
        if first.type_url != TYPE_URL {
            return Err(invalid(format!("there is no type {}", clip(&first.type_url))));
        }
        if first.resource_names_subscribe != [ALL] {
            return Err(invalid("what can be subscribed to is `*`, all that a node has to know"));
        }
        if first.initial_resource_versions.len() > MAX_HAS {
            return Err(invalid(format!("nobody has more than {MAX_HAS} objects")));
        }
        let metadata = node.metadata.unwrap_or_default();
        let entry = |name: &str| metadata.fields.get(name).map(|value| value.string_value.clone());
        let root = entry(ROOT_NAMESPACE).filter(|root| root.len() <= MAX_TEXT).unwrap_or_default();
        let narrow = entry(REACH).as_deref() == Some(NARROW);
        let terms = Terms { node: self.peer.node.clone(), root, narrow };
        Ok((terms, first.initial_resource_versions.into_iter().collect()))
    }

    fn compare(&self, has: Has, terms: &Terms) -> (u64, Scope, Diff) {
        let catalogue = self.hub.catalogue();
        let now = catalogue.places().scope(terms);
        let difference = diff(&catalogue, has, &now);
        (catalogue.seq(), now, difference)
    }

    /// Sends what has changed, if that is anything for this node.
    async fn news(
        &mut self,
        seq: u64,
        scope: Scope,
        terms: &Terms,
        scoped: &mut Option<u64>,
        sent: &mut Option<Sent>,
    ) -> Result<(u64, Scope), Over> {
        let (seq, scope, news) = {
            let catalogue = self.hub.catalogue();
            if !catalogue.remembers(seq) {
                return Err(unavailable(
                    "forgotten",
                    "too much has changed since; say what you have",
                ));
            }
            let changed = catalogue.places().changed(&terms.node);
            let now = if changed == *scoped && scoped.is_some() {
                scope.clone()
            } else {
                catalogue.places().scope(terms)
            };
            *scoped = changed;
            let news = diff(&catalogue, Has::UpTo { seq, scope }, &now);
            (catalogue.seq(), now, news)
        };
        if !news.is_empty() {
            *sent = Some(self.send(news, seq, false).await?);
        }
        Ok((seq, scope))
    }

    /// Sends a state, in as many responses as it takes.
    async fn send(&mut self, diff: Diff, seq: u64, first: bool) -> Result<Sent, Over> {
        let mut delivery = Delivery {
            version: seq.to_string(),
            first,
            resources: diff.resources(),
            removed: diff.removed.len(),
            bytes: 0,
            took: Duration::ZERO,
            rejected: None,
        };
        let at = Instant::now();
        let (mut members, mut size) = (Vec::new(), 0);
        for group in diff.groups {
            for block in group.blocks() {
                members.push(block.packed.clone());
                size += block.size;
                if size >= RESPONSE {
                    delivery.bytes += self.respond("", &mut members, Vec::new()).await?;
                    size = 0;
                }
            }
        }
        for record in diff.records {
            members.push(record.packed());
            size += record.size();
            if size >= RESPONSE {
                delivery.bytes += self.respond("", &mut members, Vec::new()).await?;
                size = 0;
            }
        }
        let mut removed = diff.removed;
        while removed.len() > NAMES {
            let rest = removed.split_off(NAMES);
            delivery.bytes += self.respond("", &mut Vec::new(), removed).await?;
            removed = rest;
        }
        let version = delivery.version.clone();
        delivery.bytes += self.respond(&version, &mut members, removed).await?;
        Ok(Sent { nonce: self.nonces.to_string(), delivery, at })
    }

    /// Sends one response; how many bytes that were.
    async fn respond(
        &mut self,
        version: &str,
        members: &mut Vec<Bytes>,
        removed: Vec<String>,
    ) -> Result<u64, Over> {
        self.nonces += 1;
        let head = DeltaDiscoveryResponse {
            system_version_info: version.to_owned(),
            type_url: TYPE_URL.to_owned(),
            nonce: self.nonces.to_string(),
            removed_resources: removed,
            resources: Vec::new(),
        };
        members.insert(0, frames::member(&head.encode_to_vec()));
        let mut bytes = 0;
        let prefix = frames::prefix(members);
        for part in std::iter::once(prefix).chain(members.drain(..)) {
            bytes += part.len() as u64;
            let sent = tokio::time::timeout(TAKE, self.outgoing.send(part)).await;
            sent.map_err(|_| unavailable("slow", "what is sent is not taken in time"))?
                .map_err(|_| None)?;
        }
        Ok(bytes)
    }

    /// Takes note of what an agent says to a state.
    fn answered(
        &self,
        request: DeltaDiscoveryRequest,
        sent: &mut Option<Sent>,
    ) -> Result<(), Over> {
        if request.resource_names_unsubscribe.iter().any(|name| name == ALL) {
            return Err(None);
        }
        let is_answer = |sent: &&mut Sent| sent.nonce == request.response_nonce;
        let is_refusal = request.error_detail.is_some();
        match sent.as_mut().filter(is_answer) {
            Some(answered) => {
                answered.delivery.took = answered.at.elapsed();
                answered.delivery.rejected =
                    request.error_detail.map(|status| clip(&status.message));
                self.hub.observer().delivered(&self.peer, &answered.delivery);
                *sent = None;
                Ok(())
            }
            // A part of a state; the whole is answered for.
            None if !is_refusal => Ok(()),
            None => Err(invalid("a response is refused that is not the last")),
        }
    }

    /// Whoever has asked may have gone meanwhile, while his connection is there.
    fn is_still_there(&self) -> Result<(), Over> {
        let Peer { node, namespace, pod, uid, .. } = &self.peer;
        if self.hub.catalogue().places().is_on(node, namespace, pod, uid) {
            return Ok(());
        }
        let message = format!("pod {namespace}/{pod} is not on node {node} any more");
        Err(Some(StreamEnd::new(EndKind::Denied, "no_node", message)))
    }
}

impl Requests {
    /// The next request; `None` at the end. May be dropped while it waits, and called again.
    async fn next(&mut self) -> Result<Option<DeltaDiscoveryRequest>, Over> {
        loop {
            if let Some(request) = self.frames.next().map_err(invalid)? {
                return Ok(Some(request));
            }
            match self.incoming.recv().await {
                Some(Ok(bytes)) => self.frames.push(&bytes),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

fn invalid(message: impl Into<String>) -> Over {
    Some(StreamEnd::new(EndKind::Invalid, "message", message))
}

fn unavailable(reason: &'static str, message: &str) -> Over {
    Some(StreamEnd::new(EndKind::Unavailable, reason, message))
}

/// Text of a peer, for logs.
fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests;
