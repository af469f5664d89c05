//! What the controller distributes, and to whom. Clones are the same.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{catalogue::Catalogue, session::Session};

/// Streams of one node: an agent, its successor, and what a network has not noticed yet. Another takes the place of the oldest.
const MAX_PER_NODE: usize = 4;
/// Streams at the same time that say what they have, which takes memory.
const MAX_BEGINNING: usize = 16;

/// Who is at the other end of a stream. All of it has been proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: String,
    /// Namespace of the agent's pod.
    pub namespace: String,
    /// Name of that pod.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Where it is.
    pub address: IpAddr,
    /// Until when what it has shown is good.
    pub until: Instant,
}

/// Why a stream ends that its peer has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// It has sent what makes no sense.
    Invalid,
    /// It may not.
    Denied,
    /// There are too many.
    Exhausted,
    /// Another attempt may succeed.
    Unavailable,
}

/// The end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// For programs.
    pub kind: EndKind,
    /// A stable word, for logs and metrics.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl StreamEnd {
    pub(super) fn new(kind: EndKind, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into() }
    }
}

/// A state that an agent was sent, and what it has made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The version of the state.
    pub version: String,
    /// It is the first of its stream.
    pub first: bool,
    /// Resources that were sent.
    pub resources: usize,
    /// Names that were sent of what is gone.
    pub removed: usize,
    /// Bytes that were sent.
    pub bytes: u64,
    /// From the moment that it was sent until there was an answer.
    pub took: Duration,
    /// Why it is not in force; `None` where it is.
    pub rejected: Option<String>,
}

/// Is told what is distributed.
pub trait Observer: Send + Sync {
    /// An agent has answered.
    fn delivered(&self, peer: &Peer, delivery: &Delivery);
    /// There are so many streams now.
    fn streams(&self, count: usize);
    /// There are so many objects now; all lists have been read.
    fn catalogue(&self, objects: usize);
}

/// What is distributed.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    catalogue: Mutex<Catalogue>,
    /// The number of the last change; 0 while not everything has been read.
    published: watch::Sender<u64>,
    streams: Mutex<HashMap<String, VecDeque<Open>>>,
    numbers: AtomicU64,
    beginnings: Arc<Semaphore>,
    observer: Arc<dyn Observer>,
}

impl Hub {
    /// One that has nothing yet.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        let inner = Inner {
            catalogue: Mutex::default(),
            published: watch::Sender::new(0),
            streams: Mutex::default(),
            numbers: AtomicU64::new(0),
            beginnings: Arc::new(Semaphore::new(MAX_BEGINNING)),
            observer,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Serves a stream until one of both ends it. What is in `incoming` are the bytes of its requests, as they come.
    ///
    /// # Errors
    /// Where the peer is to be told why it is over.
    pub async fn serve(
        &self,
        peer: Peer,
        incoming: mpsc::Receiver<Result<Bytes, String>>,
        outgoing: mpsc::Sender<Bytes>,
    ) -> Result<(), StreamEnd> {
        if *self.inner.published.borrow() == 0 {
            let message = "not everything has been read from the API server yet";
            return Err(StreamEnd::new(EndKind::Unavailable, "incomplete", message));
        }
        let (place, displaced) = self.enter(&peer.node);
        let node = place.node.clone();
        tokio::select! {
            ended = Session::new(self.clone(), peer, incoming, outgoing).run() => ended,
            _ = displaced => {
                let message = format!("node {node} has {MAX_PER_NODE} newer streams");
                Err(StreamEnd::new(EndKind::Exhausted, "streams", message))
            }
        }
    }

    /// Makes room for a stream; the receiver hears when another takes it.
    fn enter(&self, node: &str) -> (Place, oneshot::Receiver<()>) {
        let number = self.inner.numbers.fetch_add(1, Ordering::Relaxed);
        let (end, displaced) = oneshot::channel();
        let mut streams = self.streams();
        let open = streams.entry(node.to_owned()).or_default();
        open.push_back(Open { number, end });
        if open.len() > MAX_PER_NODE
            && let Some(oldest) = open.pop_front()
        {
            // It may be about to end by itself.
            let _ = oldest.end.send(());
        }
        self.inner.observer.streams(streams.values().map(VecDeque::len).sum());
        (Place { hub: self.clone(), node: node.to_owned(), number }, displaced)
    }

    /// Makes changes, which are told together.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Catalogue) -> R) -> R {
        let mut catalogue = self.catalogue();
        let result = change(&mut catalogue);
        let seq = catalogue.seq();
        let is_complete = |published: &u64| *published != 0;
        let told = self.inner.published.send_if_modified(|published| {
            let is_news = is_complete(published) && *published != seq;
            if is_news {
                *published = seq;
            }
            is_news
        });
        if told {
            self.inner.observer.catalogue(catalogue.len());
        }
        result
    }

    /// Everything has been read.
    pub(super) fn complete(&self) {
        let catalogue = self.catalogue();
        // There is a namespace at least.
        self.inner.published.send_replace(catalogue.seq().max(1));
        self.inner.observer.catalogue(catalogue.len());
    }

    pub(super) fn published(&self) -> watch::Receiver<u64> {
        self.inner.published.subscribe()
    }

    pub(super) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.inner.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn beginnings(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.beginnings)
    }

    pub(super) fn observer(&self) -> &dyn Observer {
        &*self.inner.observer
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Open>>> {
        self.inner.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is open, and how to end it.
struct Open {
    number: u64,
    end: oneshot::Sender<()>,
}

/// One of the streams of a node.
struct Place {
    hub: Hub,
    node: String,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.hub.streams();
        if let Some(open) = streams.get_mut(&self.node) {
            open.retain(|open| open.number != self.number);
            if open.is_empty() {
                streams.remove(&self.node);
            }
        }
        self.hub.inner.observer.streams(streams.values().map(VecDeque::len).sum());
    }
}
