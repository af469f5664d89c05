//! A workload as the data plane needs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::Serialize;
use undermesh_model::{
    FailMode, NamespacedName, PodLocation, ResourceRef, SourceAddress, SpiffeId, Wire,
};

use crate::MtlsModes;

/// An enrolled workload, of this or of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadInfo {
    /// The Pod object.
    pub origin: ResourceRef,
    /// Namespace and pod name.
    pub name: NamespacedName,
    /// Who it is on the wire.
    pub identity: SpiffeId,
    /// The node it runs on.
    pub node: String,
    /// It runs on this agent's node.
    pub local: bool,
    /// Pods of this node reach it inside the kernel.
    pub direct: bool,
    /// What becomes of its meshed connections while the agent is down.
    pub outbound_failure: FailMode,
    /// Where connections come from that the agent delivers to it.
    pub source_address: SourceAddress,
    /// What its agent speaks to others; native only where both ends do.
    pub wire: Wire,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Where it runs, for local workloads.
    pub location: Option<PodLocation>,
    /// Its share of a service's connections, relative to the other endpoints.
    pub weight: u32,
    /// Ports that the kubelet probes, for local workloads.
    pub probe_ports: BTreeSet<u16>,
    /// What it accepts.
    pub mtls: MtlsModes,
    /// The pod's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Owner's name (Deployment and the like), for metrics.
    pub workload_name: String,
    /// Istio's canonical service, for metrics.
    pub canonical_service: String,
    /// Istio's canonical revision, for metrics.
    pub canonical_revision: String,
    /// Label `app`, for metrics; empty where unset.
    pub app: String,
    /// Label `version`, for metrics; empty where unset.
    pub version: String,
    /// Cluster name, for metrics.
    pub cluster: String,
}

/// Where a pod of this node runs. Unlike a [`WorkloadInfo`], it is there before the pod has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPlace {
    /// Namespace and pod name.
    pub name: NamespacedName,
    /// Where to find it.
    pub location: PodLocation,
    /// It is to be in the mesh.
    pub enrolled: bool,
}
