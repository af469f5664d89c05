//! A cluster of two nodes: an API server, and somebody who does with objects what a cluster does.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use undermesh_tests::{
    apiserver::{ApiServer, Call, Hook, KubeClient, Options, Refusal, Resource},
    locate,
};

pub(crate) const NAMESPACE: &str = "undermesh-system";
const NODES: [&str; 2] = ["a", "b"];
const MERGE: &str = "application/merge-patch+json";

/// What a command has said.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    dir: PathBuf,
    kubeconfig: PathBuf,
    state: Arc<State>,
    player: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    broken: AtomicBool,
    webhook_is_silent: AtomicBool,
    agents_beside_cleaning: AtomicBool,
    cleaned: AtomicBool,
    version: Mutex<Option<String>>,
    silent: Mutex<BTreeSet<String>>,
    denied: Mutex<BTreeSet<(String, String)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn node(name: &str, kernel: &str, architecture: &str, runtime: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"nodeInfo": {
            "kernelVersion": kernel, "architecture": architecture, "operatingSystem": "linux",
            "containerRuntimeVersion": runtime,
        }},
    })
}

impl Cluster {
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("um-install-{}-{id}", std::process::id()));
        // The mesh's own kinds are not there yet.
        let resources = [Resource::core(), Resource::istio(), Resource::gateway_api()].concat();
        let api = ApiServer::start(&dir, Options { resources, ..Options::default() }, None)?;
        for name in NODES {
            api.put(&node(name, "6.1.0-28-amd64", "amd64", "containerd://1.7.24"))?;
        }
        let kubeconfig = api.kubeconfig("admin", "127.0.0.1", api.token())?;
        let state = Arc::new(State::default());
        api.hook(Arc::new(Others(Arc::clone(&state))));
        let client = KubeClient::new(&kubeconfig)?;
        let (played, seen) = (api.clone(), Arc::clone(&state));
        let player = thread::spawn(move || {
            while !seen.stop.load(Ordering::Relaxed) {
                // An object that went in between is seen next time.
                let _ = play(&played, &client, &seen);
                thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(Self { api, dir, kubeconfig, state, player: Mutex::new(Some(player)) })
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs a command of the binary.
    pub(crate) fn run(&self, args: &[&str]) -> Result<Done> {
        let output = Command::new(locate("undermesh")?)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .output()?;
        Ok(Done {
            code: output.status.code().context("ended by a signal")?,
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    pub(crate) fn deny(&self, verb: &str, resource: &str) {
        lock(&self.state.denied).insert((verb.to_owned(), resource.to_owned()));
    }

    pub(crate) fn set_version(&self, minor: &str) {
        *lock(&self.state.version) = Some(minor.to_owned());
    }

    /// From now on, no pod of a set becomes ready.
    pub(crate) fn break_pods(&self) {
        self.state.broken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mend_pods(&self) {
        self.state.broken.store(false, Ordering::Relaxed);
    }

    pub(crate) fn silence_webhook(&self) {
        self.state.webhook_is_silent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn silence(&self, pod: &str) {
        lock(&self.state.silent).insert(pod.to_owned());
    }

    /// Objects stay as they are from now on.
    pub(crate) fn stop_playing(&self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(player) = lock(&self.player).take() {
            let _ = player.join();
        }
    }

    /// Nodes were cleaned, and no agent was there while they were.
    pub(crate) fn cleaned_after_agents(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        is(&self.state.cleaned) && !is(&self.state.agents_beside_cleaning)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop_playing();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// One round of what kubelets and controllers do.
fn play(api: &ApiServer, client: &KubeClient, state: &State) -> Result<()> {
    let broken = state.broken.load(Ordering::Relaxed);
    let set = |kind: &str, name: &str| api.get("apps/v1", kind, NAMESPACE, name);
    let agents = set("DaemonSet", "undermesh-agent");
    let cleaning = set("DaemonSet", "undermesh-cleanup");
    let pods = api.names("v1", "Pod").len();
    if cleaning.is_some() {
        state.cleaned.store(true, Ordering::Relaxed);
        if pods > 0 {
            state.agents_beside_cleaning.store(true, Ordering::Relaxed);
        }
    }
    for set in [&agents, &cleaning].into_iter().flatten() {
        let ready = if broken { 0 } else { NODES.len() };
        write_status(
            client,
            "daemonsets",
            set,
            &json!({
                "observedGeneration": set["metadata"]["generation"],
                "desiredNumberScheduled": NODES.len(), "updatedNumberScheduled": NODES.len(),
                "numberAvailable": ready,
            }),
        )?;
    }
    for node in NODES {
        let name = format!("undermesh-agent-{node}");
        if agents.is_some() {
            api.put(&pod(&name, node, broken))?;
        } else {
            api.delete("v1", "Pod", NAMESPACE, &name);
        }
    }
    if let Some(controller) = set("Deployment", "undermesh-controller") {
        let replicas = &controller["spec"]["replicas"];
        write_status(
            client,
            "deployments",
            &controller,
            &json!({
                "observedGeneration": controller["metadata"]["generation"],
                "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas,
            }),
        )?;
        lead(api)?;
    }
    Ok(())
}

fn write_status(client: &KubeClient, plural: &str, set: &Value, status: &Value) -> Result<()> {
    if set["status"] != *status {
        let name = set["metadata"]["name"].as_str().context("no name")?;
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/{plural}/{name}/status");
        client.send("PATCH", &path, MERGE, &json!({"status": status}))?;
    }
    Ok(())
}

fn pod(name: &str, node: &str, broken: bool) -> Value {
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {
            "app.kubernetes.io/name": "undermesh", "app.kubernetes.io/component": "agent",
        }},
        "spec": {"nodeName": node},
        "status": {
            "conditions": [{"type": "Ready", "status": if broken { "False" } else { "True" }}],
            "containerStatuses": [{"state": if broken { waiting } else { json!({"running": {}}) }}],
        },
    })
}

/// What a controller makes, once.
fn lead(api: &ApiServer) -> Result<()> {
    let there = |kind: &str, name: &str| api.get("v1", kind, NAMESPACE, name).is_some();
    if there("Secret", "undermesh-ca") {
        return Ok(());
    }
    api.put(&json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "undermesh-controller", "namespace": NAMESPACE},
        "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15},
    }))?;
    api.put(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "undermesh-ca-roots", "namespace": NAMESPACE},
    }))?;
    let webhook = api.get(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "",
        "undermesh-controller",
    );
    // It is made last.
    let Some(mut webhook) = webhook else { return Ok(()) };
    webhook["webhooks"][0]["clientConfig"]["caBundle"] = json!("Zm9v");
    api.put(&webhook)?;
    api.put(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "undermesh-ca", "namespace": NAMESPACE},
    }))?;
    Ok(())
}

/// Who answers and judges beside the API server.
struct Others(Arc<State>);

impl Hook for Others {
    fn answer(&self, _: &ApiServer, call: &Call) -> Option<Result<(u16, Value), Refusal>> {
        if call.path == "/version" {
            let minor = lock(&self.0.version).clone()?;
            return Some(Ok((200, json!({"major": "1", "minor": minor}))));
        }
        if call.plural == "selfsubjectaccessreviews" {
            let mut review = call.object().ok()?;
            let asked = &review["spec"]["resourceAttributes"];
            let word = |field: &str| asked[field].as_str().unwrap_or_default().to_owned();
            let denied = lock(&self.0.denied).contains(&(word("verb"), word("resource")));
            review["status"] = json!({"allowed": !denied});
            return Some(Ok((201, review)));
        }
        if call.subresource == "proxy" {
            let (pod, port) = call.name.split_once(':')?;
            if port != "15020" || lock(&self.0.silent).contains(pod) {
                let refusal = Refusal::new(503, "ServiceUnavailable", "connection refused");
                return Some(Err(refusal));
            }
            return Some(Ok((200, json!(metrics()))));
        }
        None
    }

    fn admit(&self, _: &ApiServer, call: &Call, _: &mut Value) -> Result<(), Refusal> {
        let silent = self.0.webhook_is_silent.load(Ordering::Relaxed);
        if call.plural == "ratelimitpolicies" && call.name == "undermesh-check" && !silent {
            let message = "rules[0] has a burst that is saved up for over a year";
            return Err(Refusal::new(403, "Forbidden", message));
        }
        Ok(())
    }
}

fn metrics() -> String {
    "undermesh_build_info{version=\"9.9.9\"} 1\nundermesh_pods{state=\"enrolled\"} 3\n\
     undermesh_pods{state=\"waiting\"} 1\n\
     undermesh_certificate_expires_in_seconds{identity=\"spiffe://a\"} 3600\n\
     undermesh_certificate_expires_in_seconds{identity=\"spiffe://b\"} 600\n\
     undermesh_kubernetes_complete 1\nundermesh_proxy_connections{direction=\"inbound\"} 5\n# EOF\n"
        .to_owned()
}
