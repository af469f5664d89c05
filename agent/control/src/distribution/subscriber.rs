//! A controller as a source: what it sends is read as what an API server says.
//!
//! **Invariant**: nothing of a state is in force, or on disk, before all of it has come. While no controller is there, what
//! was in force stays in force; for an agent that starts then, what was in force when it ran last.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    catalogue::TYPE_URL,
    frames::{self, Frames},
    proto::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        delta_discovery_request::{Node, Struct, Value as Text},
        rpc,
    },
    received::Received,
    session::{ALL, NARROW, REACH, ROOT_NAMESPACE},
};
use crate::{
    kubernetes::{Health, Timing, backoff::Backoff, cache::Cache, stale, state::State},
    source::{Publisher, SourceUpdate},
};

/// How many times as long as a state has taken the source rests before the next.
const REST: u32 = 2;
/// `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID: i32 = 3;
/// How long a controller may take until it sends something: it reads what we have, and others' before ours.
const FIRST: Duration = Duration::from_secs(300);

/// A stream that is open.
pub struct Opened {
    /// The bytes that come. An error ends them.
    pub incoming: mpsc::Receiver<Result<Bytes, String>>,
    /// Where bytes go.
    pub outgoing: mpsc::Sender<Bytes>,
    /// Who is at the other end.
    pub server: String,
}

/// The future of a stream.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Opened, String>> + Send + 'a>>;

/// The way to controllers; of several replicas, another each time one does not answer.
pub trait Link: Send + Sync {
    /// Opens a stream.
    fn open(&self) -> Opening<'_>;
}

/// What a source needs to know whose objects come from a controller.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// This node.
    pub node: String,
    /// Name of the cluster.
    pub cluster: String,
    /// What controllers are called together: what is on disk is of them, or not used.
    pub controllers: String,
    /// The namespace whose policies are about the whole mesh.
    pub root_namespace: String,
    /// Pods reach nothing that is not registered.
    pub narrow: bool,
    /// Where the last good state is kept; `None` for nowhere.
    pub cache_dir: Option<PathBuf>,
    /// How long things take.
    pub timing: Timing,
}

/// Controllers.
pub struct ControllerSource {
    config: ControllerConfig,
    link: Arc<dyn Link>,
    health: Health,
}

impl ControllerSource {
    /// A source that has not asked anything yet.
    pub fn new(config: ControllerConfig, link: Arc<dyn Link>, health: Health) -> Self {
        Self { config, link, health }
    }

    /// Follows controllers, on a thread of its own, until the receiver is dropped. The first update comes with the first
    /// state, or at once where a former one is on disk.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn watch(self) -> io::Result<mpsc::Receiver<SourceUpdate>> {
        let (updates, receiver) = mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("controller".to_owned()).spawn(move || {
            runtime.block_on(self.run(updates));
            runtime.shutdown_background();
        })?;
        Ok(receiver)
    }

    async fn run(self, updates: mpsc::Sender<SourceUpdate>) {
        let Self { config, link, health } = self;
        health.begin();
        health.reached(&config.controllers);
        let mut follower = Follower {
            state: State::new(&config.node),
            cache: config.cache_dir.as_ref().map(|dir| Cache::new(dir, "controller", &config.node)),
            health,
            publisher: Publisher::default(),
            updates: updates.clone(),
            from_cache: None,
            cache_at: None,
            rested: Instant::now(),
            complete: false,
            config,
        };
        follower.restore().await;
        tokio::select! {
            () = follower.run(&*link) => {}
            () = updates.closed() => {}
        }
        if follower.cache_at.is_some() {
            follower.write_cache();
        }
    }
}

/// Follows controllers.
struct Follower {
    config: ControllerConfig,
    state: State,
    cache: Option<Cache>,
    health: Health,
    publisher: Publisher,
    updates: mpsc::Sender<SourceUpdate>,
    /// When the state was written that is in force, if it came from the cache.
    from_cache: Option<SystemTime>,
    cache_at: Option<Instant>,
    rested: Instant,
    /// A controller has said everything once.
    complete: bool,
}

impl Follower {
    /// Puts in force what was in force when the agent ran last.
    async fn restore(&mut self) {
        let Some(cache) = &self.cache else { return };
        let restored = match cache.read() {
            Ok(None) => return,
            Ok(Some(restored)) if restored.server == self.config.controllers => restored,
            Ok(Some(restored)) => {
                let (server, path) = (restored.server, cache.path().display());
                return tracing::warn!(%path, server, "the cache is of other controllers; not used");
            }
            Err(error) => {
                let path = cache.path().display();
                return tracing::warn!(%path, error, "the cache cannot be used");
            }
        };
        tracing::info!("in force is the last known state, until a controller says more");
        self.state = restored.state;
        self.from_cache = Some(restored.written);
        self.health.cached(restored.written);
        self.publish().await;
    }

    async fn run(&mut self, link: &dyn Link) {
        let Timing { first_retry, longest_retry, .. } = self.config.timing;
        let mut backoff = Backoff::new(first_retry, longest_retry);
        let mut opened_before = false;
        loop {
            let ended = match link.open().await {
                Ok(opened) => {
                    if std::mem::replace(&mut opened_before, true) {
                        self.health.reconnected();
                    }
                    self.follow(opened, &mut backoff).await
                }
                Err(why) => why,
            };
            self.health.problem(Some(ended));
            let wait = tokio::time::sleep(backoff.next(None));
            tokio::pin!(wait);
            loop {
                let write = self.next_write();
                tokio::select! {
                    () = &mut wait => break,
                    () = tokio::time::sleep(write.unwrap_or(Duration::MAX)), if write.is_some() => {
                        self.write_cache();
                    }
                }
            }
        }
    }

    /// Reads a stream to its end; why it is over.
    async fn follow(&mut self, opened: Opened, backoff: &mut Backoff) -> String {
        let Opened { mut incoming, outgoing, server } = opened;
        let gone = || format!("{server} has gone");
        if outgoing.send(frames::framed(&self.first_request())).await.is_err() {
            return gone();
        }
        let (mut frames, mut received) = (Frames::default(), Received::default());
        let mut first = true;
        loop {
            let response = match frames.next::<DeltaDiscoveryResponse>() {
                Ok(Some(response)) => response,
                Ok(None) => {
                    let write = self.next_write();
                    let patience = if first { FIRST } else { Duration::MAX };
                    tokio::select! {
                        bytes = incoming.recv() => match bytes {
                            Some(Ok(bytes)) => frames.push(&bytes),
                            Some(Err(why)) => return why,
                            None => return gone(),
                        },
                        () = tokio::time::sleep(write.unwrap_or(Duration::MAX)), if write.is_some() => {
                            self.write_cache();
                        }
                        () = tokio::time::sleep(patience), if first => {
                            return format!("{server} sends nothing");
                        }
                    }
                    continue;
                }
                Err(why) => return format!("{server} sends what cannot be read: {why}"),
            };
            let (nonce, version) = (response.nonce.clone(), response.system_version_info.clone());
            if let Err(why) = received.add(response, &self.state) {
                // Nothing of this stream can be relied on any more.
                let _ = outgoing.send(frames::framed(&answer(nonce, Some(&why)))).await;
                return format!("{server} sends what cannot be used: {why}");
            }
            if version.is_empty() {
                continue;
            }
            if std::mem::take(&mut first) {
                backoff.reset();
                self.health.problem(None);
                tracing::info!(server, version, "a controller says what is in force");
            }
            let rejected = self.take(std::mem::take(&mut received)).await;
            let answer = answer(nonce, rejected.as_deref());
            if outgoing.send(frames::framed(&answer)).await.is_err() {
                return gone();
            }
        }
    }

    /// What is known, so that only the rest has to be sent.
    fn first_request(&self) -> DeltaDiscoveryRequest {
        let text = |value: &str| Text { string_value: value.to_owned() };
        let mut fields = std::collections::BTreeMap::from([(
            ROOT_NAMESPACE.to_owned(),
            text(&self.config.root_namespace),
        )]);
        if self.config.narrow {
            fields.insert(REACH.to_owned(), text(NARROW));
        }
        DeltaDiscoveryRequest {
            node: Some(Node {
                id: self.config.node.clone(),
                cluster: self.config.cluster.clone(),
                metadata: Some(Struct { fields }),
                user_agent_name: "undermesh".to_owned(),
                user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            type_url: TYPE_URL.to_owned(),
            resource_names_subscribe: vec![ALL.to_owned()],
            initial_resource_versions: super::received::versions(&self.state),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Takes a state that is complete; why it is not in force, if it is not.
    async fn take(&mut self, received: Received) -> Option<String> {
        for (id, count) in received.apply(&mut self.state) {
            self.health.added(&id);
            self.health.objects(&id, count);
        }
        self.health.heard_all();
        if self.from_cache.take().is_some() || !self.complete {
            self.complete = true;
            self.health.complete();
        }
        // In a large cluster something changes all the time, and a state takes its time.
        tokio::time::sleep_until(self.rested.into()).await;
        self.publish().await
    }

    /// Puts the state in force; why that cannot be done, if it cannot.
    async fn publish(&mut self) -> Option<String> {
        let began = Instant::now();
        let mut loaded = self.state.load();
        let rejected = match &loaded.cluster {
            Some(_) => None,
            None => Some(loaded.diagnostics.first().map_or_else(String::new, ToString::to_string)),
        };
        match self.from_cache {
            Some(written) => {
                loaded.diagnostics.push(stale(&self.config.controllers, written));
            }
            None if rejected.is_none() => {
                self.cache_at.get_or_insert_with(|| Instant::now() + self.config.timing.cache);
            }
            None => {}
        }
        if let Some(update) = self.publisher.publish(loaded) {
            // Nobody listens: the end is near.
            let _ = self.updates.send(update).await;
        }
        self.rested = Instant::now() + began.elapsed() * REST;
        rejected
    }

    /// How long until the cache is to be written.
    fn next_write(&self) -> Option<Duration> {
        self.cache_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn write_cache(&mut self) {
        self.cache_at = None;
        let Some(cache) = &self.cache else { return };
        if let Err(error) = cache.write(&self.state, &self.config.controllers) {
            let path = cache.path().display();
            tracing::warn!(%path, %error, "the state cannot be kept for the next start");
        }
    }
}

/// What is said to a response.
fn answer(nonce: String, rejected: Option<&str>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: TYPE_URL.to_owned(),
        response_nonce: nonce,
        error_detail: rejected.map(|why| rpc::Status { code: INVALID, message: why.to_owned() }),
        ..DeltaDiscoveryRequest::default()
    }
}

#[cfg(test)]
mod tests;
