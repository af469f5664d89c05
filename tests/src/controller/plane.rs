//! An API server and what a mesh has in it, for controllers to run before.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Controller,
    certificates::{Question, replace_file},
};
use crate::{
    apiserver::{ApiServer, Bearer, Options},
    netns::Netns,
    pod::Pod,
    poll::wait_for,
    rig::Rig,
    topology::Node,
};

const NAMESPACE: &str = "undermesh-system";
/// What controllers of a plane are called in their certificates.
pub const NAME: &str = "undermesh-controller.undermesh-system.svc";
/// Where the server of a rig listens.
const PORT: u16 = 26443;
/// The id of a container, as long as those of runtimes.
const CONTAINER: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
const WITHIN: Duration = Duration::from_secs(30);

/// An API server with nodes, pods, and accounts. Its directory goes with it.
#[derive(Debug)]
pub struct Plane {
    /// The server.
    pub api: ApiServer,
    host: String,
    dir: PathBuf,
    netns: Option<Netns>,
}

impl Plane {
    /// A server at loopback.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("um-plane-{}-{id}", std::process::id()));
        Self::within(&dir, Options::default(), None)
    }

    /// A server with its files in `dir`, in a namespace if one is given.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn within(dir: &Path, options: Options, netns: Option<&Netns>) -> Result<Self> {
        let host = options.address.ip().to_string();
        let api = ApiServer::start(&dir.join("api"), options, netns)?;
        api.put(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
        }))?;
        Ok(Self { api, host, dir: dir.to_owned(), netns: netns.cloned() })
    }

    /// A server on node a of a rig, within reach of all.
    ///
    /// # Errors
    /// As [`Self::within`].
    pub fn of(rig: &Rig) -> Result<Self> {
        let node = rig.node("a")?;
        let options = Options {
            address: (node.addresses[0], PORT).into(),
            addresses: vec![node.addresses[0]],
            ..Options::default()
        };
        Self::within(&rig.footprint().dir().join("plane"), options, Some(&node.netns))
    }

    /// The same, with every object that the rig has as a manifest.
    ///
    /// # Errors
    /// As [`Self::of`], and where the server does not take one.
    pub fn with_manifests(rig: &Rig) -> Result<Self> {
        let plane = Self::of(rig)?;
        for entry in fs::read_dir(rig.footprint().dir().join("manifests"))? {
            plane.api.put_yaml(&fs::read_to_string(entry?.path())?)?;
        }
        Ok(plane)
    }

    /// Runs a container of one of its pods, in a cgroup as a kubelet makes it.
    ///
    /// # Errors
    /// Where there is no such pod, or it cannot be started.
    pub fn run(&self, rig: &Rig, pod: &str) -> Result<Pod> {
        let object = self.api.get("v1", "Pod", "shop", pod).context("no such pod")?;
        let uid = object["metadata"]["uid"].as_str().context("it has no uid")?;
        let pods = rig.node(&rig.place(pod)?.node)?.cgroup.join("pods");
        rig.pod_in(pod, &pods.join(format!("besteffort/pod{uid}/{CONTAINER}")))
    }

    /// Where files are that belong to it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a replica of the controller before it; does not wait for it.
    ///
    /// # Errors
    /// As [`Controller::start`].
    pub fn controller(&self, name: &str, settings: &[(&str, &str)]) -> Result<Controller> {
        let config = self.api.kubeconfig(name, &self.host, self.api.token())?;
        let config = config.display().to_string();
        let all = [&[("kubeconfig", config.as_str())], settings].concat();
        Controller::start(&self.dir, name, &all, self.netns.as_ref())
    }

    /// Puts a pod there that runs on a node, and returns its UID.
    ///
    /// # Errors
    /// Where the server does not take it.
    pub fn pod(&self, namespace: &str, name: &str, account: &str, node: &str) -> Result<String> {
        let stored = self.api.put(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"nodeName": node, "serviceAccountName": account, "containers": []},
            "status": {"phase": "Running"},
        }))?;
        Ok(stored["metadata"]["uid"].as_str().context("a pod without UID")?.to_owned())
    }

    /// Puts the agent of a node there, and returns the token that it shows to the controller.
    ///
    /// # Errors
    /// As [`Self::pod`].
    pub fn agent(&self, node: &str) -> Result<String> {
        let name = format!("undermesh-agent-{node}");
        let uid = self.pod(NAMESPACE, &name, "undermesh-agent", node)?;
        Ok(self.api.issue(Bearer {
            pod: Some((name, uid)),
            node: Some(node.to_owned()),
            ..Bearer::account(NAMESPACE, "undermesh-agent", &["undermesh-ca"])
        }))
    }

    /// Has the agent of a node ask a controller at `address` for its certificates, from its next start.
    ///
    /// # Errors
    /// As [`Self::agent`], and where there are no roots yet.
    pub fn certify(&self, node: &mut Node, address: SocketAddr, lifetime: &str) -> Result<()> {
        let [roots, token] = ["roots.pem".to_owned(), format!("token-{}", node.name)]
            .map(|name| self.dir.join(name));
        replace_file(&roots, &self.roots()?)?;
        replace_file(&token, &self.agent(&node.name)?)?;
        node.settings.remove("caDir");
        for (key, value) in [
            ("caAddress", format!("https://{address}")),
            ("caName", NAME.to_owned()),
            ("caRoots", roots.display().to_string()),
            ("caToken", token.display().to_string()),
            ("svidLifetime", lifetime.to_owned()),
        ] {
            node.settings.set(key, &value);
        }
        Ok(())
    }

    /// The roots, as the controller tells them to agents. Waits until it does.
    ///
    /// # Errors
    /// When there are none in time.
    pub fn roots(&self) -> Result<String> {
        wait_for("the roots to be told", WITHIN, || {
            let map = self.api.get("v1", "ConfigMap", NAMESPACE, "undermesh-ca-roots");
            Ok(map.and_then(|map| Some(map["data"]["root-cert.pem"].as_str()?.to_owned())))
        })
    }

    /// The Secret of the authority, as far as it is there.
    pub fn secret(&self) -> Option<Value> {
        self.api.get("v1", "Secret", NAMESPACE, "undermesh-ca")
    }

    /// Who holds the lease, as the API server has it; empty if nobody does.
    pub fn leader(&self) -> String {
        let lease =
            self.api.get("coordination.k8s.io/v1", "Lease", NAMESPACE, "undermesh-controller");
        let holder = lease.as_ref().and_then(|it| it["spec"]["holderIdentity"].as_str());
        holder.unwrap_or_default().to_owned()
    }

    /// A question to a controller about who asks with a token.
    ///
    /// # Errors
    /// Where the controller does not listen.
    pub fn question<'a>(
        &self,
        controller: &Controller,
        roots: &'a str,
        token: &'a str,
    ) -> Result<Question<'a>> {
        Ok(Question::new(controller.address("grpcAddress")?, NAME, roots, token))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
