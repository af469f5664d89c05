//! Watches: what has changed since a revision, line by line, for as long as somebody reads.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    Shared,
    answer::{Body, Cut, Refusal},
    call::Call,
    faults::WatchFault,
    read::{self, View},
    resource::Resource,
    selector::Selector,
    store::Event,
};

/// Lines that wait for a slow reader, beyond what the kernel holds.
const QUEUE: usize = 64;
/// What a watch without `timeoutSeconds` gets.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
/// How often a watch looks whether it is still wanted.
const STEP: Duration = Duration::from_millis(20);

/// One watch that is under way.
struct Watch {
    shared: Arc<Shared>,
    resource: String,
    namespace: String,
    selector: Selector,
    view: View,
    bookmarks: bool,
    /// Events up to here have been sent.
    revision: u64,
    epoch: u64,
    lines: mpsc::Sender<Result<Frame<Bytes>, Cut>>,
}

/// Why a watch ends.
enum End {
    /// With a last line, or none.
    Well(Option<Value>),
    /// In the middle of a line.
    Cut,
    /// Nobody reads any more.
    Unread,
}

/// Starts a watch.
///
/// # Errors
/// What a server refuses before the first line.
pub(super) fn start(
    shared: &Arc<Shared>,
    call: &Call,
    resource: &Resource,
) -> Result<Response<Body>, Refusal> {
    let selector = read::selector(call, resource)?;
    let initial = call.is("sendInitialEvents");
    let revision = call.number("resourceVersion")?;
    if !call.param("sendInitialEvents").is_empty() {
        if !shared.options().streaming_lists {
            return Err(Refusal::invalid(
                "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
                 sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
            ));
        }
        if call.param("resourceVersionMatch") != "NotOlderThan" {
            return Err(Refusal::invalid(
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
                 sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
    }
    let timeout = call.number("timeoutSeconds")?.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let (lines, receiver) = mpsc::channel(QUEUE);
    let watch = Watch {
        resource: resource.full_name(),
        namespace: call.namespace.clone(),
        selector,
        view: View::new(call, resource),
        bookmarks: call.is("allowWatchBookmarks"),
        revision: revision.unwrap_or(0),
        epoch: shared.faults().epoch,
        lines,
        shared: Arc::clone(shared),
    };
    // Without a revision, a watch begins with what there is.
    let from_now = revision.unwrap_or(0) == 0;
    tokio::spawn(watch.run(initial, from_now, Instant::now() + timeout));
    let mut response = Response::new(Lines(receiver).boxed());
    let json = http::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

impl Watch {
    async fn run(mut self, initial: bool, from_now: bool, until: Instant) {
        match self.follow(initial, from_now, until).await {
            End::Well(Some(line)) => drop(self.line(&line).await),
            End::Well(None) | End::Unread => {}
            End::Cut => {
                let half = Frame::data(Bytes::from_static(b"{\"type\":\"MODIF"));
                let _ = self.lines.send(Ok(half)).await;
                // Else it would not be sent at all.
                tokio::time::sleep(STEP).await;
                let _ = self.lines.send(Err(Cut)).await;
            }
        }
    }

    async fn follow(&mut self, initial: bool, from_now: bool, until: Instant) -> End {
        if initial || from_now {
            let (all, revision) = {
                let store = self.shared.store();
                (store.list_at(&self.resource, store.revision), store.revision)
            };
            for (key, object) in all.unwrap_or_default() {
                if !self.is_meant(&key.namespace) || !self.selector.admits(&object) {
                    continue;
                }
                if !self.send("ADDED", &object).await {
                    return End::Unread;
                }
            }
            self.revision = revision;
            if initial && self.bookmarks && !self.bookmark(true).await {
                return End::Unread;
            }
        }
        let mut changed = self.shared.changed();
        let mut bookmarked = Instant::now();
        loop {
            let fault = self.shared.faults().of(self.epoch);
            match fault {
                Some(WatchFault::Cut) => return End::Cut,
                Some(WatchFault::End) => return End::Well(None),
                Some(WatchFault::Pause) => {
                    if self.lines.is_closed() {
                        return End::Unread;
                    }
                    tokio::time::sleep(STEP).await;
                    continue;
                }
                None => {}
            }
            let (events, revision) = {
                let store = self.shared.store();
                (store.since(&self.resource, self.revision), store.revision)
            };
            let events = match events {
                Ok(events) => events,
                Err(expired) => return End::Well(Some(error(&expired))),
            };
            for event in &events {
                if !self.event(event).await {
                    return End::Unread;
                }
                self.revision = event.revision;
            }
            self.revision = self.revision.max(revision);
            if self.bookmarks && bookmarked.elapsed() >= self.shared.options().bookmarks {
                bookmarked = Instant::now();
                if !self.bookmark(false).await {
                    return End::Unread;
                }
            }
            if Instant::now() >= until {
                return End::Well(None);
            }
            if self.lines.is_closed() {
                return End::Unread;
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return End::Cut },
                () = tokio::time::sleep(STEP) => {}
            }
        }
    }

    fn is_meant(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || self.namespace == namespace
    }

    /// What a change is for this watch: an object that ceases to be selected is deleted for it.
    async fn event(&mut self, event: &Event) -> bool {
        if !self.is_meant(&event.key.namespace) {
            return true;
        }
        let admitted = |object: &Option<Arc<Value>>| {
            object.as_ref().is_some_and(|object| self.selector.admits(object))
        };
        let kind = match (admitted(&event.before), admitted(&event.after)) {
            (false, false) => return true,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        let slow = self.shared.faults().delay;
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        self.send(kind, &event.last).await
    }

    async fn send(&self, kind: &str, object: &Value) -> bool {
        self.line(&json!({"type": kind, "object": self.view.show(object)})).await
    }

    async fn bookmark(&self, initial: bool) -> bool {
        let object = self.view.empty(self.revision, initial);
        self.line(&json!({"type": "BOOKMARK", "object": object})).await
    }

    async fn line(&self, line: &Value) -> bool {
        let bytes = Bytes::from(format!("{line}\n"));
        self.lines.send(Ok(Frame::data(bytes))).await.is_ok()
    }
}

fn error(refusal: &Refusal) -> Value {
    json!({"type": "ERROR", "object": refusal.status()})
}

/// The lines of a watch as a body.
struct Lines(mpsc::Receiver<Result<Frame<Bytes>, Cut>>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.0.poll_recv(context)
    }
}
