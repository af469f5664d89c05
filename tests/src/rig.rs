//! The rig: built, used, and gone without a trace.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};

use crate::{
    agent::Agent,
    capture::Capture,
    cgroup,
    footprint::Footprint,
    guard::Site,
    manifest::{Manifests, Placement, PodSpec, ServiceSpec},
    netns::Netns,
    pod::{PATIENCE, Pod, protocol::FirstAct},
    poll::wait_for,
    programs::locate,
    topology::{self, Family, Node, PodPlace},
};

/// Tells the rigs of one process apart.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Says what a rig consists of.
#[derive(Debug, Default)]
pub struct RigBuilder {
    tag: Option<String>,
    nodes: Vec<(String, Vec<PodSpec>)>,
    services: Vec<ServiceSpec>,
}

impl RigBuilder {
    /// Sets the tag, for a rig that other processes will look for. Without one, a rig gets a tag
    /// that no other rig has.
    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag.to_owned());
        self
    }

    /// Adds a node with its pods.
    #[must_use]
    pub fn node(mut self, name: &str, pods: impl IntoIterator<Item = PodSpec>) -> Self {
        self.nodes.push((name.to_owned(), pods.into_iter().collect()));
        self
    }

    /// Adds a service.
    #[must_use]
    pub fn service(mut self, service: ServiceSpec) -> Self {
        self.services.push(service);
        self
    }

    /// Builds namespaces, links, cgroups and manifests. No agent runs yet, and there is no
    /// certificate authority: see [`Rig::init_ca`] and [`Rig::start_agents`].
    ///
    /// # Errors
    /// Where a step fails, for example without root; what has been built is removed again.
    pub fn build(self) -> Result<Rig> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a rig needs root: it makes network namespaces, cgroups and mounts"
        );
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let tag = self.tag.unwrap_or_else(|| format!("t{}x{serial}", process::id()));
        let site = Site::claim(&tag)?;
        let (wire, nodes, pods) = topology::build(&site.footprint, &self.nodes)?;
        let mut manifests = Manifests::create(&site.footprint.dir().join("manifests"), &nodes)?;
        for place in &pods {
            manifests.pod(place, place.spec.placement)?;
        }
        for service in &self.services {
            manifests.service(service, &pods)?;
        }
        Ok(Rig { nodes, pods, manifests, wire, site })
    }
}

/// Nodes, pods and agents. Dropping it ends and removes all of them.
#[derive(Debug)]
pub struct Rig {
    // Dropped in this order: agents end before their namespaces go.
    nodes: Vec<Node>,
    pods: Vec<PodPlace>,
    /// The manifest directory that all agents read.
    pub manifests: Manifests,
    wire: Netns,
    site: Site,
}

impl Rig {
    /// Starts to describe a rig.
    pub fn builder() -> RigBuilder {
        RigBuilder::default()
    }

    /// Removes rigs whose tag starts with `prefix` and whose owner no longer runs.
    ///
    /// # Errors
    /// Where one cannot be removed.
    pub fn cleanup_stale(prefix: &str) -> Result<()> {
        Footprint::stale(prefix)?.iter().try_for_each(Footprint::remove)
    }

    /// Where the certificate authority is.
    pub fn ca_dir(&self) -> PathBuf {
        self.site.footprint.dir().join("ca")
    }

    /// Makes the certificate authority that the agents' `caDir` names.
    ///
    /// # Errors
    /// Where `undermesh ca init` fails.
    pub fn init_ca(&self) -> Result<()> {
        let dir = self.ca_dir();
        undermesh(["ca".as_ref(), "init".as_ref(), "--dir".as_ref(), dir.as_os_str()])?;
        Ok(())
    }

    /// Makes the certificate authority, starts the agents of all nodes, and waits until they are
    /// ready and the pods enrolled.
    ///
    /// # Errors
    /// Where one does not get ready; the error ends with its log.
    pub fn start(&mut self) -> Result<()> {
        self.init_ca()?;
        self.start_agents()
    }

    /// Starts the agents that do not run, and waits until all are ready and their pods enrolled.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_agents(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.agent.is_none()) {
            node.agent = Some(Agent::start(node)?);
        }
        for node in &mut self.nodes {
            let agent = node.agent.as_mut().context("no agent has been started")?;
            agent.wait_ready()?;
            let wanted = |place: &&PodPlace| {
                place.node == node.name && place.spec.placement == Placement::Enrolled
            };
            for place in self.pods.iter().filter(wanted) {
                agent.wait_enrolled(&place.spec.name)?;
            }
        }
        Ok(())
    }

    /// A node.
    ///
    /// # Errors
    /// Where there is none of this name; so for everything else that is asked for by name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("no node {name} in this rig"))
    }

    /// A node, to change its settings or its agent.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.with_context(|| format!("no node {name} in this rig"))
    }

    /// The agent of a node.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn agent(&self, node: &str) -> Result<&Agent> {
        let agent = self.node(node)?.agent.as_ref();
        agent.with_context(|| format!("no agent runs on node {node}"))
    }

    /// Takes the agent of a node, to stop or kill it.
    ///
    /// # Errors
    /// As [`Self::agent`].
    pub fn take_agent(&mut self, node: &str) -> Result<Agent> {
        let agent = self.node_mut(node)?.agent.take();
        agent.with_context(|| format!("no agent runs on node {node}"))
    }

    /// A pod's place.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub fn place(&self, pod: &str) -> Result<&PodPlace> {
        let found = self.pods.iter().find(|place| place.spec.name == pod);
        found.with_context(|| format!("no pod {pod} in this rig"))
    }

    /// Starts a process inside a pod, to be driven by the caller. A pod may have several.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        Pod::start(self.place(name)?)
    }

    /// The same in another cgroup, which is made where it is missing.
    ///
    /// # Errors
    /// As [`Self::pod`].
    pub fn pod_in(&self, name: &str, cgroup: &Path) -> Result<Pod> {
        Pod::start_in(name, &self.place(name)?.netns, cgroup)
    }

    /// Starts a process on a node, outside its pods, to be driven by the caller. It runs in the
    /// cgroup `group` of the node, which is made where it is missing.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub fn process_on(&self, node: &str, group: &str) -> Result<Pod> {
        let node = self.node(node)?;
        let cgroup = node.cgroup.join(group);
        fs::create_dir_all(&cgroup)?;
        Pod::start_in(&format!("{}/{group}", node.name), &node.netns, &cgroup)
    }

    /// Runs a process in a pod whose very first act is to connect, to its end. The pod's cgroup is made
    /// only then, where it is missing.
    ///
    /// # Errors
    /// Where the process never gets through.
    pub fn first_act(&self, pod: &str, to: SocketAddr, mark: &str) -> Result<FirstAct> {
        let place = self.place(pod)?;
        self.first_act_in(&place.netns, &place.cgroup, to, mark)
    }

    /// The same in any namespace and cgroup.
    ///
    /// # Errors
    /// As [`Self::first_act`].
    pub fn first_act_in(
        &self,
        netns: &Netns,
        cgroup: &Path,
        to: SocketAddr,
        mark: &str,
    ) -> Result<FirstAct> {
        let output = Command::new(locate("undermesh-pod")?)
            .arg("--netns")
            .arg(netns.path())
            .arg("--cgroup")
            .arg(cgroup)
            .args(["first", &to.to_string(), mark])
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "it never got through: {}", complaint.trim());
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// A command line that runs inside a pod, to which the program and its arguments are added.
    ///
    /// # Errors
    /// Where the pod tool is not built.
    pub fn command_in(&self, pod: &str) -> Result<Command> {
        let place = self.place(pod)?;
        let mut command = Command::new(locate("undermesh-pod")?);
        command.arg("--netns").arg(place.netns.path());
        command.arg("--cgroup").arg(&place.cgroup);
        command.args(["exec", "--"]);
        Ok(command)
    }

    /// A command line that runs on a node, outside its pods, to which the program and its arguments
    /// are added.
    ///
    /// # Errors
    /// As [`Self::command_in`].
    pub fn command_on(&self, node: &str) -> Result<Command> {
        let mut command = Command::new(locate("undermesh-pod")?);
        command.arg("--netns").arg(self.node(node)?.netns.path());
        command.args(["exec", "--"]);
        Ok(command)
    }

    /// `undermesh` beside the agent of a node, whose arguments are added.
    ///
    /// # Errors
    /// As [`Self::command_on`], and where it is not built.
    pub fn undermesh_on(&self, node: &str) -> Result<Command> {
        let mut command = self.command_on(node)?;
        command.arg(locate("undermesh")?);
        Ok(command)
    }

    /// A port of a pod's IPv4 address.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub fn at(&self, pod: &str, port: u16) -> Result<SocketAddr> {
        Ok(self.place(pod)?.at(Family::V4, port))
    }

    /// A port of a pod's IPv6 address.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub fn at6(&self, pod: &str, port: u16) -> Result<SocketAddr> {
        Ok(self.place(pod)?.at(Family::V6, port))
    }

    /// A port of a service's IPv4 address.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub fn vip(&self, service: &str, port: u16) -> Result<SocketAddr> {
        self.manifests.vip(service, Family::V4, port)
    }

    /// A port of a service's IPv6 address.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub fn vip6(&self, service: &str, port: u16) -> Result<SocketAddr> {
        self.manifests.vip(service, Family::V6, port)
    }

    /// Changes what the manifests say about a pod. Agents notice by themselves.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn set_placement(&self, pod: &str, placement: Placement) -> Result<()> {
        self.manifests.pod(self.place(pod)?, placement)
    }

    /// Writes a service, new or changed.
    ///
    /// # Errors
    /// Where a backend is not a pod of this rig.
    pub fn set_service(&mut self, service: &ServiceSpec) -> Result<()> {
        self.manifests.service(service, &self.pods)
    }

    /// Replaces a pod's namespace by a new one with the same name and addresses. The caller has
    /// ended the pod's processes.
    ///
    /// # Errors
    /// Where somebody holds on to the old namespace.
    pub fn replace_namespace(&self, pod: &str) -> Result<()> {
        let place = self.place(pod)?;
        topology::replace(self.node(&place.node)?, place)
    }

    /// Ends what runs in a pod's cgroup and removes it, as happens when a pod goes.
    ///
    /// # Errors
    /// Where something cannot be ended.
    pub fn remove_cgroup(&self, pod: &str) -> Result<()> {
        let cgroup = &self.place(pod)?.cgroup;
        cgroup::kill_all(cgroup)?;
        cgroup::remove(cgroup)
    }

    /// Writes a manifest and waits until all running agents say that a configuration is in force
    /// that was not before.
    ///
    /// # Errors
    /// Where one rejects it, or does not notice.
    pub fn apply(&self, name: &str, yaml: &str) -> Result<()> {
        self.say(name, yaml, &["configuration in force"])?;
        Ok(())
    }

    /// Writes a manifest, waits until all running agents have judged it, and returns what the first
    /// one has said about it.
    ///
    /// # Errors
    /// Where one does not notice.
    pub fn submit(&self, name: &str, yaml: &str) -> Result<String> {
        self.say(name, yaml, &["configuration in force", "configuration rejected"])
    }

    /// Writes a manifest and waits until all running agents have logged one of `words`; returns what the
    /// first one has logged.
    fn say(&self, name: &str, yaml: &str, words: &[&str]) -> Result<String> {
        let agents: Vec<&Agent> =
            self.nodes.iter().filter_map(|node| node.agent.as_ref()).collect();
        let before: Vec<usize> = agents.iter().map(|agent| agent.log().len()).collect();
        let since =
            |agent: &Agent, before: usize| agent.log().get(before..).unwrap_or_default().to_owned();
        self.manifests.write(name, yaml)?;
        let mut logs = Vec::new();
        let waited = wait_for("the manifest to be judged", PATIENCE, || {
            logs = agents.iter().zip(&before).map(|(agent, at)| since(agent, *at)).collect();
            let judged = |log: &String| words.iter().any(|word| log.contains(word));
            Ok(logs.iter().all(judged).then_some(()))
        });
        waited.with_context(|| format!("the agents have logged {logs:?}"))?;
        Ok(logs.into_iter().next().unwrap_or_default())
    }

    /// Starts to listen to what crosses from node to node.
    ///
    /// # Errors
    /// Where packet sockets are not allowed.
    pub fn capture(&self) -> Result<Capture> {
        Capture::start(&self.wire)
    }

    /// Names and paths of everything.
    pub fn footprint(&self) -> &Footprint {
        &self.site.footprint
    }

    /// Leaves everything in place, agents running; `Footprint::remove` ends it later. Returns what
    /// there is.
    pub fn keep(self) -> BTreeSet<String> {
        let left = self.site.footprint.leftovers();
        for agent in self.nodes.into_iter().filter_map(|node| node.agent) {
            // Without running its destructor, which would kill it.
            std::mem::forget(agent);
        }
        self.site.keep();
        left
    }
}

/// Runs `undermesh` to its end and returns what it prints.
///
/// # Errors
/// Where it fails; the error quotes what it says.
pub fn undermesh<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Result<String> {
    let output = Command::new(locate("undermesh")?).args(args).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "undermesh failed ({}): {}", output.status, complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
