//! An API server in this process: Kubernetes' protocol of lists and watches, as real servers speak it, with
//! everything that goes wrong with them on request.
//!
//! ```text
//! apiserver ── resource   what kinds there are; more may come, and go
//!           ├─ store      objects, revisions, history and its compaction
//!           ├─ objects    what tests put, read and delete themselves
//!           ├─ call       a request as a verb about a resource
//!           ├─ read       get, and lists in pages of one revision
//!           ├─ watch      changes since a revision; streaming lists, bookmarks, 410
//!           ├─ write      create, update, delete; conflicts, finalizers, generations, `status`
//!           ├─ patch      merge, strategic merge and JSON patches
//!           ├─ apply      server-side apply, with owners of fields
//!           ├─ discovery  what there is
//!           ├─ tokens     bearers, TokenRequest, TokenReview
//!           ├─ forward    ports of pods; `mesh`, of agents and controllers
//!           ├─ hooks      what others add: admission, reviews, subresources
//!           ├─ faults     refusals, latency, watches that end, are cut, or fall silent
//!           ├─ serve      TCP, TLS, HTTP
//!           └─ client     a client, for this server and for real ones
//! ```
//!
//! It refuses what a real server refuses (namespaces that do not exist, unknown field selectors, updates of
//! custom objects without a revision), so that what works here works there.

mod answer;
mod apply;
mod call;
mod client;
mod discovery;
mod faults;
mod forward;
mod hooks;
mod mesh;
mod objects;
mod patch;
mod read;
mod resource;
mod selector;
mod serve;
mod store;
mod tokens;
mod watch;
mod write;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::{runtime::Runtime, sync::watch as watch_channel};

pub use answer::Refusal;
pub use call::Call;
pub use client::KubeClient;
pub use faults::{Trouble, WatchFault};
pub use forward::Door;
pub use hooks::Hook;
pub use mesh::MeshPods;
pub use resource::Resource;
pub use tokens::Bearer;

use crate::{netns::Netns, topology::Node};
use faults::Faults;
use serve::Tls;
use store::Store;
use tokens::Tokens;

/// Calls that are remembered.
const REMEMBERED: usize = 20_000;

/// What a server is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 for any.
    pub address: SocketAddr,
    /// Addresses that its certificate is for, beside loopback ones; without TLS, of no importance.
    pub addresses: Vec<std::net::IpAddr>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether it has streaming lists (`sendInitialEvents`); servers before 1.32 have none.
    pub streaming_lists: bool,
    /// How often watches that want them get bookmarks.
    pub bookmarks: Duration,
    /// The kinds that there are from the start.
    pub resources: Vec<Resource>,
}

impl Default for Options {
    fn default() -> Self {
        let resources = [Resource::core(), Resource::istio(), Resource::gateway_api()];
        Self {
            address: ([127, 0, 0, 1], 0).into(),
            addresses: Vec::new(),
            tls: true,
            streaming_lists: true,
            bookmarks: Duration::from_millis(500),
            resources: resources.into_iter().flatten().chain(Resource::undermesh()).collect(),
        }
    }
}

/// A server. Clones are the same one; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    /// Absent in what hooks are given, which must not keep the server alive.
    life: Option<Arc<Life>>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    address: SocketAddr,
    dir: PathBuf,
    tls: Option<Tls>,
    store: Mutex<Store>,
    changed: watch_channel::Sender<u64>,
    faults: Mutex<Faults>,
    tokens: Mutex<Tokens>,
    hooks: Mutex<Vec<Arc<dyn Hook>>>,
    calls: Mutex<Vec<Call>>,
    token: String,
}

#[derive(Debug)]
struct Life {
    runtime: Option<Runtime>,
    netns: Option<Netns>,
    /// Sends true to the listener that is in place.
    stop: Mutex<Option<watch_channel::Sender<bool>>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn options(&self) -> &Options {
        &self.options
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) -> watch_channel::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes the store, and tells the watches.
    fn write<R>(&self, change: impl FnOnce(&mut Store) -> R) -> R {
        let mut store = self.store();
        let result = change(&mut store);
        self.changed.send_replace(store.revision);
        result
    }
}

impl ApiServer {
    /// Starts a server, in a namespace if one is given. Its files (certificates, a kubeconfig) go to `dir`.
    ///
    /// # Errors
    /// Where the address is taken or a file cannot be written.
    pub fn start(dir: &Path, options: Options, netns: Option<&Netns>) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let listener = bind(options.address, netns)?;
        let address = listener.local_addr()?;
        let tls = options.tls.then(|| Tls::new(dir, &options.addresses)).transpose()?;
        let mut tokens = Tokens::default();
        let token = tokens.issue(Bearer {
            user: "kubernetes-admin".to_owned(),
            groups: vec!["system:masters".to_owned()],
            audiences: Vec::new(),
            pod: None,
            node: None,
        });
        let mut store = Store::default();
        store.revision = 1;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("apiserver")
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            address,
            dir: dir.to_owned(),
            tls,
            store: Mutex::new(store),
            changed: watch_channel::Sender::new(1),
            faults: Mutex::default(),
            tokens: Mutex::new(tokens),
            hooks: Mutex::default(),
            calls: Mutex::default(),
            token,
            options,
        });
        let netns = netns.cloned();
        let life = Arc::new(Life { runtime: Some(runtime), netns, stop: Mutex::new(None) });
        let server = Self { shared, life: Some(life) };
        for resource in server.shared.options.resources.clone() {
            server.install(&resource)?;
        }
        for namespace in ["default", "kube-system"] {
            server.put(&json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
            }))?;
        }
        server.serve(listener)?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The token of somebody who may do anything.
    pub fn token(&self) -> &str {
        &self.shared.token
    }

    /// The file of the root that its certificate is verified with.
    pub fn ca_file(&self) -> PathBuf {
        self.shared.dir.join("ca.crt")
    }

    /// Writes a kubeconfig of whoever has a token, for a server at `host`, and returns its path.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn kubeconfig(&self, name: &str, host: &str, token: &str) -> Result<PathBuf> {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        let server = format!("{scheme}://{host}:{}", self.shared.address.port());
        let mut cluster = json!({"server": server});
        if self.shared.tls.is_some() {
            cluster["certificate-authority"] = json!(self.ca_file());
        }
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let path = self.shared.dir.join(format!("{name}.kubeconfig"));
        fs::write(&path, serde_yaml_ng::to_string(&config)?)?;
        Ok(path)
    }

    /// Has the agent of a node follow this server, which is at `host`, from its next start.
    ///
    /// # Errors
    /// As [`Self::kubeconfig`].
    pub fn lead(&self, node: &mut Node, host: &str) -> Result<()> {
        let kubeconfig = self.kubeconfig(&node.name, host, self.token())?;
        let (cache, pods) = (node.dir.join("cache"), node.cgroup.join("pods"));
        node.settings.remove("manifests");
        node.settings.set("source", "kubernetes");
        for (key, path) in [("kubeconfig", kubeconfig), ("cacheDir", cache), ("podCgroup", pods)] {
            node.settings.set(key, &path.display().to_string());
        }
        Ok(())
    }

    /// Goes away: the port is closed, every connection is cut. Objects stay.
    pub fn stop(&self) {
        if let Some(life) = &self.life {
            let mut stop = life.stop.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(stop) = stop.take() {
                stop.send_replace(true);
                let runtime = life.runtime.as_ref();
                // Until the listener and its connections have gone.
                if let Some(runtime) = runtime {
                    let handle = runtime.handle().clone();
                    let wait = move || handle.block_on(stop.closed());
                    let _ = std::thread::spawn(wait).join();
                }
            }
        }
    }

    /// Comes back at the same address.
    ///
    /// # Errors
    /// Where the address is taken.
    pub fn resume(&self) -> Result<()> {
        let netns = self.life.as_ref().and_then(|life| life.netns.as_ref());
        self.serve(bind(self.shared.address, netns)?)
    }

    fn serve(&self, listener: TcpListener) -> Result<()> {
        let life = self.life.as_ref().context("a hook cannot start the server")?;
        let runtime = life.runtime.as_ref().context("the server has ended")?;
        let (sender, receiver) = watch_channel::channel(false);
        let shared = Arc::clone(&self.shared);
        listener.set_nonblocking(true)?;
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(guard);
        runtime.spawn(serve::accept(shared, listener, receiver));
        *life.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Ok(())
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.shared.store().revision
    }

    /// Forgets history: who watches from an earlier revision is told 410.
    pub fn compact(&self) {
        self.shared.write(Store::compact);
    }

    /// What becomes of the watches that are under way; later ones are as they should be.
    pub fn disturb_watches(&self, fault: WatchFault) {
        let mut faults = self.shared.faults();
        faults.epoch += 1;
        faults.fault = Some(fault);
        drop(faults);
        self.shared.changed.send_modify(|_| {});
    }

    /// How long watches take for each event from now on.
    pub fn slow_watches(&self, delay: Duration) {
        self.shared.faults().delay = delay;
    }

    /// How long every answer takes from now on.
    pub fn slow_answers(&self, latency: Duration) {
        self.shared.faults().latency = latency;
    }

    /// Refuses requests.
    pub fn trouble(&self, trouble: Trouble) {
        self.shared.faults().troubles.push_back(trouble);
    }

    /// Ends all faults; watches that had fallen silent go on.
    pub fn heal(&self) {
        let mut faults = self.shared.faults();
        *faults = Faults { epoch: faults.epoch, ..Faults::default() };
    }

    /// Adds a hook; the first that answers is heard.
    pub fn hook(&self, hook: Arc<dyn Hook>) {
        self.shared.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
    }

    /// Makes a token.
    pub fn issue(&self, bearer: Bearer) -> String {
        self.shared.tokens().issue(bearer)
    }

    /// Makes a token worthless.
    pub fn revoke(&self, token: &str) {
        self.shared.tokens().revoke(token);
    }

    /// Who has a token.
    pub fn bearer(&self, token: &str) -> Option<Bearer> {
        self.shared.tokens().bearer(token).cloned()
    }

    /// The calls since this was last asked, at most 20,000.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A server as hooks see it.
    fn of(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), life: None }
    }
}

fn bind(address: SocketAddr, netns: Option<&Netns>) -> Result<TcpListener> {
    let bind = || TcpListener::bind(address);
    let bound = match netns {
        Some(netns) => netns.run(bind)?,
        None => bind(),
    };
    bound.with_context(|| format!("the API server cannot listen at {address}"))
}

#[cfg(test)]
mod tests;
