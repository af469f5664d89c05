//! An API server as a source: lists of every kind that is read, kept up to date, and read as manifests are.
//!
//! ```text
//! api ── discovery   which kinds the server has; more may come, and go
//!     ├─ inquiry     when it is asked that
//!     ├─ reflector   one list: listed, watched, listed again; `prune`, `backoff`
//!     ├─ entry       one object, and what of it is in force; `closed` where a policy cannot be read
//!     ├─ state       all lists, and the cluster that comes of them
//!     ├─ cache       the last good state on disk
//!     └─ health      what the source says of itself
//! ```
//!
//! **Invariant**: nothing is published before every list has been read to its end, but for what was in force
//! when the agent ran last. While the server is away, what it has said last stays in force.

pub(crate) mod api;
pub(crate) mod backoff;
pub(crate) mod cache;
mod closed;
pub(crate) mod discovery;
pub(crate) mod entry;
mod health;
pub(crate) mod inquiry;
mod prune;
pub(crate) mod reflector;
pub(crate) mod running;
pub(crate) mod slot;
pub(crate) mod state;

use std::{
    io,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;
use undermesh_model::{Diagnostic, Severity};

use self::{
    api::{Api, Trouble},
    backoff::Backoff,
    cache::Cache,
    discovery::Served,
    inquiry::Inquiry,
    reflector::Change,
    running::{Message, Running},
    slot::{Slot, SlotId},
    state::State,
};
use crate::source::{Publisher, SourceUpdate};
pub use health::{Health, HealthReport, ListReport};

/// Messages of reflectors that wait to be read.
const INBOX: usize = 1024;
/// Messages that are read at once.
const BATCH: usize = 256;
/// How many times as long as a state has taken the source rests before the next.
const REST: u32 = 2;

/// What a Kubernetes source needs to know.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// This node, as Pods name it in `spec.nodeName`.
    pub node: String,
    /// How to reach the API server; `None` for the account of the pod that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Where the last good state is kept; `None` for nowhere.
    pub cache_dir: Option<PathBuf>,
    /// How long things take.
    pub timing: Timing,
}

/// How long the source waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before something is tried again for the first time.
    pub first_retry: Duration,
    /// The longest such wait.
    pub longest_retry: Duration,
    /// How long a watch is asked to go on.
    pub watch: Duration,
    /// How long a watch may be silent before another takes its place.
    pub silence: Duration,
    /// How long a streaming list may be silent.
    pub initial_events: Duration,
    /// How long nothing may change before a state is published.
    pub debounce: Duration,
    /// How long a state may wait to be published.
    pub longest_debounce: Duration,
    /// How often the server is asked which kinds it has, beside when definitions change.
    pub discovery: Duration,
    /// How often the state is written to disk, at most.
    pub cache: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_millis(500),
            longest_retry: Duration::from_secs(30),
            watch: Duration::from_secs(300),
            silence: reflector::SILENCE,
            initial_events: Duration::from_secs(60),
            debounce: Duration::from_millis(50),
            longest_debounce: Duration::from_millis(500),
            discovery: Duration::from_secs(300),
            cache: Duration::from_secs(10),
        }
    }
}

/// An API server.
#[derive(Clone, Debug)]
pub struct KubernetesSource {
    config: KubernetesConfig,
    health: Health,
}

impl KubernetesSource {
    /// A source that has not asked anything yet.
    pub fn new(config: KubernetesConfig, health: Health) -> Self {
        Self { config, health }
    }

    /// Follows the server, on a thread of its own, until the receiver is dropped. The first update comes
    /// when every list is complete, or at once where a former state is on disk.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn watch(self) -> io::Result<mpsc::Receiver<SourceUpdate>> {
        let (updates, receiver) = mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("kubernetes".to_owned()).spawn(move || {
            runtime.block_on(self.run(updates));
            // Nobody waits for what is still being asked.
            runtime.shutdown_background();
        })?;
        Ok(receiver)
    }

    async fn run(self, updates: mpsc::Sender<SourceUpdate>) {
        self.health.begin();
        let Timing { first_retry, longest_retry, .. } = self.config.timing;
        let backoff = Backoff::new(first_retry, longest_retry);
        let api = tokio::select! {
            api = Api::reach(self.config.kubeconfig.as_deref(), backoff, &self.health) => api,
            () = updates.closed() => return,
        };
        let cache = self
            .config
            .cache_dir
            .as_ref()
            .map(|dir| Cache::new(dir, "kubernetes", &self.config.node));
        let (out, inbox) = mpsc::channel(INBOX);
        let mut follower = Follower {
            timing: self.config.timing,
            state: State::new(&self.config.node),
            running: Running::new(api.clone(), out, self.health.clone(), self.config.timing),
            health: self.health,
            publisher: Publisher::default(),
            updates,
            cache,
            server: api.server().to_owned(),
            from_cache: None,
            discovered: false,
            inquiry: Inquiry::new(self.config.timing),
            complete: false,
            changed: None,
            cache_at: None,
            rested: Instant::now(),
        };
        follower.restore().await;
        follower.run(inbox, &self.config.node).await;
    }
}

/// Follows a server.
struct Follower {
    timing: Timing,
    state: State,
    running: Running,
    health: Health,
    publisher: Publisher,
    updates: mpsc::Sender<SourceUpdate>,
    cache: Option<Cache>,
    server: String,
    /// When the state was written that is in force, if it came from the cache.
    from_cache: Option<SystemTime>,
    /// It is known which kinds there are.
    discovered: bool,
    inquiry: Inquiry,
    /// Every list has been read to its end once.
    complete: bool,
    /// When something first and last changed that is not published yet.
    changed: Option<(Instant, Instant)>,
    /// When the cache is to be written.
    cache_at: Option<Instant>,
    /// When the source has rested from the last state.
    rested: Instant,
}

impl Follower {
    /// Puts in force what was in force when the agent ran last.
    async fn restore(&mut self) {
        let Some(cache) = &self.cache else { return };
        let restored = match cache.read() {
            Ok(None) => return,
            Ok(Some(restored)) if restored.server == self.server => restored,
            Ok(Some(restored)) => {
                let (server, path) = (restored.server, cache.path().display());
                return tracing::warn!(%path, server, "the cache is of another API server; not used");
            }
            Err(error) => {
                let path = cache.path().display();
                return tracing::warn!(%path, error, "the cache cannot be used");
            }
        };
        tracing::info!(server = self.server, "in force is the last known state, until all is read");
        self.state = restored.state;
        self.from_cache = Some(restored.written);
        self.health.cached(restored.written);
        self.publish().await;
    }

    async fn run(&mut self, mut inbox: mpsc::Receiver<Message>, node: &str) {
        for slot in Slot::always(node).into_iter().chain([Slot::definitions()]) {
            self.begin(slot);
        }
        let mut messages = Vec::with_capacity(BATCH);
        loop {
            let now = Instant::now();
            if self.inquiry.is_due() {
                self.running.discover();
            }
            if self.publish_at().is_some_and(|at| now >= at) {
                self.follow_names();
                if self.is_complete() {
                    self.publish().await;
                } else {
                    self.changed = None;
                }
            }
            if self.cache_at.is_some_and(|at| now >= at) {
                self.write_cache();
            }
            let next = [self.publish_at(), self.cache_at].into_iter().flatten();
            let next = next.chain(self.inquiry.next()).min();
            let wait = next.map_or(self.timing.discovery, |at| at.duration_since(Instant::now()));
            tokio::select! {
                () = self.updates.closed() => break,
                read = inbox.recv_many(&mut messages, BATCH) => if read == 0 { break },
                () = tokio::time::sleep(wait) => {}
            }
            for message in messages.drain(..) {
                self.take(message);
            }
        }
        if self.cache_at.is_some() {
            self.write_cache();
        }
    }

    fn begin(&mut self, slot: Slot) {
        self.state.add(&slot);
        self.running.begin(slot);
    }

    fn end(&mut self, id: &SlotId) {
        self.running.end(id);
        self.state.lists.remove(id);
        self.note_change();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Discovered(found) => self.discovered(found),
            Message::Changed { slot, change } => {
                if !self.running.contains(&slot) {
                    return;
                }
                if slot == Slot::definitions().id || matches!(change, Change::Missing) {
                    return self.inquiry.soon();
                }
                if let Some(count) = self.state.change(&slot, change) {
                    self.health.objects(&slot, count);
                    self.note_change();
                }
            }
        }
    }

    fn note_change(&mut self) {
        let now = Instant::now();
        self.changed = Some((self.changed.map_or(now, |(first, _)| first), now));
    }

    fn publish_at(&self) -> Option<Instant> {
        let (first, last) = self.changed?;
        let settled = (last + self.timing.debounce).min(first + self.timing.longest_debounce);
        Some(settled.max(self.rested))
    }

    fn discovered(&mut self, found: Result<Vec<Served>, Trouble>) {
        match found {
            Ok(served) => {
                self.health.problem(None);
                self.serve(&served);
                self.inquiry.answered();
            }
            Err(trouble) => {
                let problem = format!("cannot ask {} which kinds it has: {trouble}", self.server);
                self.health.problem(Some(problem));
                self.inquiry.failed(self.running.retry(trouble.retry_after()));
            }
        }
    }

    /// Watches what is there now, and forgets what is there no more.
    fn serve(&mut self, served: &[Served]) {
        let slots: Vec<Slot> = served.iter().map(Slot::served).collect();
        for id in self.running.missing_from(&slots) {
            tracing::info!(kind = %id, "the API server has this kind no longer, or in another version");
            self.end(&id);
        }
        self.begin_new(slots);
        if !std::mem::replace(&mut self.discovered, true) {
            self.note_change();
        }
    }

    /// Watches what other objects name.
    fn follow_names(&mut self) {
        // Names of the cache are as good as any until everything has been read.
        let wanted = self.state.named().slots();
        for id in self.running.unnamed_by(&wanted) {
            self.end(&id);
        }
        self.begin_new(wanted);
    }

    fn begin_new(&mut self, slots: Vec<Slot>) {
        for slot in slots {
            if !self.running.contains(&slot.id) {
                self.begin(slot);
            }
        }
    }

    /// Whether everything has been read. Once that was so, what is new keeps nothing else waiting.
    fn is_complete(&mut self) -> bool {
        if self.complete {
            return true;
        }
        if !self.discovered || !self.state.is_complete(self.running.ids()) {
            return false;
        }
        self.complete = true;
        self.from_cache = None;
        // What the cache knows and the server does not.
        self.state.lists.retain(|id, _| self.running.contains(id));
        self.health.complete();
        tracing::info!(server = self.server, "every list is complete");
        true
    }

    async fn publish(&mut self) {
        self.changed = None;
        let began = Instant::now();
        let mut loaded = self.state.load();
        if loaded.cluster.is_some() && self.complete {
            self.cache_at.get_or_insert_with(|| Instant::now() + self.timing.cache);
        }
        if let Some(written) = self.from_cache {
            loaded.diagnostics.push(stale(&self.server, written));
        }
        if let Some(update) = self.publisher.publish(loaded) {
            // Nobody listens: the end is near.
            let _ = self.updates.send(update).await;
        }
        // In a large cluster something changes all the time, and a state takes its time.
        self.rested = Instant::now() + began.elapsed() * REST;
    }

    fn write_cache(&mut self) {
        self.cache_at = None;
        let Some(cache) = &self.cache else { return };
        if let Err(error) = cache.write(&self.state, &self.server) {
            let path = cache.path().display();
            tracing::warn!(%path, %error, "the state cannot be kept for the next start");
        }
    }
}

pub(crate) fn stale(server: &str, written: SystemTime) -> Diagnostic {
    let age = written.elapsed().unwrap_or_default().as_secs();
    Diagnostic {
        severity: Severity::Warning,
        code: "configuration-from-cache",
        object: None,
        position: None,
        message: format!(
            "in force is a state that was {age} s old when the agent started: not everything has been \
             read from {server} yet"
        ),
        remedy: "see `undermesh status` for what cannot be read".to_owned(),
    }
}
