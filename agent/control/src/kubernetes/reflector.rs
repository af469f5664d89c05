//! Keeps one list up to date: lists, watches, and lists again where the server has forgotten.
//!
//! What it says is complete: a list is handed on as a whole, and what comes after it one by one. While the
//! server cannot be asked, nothing is said at all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    Timing,
    api::{Api, Lines, Trouble, place, timely, trouble_of},
    backoff::{Backoff, jittered},
    health::Health,
    prune::prune,
    running::Message,
    slot::Slot,
};

/// Objects of a page of a list.
const PAGE: &str = "500";
/// Pages of one list; more are no list that ends.
const MAX_PAGES: usize = 10_000;
/// Marks the end of what there was when a streaming list began (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What has become of a list.
pub(crate) enum Change {
    /// This is all of it.
    Listed(Vec<Value>),
    /// This object is there, or has changed.
    Applied(Value),
    /// This one is gone.
    Deleted(Value),
    /// The server has no such resource.
    Missing,
}

/// Keeps one list.
pub(crate) struct Reflector {
    pub(crate) api: Api,
    pub(crate) slot: Slot,
    pub(crate) out: mpsc::Sender<Message>,
    pub(crate) health: Health,
    pub(crate) timing: Timing,
    /// Whether the server has streaming lists; one refusal is enough for all.
    pub(crate) streaming: Arc<AtomicBool>,
    /// It has been read once.
    pub(crate) listed: AtomicBool,
}

/// How a watch ends.
enum End {
    /// As all watches do.
    Well,
    /// The revision is no longer known.
    Gone,
    Failed(Trouble),
    /// Nobody listens to us any more.
    Unheard,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

impl Reflector {
    /// Runs until nobody listens.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(self.timing.first_retry, self.timing.longest_retry);
        loop {
            let failure = match self.list_and_watch(&mut backoff).await {
                End::Unheard => return,
                End::Well | End::Gone => None,
                End::Failed(trouble) => Some(trouble),
            };
            self.health.relisting(&self.slot.id);
            let asked = failure.as_ref().and_then(Trouble::retry_after);
            if let Some(trouble) = &failure
                && !self.tell(trouble).await
            {
                return;
            }
            tokio::time::sleep(backoff.next(asked)).await;
        }
    }

    /// Takes note of a failure; false where nobody listens.
    async fn tell(&self, trouble: &Trouble) -> bool {
        self.health.failed(&self.slot.id, trouble);
        if trouble.is_missing() {
            return self.say(Change::Missing).await;
        }
        // Whoever waits for all lists waits no longer for one that it can do without.
        let never = !self.listed.load(Ordering::Relaxed);
        if trouble.is_forbidden() && self.slot.dispensable && never {
            return self.say(Change::Listed(Vec::new())).await;
        }
        !self.out.is_closed()
    }

    async fn list_and_watch(&self, backoff: &mut Backoff) -> End {
        let (objects, mut revision, mut lines) = match self.list().await {
            Ok(listed) => listed,
            Err(trouble) if trouble.is_gone() => return End::Gone,
            Err(trouble) => return End::Failed(trouble),
        };
        self.health.listed(&self.slot.id, objects.len());
        self.listed.store(true, Ordering::Relaxed);
        if !self.say(Change::Listed(objects)).await {
            return End::Unheard;
        }
        backoff.reset();
        loop {
            let opened = match lines.take() {
                Some(lines) => Ok(lines),
                None => self.watch_from(&revision).await,
            };
            let end = match opened {
                Ok(lines) => self.follow(lines, &mut revision, backoff).await,
                Err(trouble) if trouble.is_gone() => End::Gone,
                Err(trouble) => End::Failed(trouble),
            };
            let trouble = match end {
                End::Well => None,
                End::Failed(trouble) if !trouble.is_missing() => Some(trouble),
                end => return end,
            };
            self.health.restarted(&self.slot.id);
            if let Some(trouble) = &trouble
                && !self.tell(trouble).await
            {
                return End::Unheard;
            }
            // A server that ends watches at once must not be asked without end.
            let asked = trouble.as_ref().and_then(Trouble::retry_after);
            tokio::time::sleep(backoff.next(asked)).await;
        }
    }

    /// All objects, the revision that they are of, and the watch that goes on with them, if there is one.
    async fn list(&self) -> Result<(Vec<Value>, String, Option<Lines>), Trouble> {
        if self.streaming.load(Ordering::Relaxed) {
            match self.streamed_list().await {
                Ok(Some((objects, revision, lines))) => {
                    return Ok((objects, revision, Some(lines)));
                }
                Ok(None) => {}
                Err(trouble) if trouble.is_unsupported() => {}
                Err(trouble) => return Err(trouble),
            }
            if self.streaming.swap(false, Ordering::Relaxed) {
                tracing::info!("the API server has no streaming lists; reading pages instead");
            }
        }
        let (objects, revision) = self.paged_list().await?;
        Ok((objects, revision, None))
    }

    /// `None` where the server does not know what was asked for, and answers something else.
    async fn streamed_list(&self) -> Result<Option<(Vec<Value>, String, Lines)>, Trouble> {
        let timeout = self.watch_timeout();
        let path = self.slot.query(&[
            ("watch", "1"),
            ("sendInitialEvents", "true"),
            ("resourceVersionMatch", "NotOlderThan"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &timeout),
        ]);
        let mut lines = self.api.open(&path, self.slot.accept(false)).await?;
        let mut objects = Vec::new();
        loop {
            let line = match timely(self.timing.initial_events, lines.next()).await {
                Ok(line) => line,
                // A server that does not know of this sends objects, and then nothing.
                Err(_) if !objects.is_empty() => return Ok(None),
                Err(trouble) => return Err(trouble),
            };
            let Some(line) = line else {
                return Err(Trouble::Lost("the list ended before it was complete".to_owned()));
            };
            let event = parse(&line)?;
            match event.kind.as_str() {
                "ADDED" => objects.push(self.own(event.object)),
                "BOOKMARK" => {
                    let end = &event.object["metadata"]["annotations"][INITIAL_EVENTS_END];
                    let revision = revision_of(&event.object);
                    return Ok((end == "true").then_some((objects, revision, lines)));
                }
                "ERROR" => return Err(trouble_of(&event.object)),
                // Changes, before the end of what there was.
                _ => return Ok(None),
            }
        }
    }

    async fn paged_list(&self) -> Result<(Vec<Value>, String), Trouble> {
        let mut objects = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let path = self.slot.query(&[("limit", PAGE), ("continue", &token)]);
            let mut page = self.api.get(&path, self.slot.accept(true)).await?;
            if let Value::Array(items) = page["items"].take() {
                objects.extend(items.into_iter().map(|item| self.own(item)));
            }
            token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                return Ok((objects, revision_of(&page)));
            }
        }
        Err(Trouble::Lost(format!("the list has no end after {MAX_PAGES} pages")))
    }

    async fn watch_from(&self, revision: &str) -> Result<Lines, Trouble> {
        let timeout = self.watch_timeout();
        let path = self.slot.query(&[
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", revision),
            ("timeoutSeconds", &timeout),
        ]);
        self.api.open(&path, self.slot.accept(false)).await
    }

    /// Reads a watch to its end.
    async fn follow(&self, mut lines: Lines, revision: &mut String, backoff: &mut Backoff) -> End {
        loop {
            let line = match timely(self.timing.silence, lines.next()).await {
                Ok(Some(line)) => line,
                Ok(None) => return End::Well,
                Err(trouble) => return End::Failed(trouble),
            };
            let event = match parse(&line) {
                Ok(event) => event,
                Err(trouble) => return End::Failed(trouble),
            };
            if event.kind == "ERROR" {
                let trouble = trouble_of(&event.object);
                return if trouble.is_gone() { End::Gone } else { End::Failed(trouble) };
            }
            self.health.heard(&self.slot.id);
            backoff.reset();
            let at = revision_of(&event.object);
            let change = match event.kind.as_str() {
                "ADDED" | "MODIFIED" => Some(Change::Applied(self.own(event.object))),
                "DELETED" => Some(Change::Deleted(self.own(event.object))),
                _ => None,
            };
            if let Some(change) = change
                && !self.say(change).await
            {
                return End::Unheard;
            }
            // Only what has been handed on counts as seen.
            if !at.is_empty() {
                *revision = at;
            }
        }
    }

    async fn say(&self, change: Change) -> bool {
        let slot = self.slot.id.clone();
        self.out.send(Message::Changed { slot, change }).await.is_ok()
    }

    /// The object as its kind is read: items of lists and metadata do not say what they are.
    fn own(&self, mut object: Value) -> Value {
        let kind = self.slot.kind.map_or("", |kind| kind.description.kind);
        prune(kind, &mut object);
        if let Some(object) = object.as_object_mut() {
            object.insert("apiVersion".to_owned(), self.slot.api_version.clone().into());
            object.insert("kind".to_owned(), kind.into());
        }
        object
    }

    /// Differs for each watch, so that they do not all end together.
    fn watch_timeout(&self) -> String {
        jittered(self.timing.watch).as_secs().max(1).to_string()
    }
}

fn revision_of(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

fn parse(line: &[u8]) -> Result<Event, Trouble> {
    serde_json::from_slice(line)
        .map_err(|error| Trouble::Lost(format!("an event cannot be read: {}", place(&error))))
}

/// How long a watch may be silent before it is taken for dead, beyond what it may take at all.
pub(crate) const SILENCE: Duration = Duration::from_secs(150);
