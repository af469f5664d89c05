//! What is known of the mesh: the configuration, as each node's agent compiles it, and, of a running agent, what it has
//! found out besides.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use undermesh_model::{Cluster, Generation, NamespacedName, Workload};
use undermesh_proxy::{PodStatus, UpstreamStatus, explain::Present};
use undermesh_snapshot::{Options, Snapshot, WorkloadInfo, compile};

use super::report::Step;

/// The mesh that is asked about.
pub(crate) struct Mesh {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) options: Options,
    pub(crate) generation: Generation,
    /// What the agent of this node has in force; of files, there is none.
    pub(crate) own: Option<Arc<Snapshot>>,
    /// The agent knows only those policies that are about pods of its own node.
    pub(crate) partial: bool,
    /// What pods of this node have found out about destinations.
    pub(crate) pods: Vec<PodStatus>,
    /// What an agent has besides.
    pub(crate) present: Present,
    /// Findings, each with its object as users write it.
    pub(crate) findings: Vec<(String, String)>,
    pub(crate) compiled: RefCell<BTreeMap<String, Arc<Snapshot>>>,
}

impl Mesh {
    /// What the agent of a node has in force; its own where it is the one that is asked. Others compile the same
    /// configuration.
    pub(super) fn snapshot(&self, node: &str) -> Arc<Snapshot> {
        if let Some(own) = self.own.as_ref().filter(|own| own.options.node == node) {
            return Arc::clone(own);
        }
        let mut compiled = self.compiled.borrow_mut();
        let found = compiled.entry(node.to_owned()).or_insert_with(|| {
            let options = Options { node: node.to_owned(), ..self.options.clone() };
            Arc::new(compile(&self.cluster, &options, self.generation).snapshot)
        });
        Arc::clone(found)
    }

    /// Whether it is the agent of this node that is asked.
    pub(super) fn asks(&self, node: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.options.node == node)
    }

    /// Who knows how something stands at a node, where nobody asks there; nothing to say of files.
    pub(super) fn known_at(&self, node: &str) -> String {
        match &self.own {
            Some(own) if own.options.node != node => format!("; the agent of node {node} knows"),
            _ => String::new(),
        }
    }

    /// What the agent that is asked gives up, where it has a part in these steps.
    pub(super) fn overload<'s>(&self, mut steps: impl Iterator<Item = &'s Step>) -> Option<String> {
        let own = agent_of(&self.own.as_ref()?.options.node);
        let sheds = self.present.sheds().filter(|_| steps.any(|step| step.at == own))?;
        Some(format!("{own} is overloaded, and gives up {sheds}"))
    }

    /// Whether all policies about pods of this node are known here.
    pub(super) fn knows_policies_of(&self, node: &str) -> bool {
        !self.partial || node == self.options.node
    }

    /// The pod that a workload of a snapshot is.
    pub(super) fn pod(&self, workload: &WorkloadInfo) -> Option<&Workload> {
        self.cluster.workloads.get(&workload.name)
    }

    /// The pod at an address.
    pub(super) fn pod_at(&self, address: IpAddr) -> Option<&Workload> {
        let mut pods = self.cluster.workloads.values().filter(|pod| !pod.terminated);
        pods.find(|pod| pod.addresses.contains(&address) && !pod.host_network)
    }

    /// What a pod of this node has with a destination that it has used lately.
    pub(super) fn upstream(&self, pod: &NamespacedName, cluster: &str) -> Option<&UpstreamStatus> {
        let pod = self.pods.iter().find(|status| status.pod == *pod)?;
        pod.upstreams.iter().find(|one| one.cluster == cluster)
    }

    /// Endpoints of a destination that a pod leaves out now, and why.
    pub(super) fn ejected(&self, pod: &NamespacedName, cluster: &str) -> Vec<(SocketAddr, String)> {
        let endpoints = self.upstream(pod, cluster).into_iter().flat_map(|it| &it.endpoints);
        let ejected = endpoints.filter_map(|endpoint| {
            let ejected = endpoint.ejected.as_ref()?;
            let left = ejected.seconds_left;
            Some((endpoint.address, format!("ejected, {}, for {left} s more", ejected.cause)))
        });
        ejected.collect()
    }

    /// What was found about any of these objects, or says that one of them has won.
    pub(super) fn findings_about(&self, objects: &BTreeSet<String>) -> Vec<String> {
        let about = |object: &String, text: &String| {
            objects.contains(object)
                || objects.iter().any(|won| text.contains(&format!("{won} wins")))
        };
        let found = self.findings.iter().filter(|(object, text)| about(object, text));
        found.map(|(object, text)| format!("{object}: {text}")).collect()
    }
}

/// How steps name the agent of a node.
pub(super) fn agent_of(node: &str) -> String {
    format!("the agent of node {node}")
}
