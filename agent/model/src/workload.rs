//! A workload: one pod, or what a manifest directory describes as one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use serde::Serialize;

use crate::{NamespacedName, ResourceRef};

/// A pod as the mesh sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The Pod object it comes from.
    pub origin: ResourceRef,
    /// Namespace and pod name.
    pub name: NamespacedName,
    /// Service account, `default` where the object names none.
    pub service_account: String,
    /// The node it is scheduled to; `None` while it is pending.
    pub node: Option<String>,
    /// Pod addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The object's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the pod is part of the mesh, and what decided it.
    pub enrolment: Enrolment,
    /// Where the pod runs; `None` where the source leaves it to be discovered.
    pub location: Option<PodLocation>,
    /// What becomes of its meshed connections while the agent is down; `None` leaves it to the node.
    pub outbound_failure: Option<FailMode>,
    /// Where connections come from that the agent delivers to it; `None` leaves it to the node.
    pub source_address: Option<SourceAddress>,
    /// Its share of a service's connections, relative to the other endpoints; at least 1.
    pub weight: u32,
    /// TCP ports that the kubelet has been asked to probe (or to call at start and stop).
    pub probe_ports: BTreeSet<u16>,
    /// What its agent speaks to others.
    pub wire: Wire,
    /// The pod lives in its node's network namespace.
    pub host_network: bool,
    /// The pod has finished (`Succeeded`, `Failed`): its address may already belong to another.
    pub terminated: bool,
    /// Name of the Deployment, StatefulSet or other owner; the pod's own name where there is none.
    pub workload_name: String,
}

impl Workload {
    /// Istio's canonical service: the first of its two labels, `app`, or the workload's name.
    ///
    /// Source: Istio, `pkg/model/labels.go`, `CanonicalServiceAndRevision`.
    pub fn canonical_service(&self) -> &str {
        ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]
            .iter()
            .find_map(|label| self.labels.get(*label))
            .map_or(self.workload_name.as_str(), String::as_str)
    }

    /// Istio's canonical revision, `latest` where no label names one.
    pub fn canonical_revision(&self) -> &str {
        ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]
            .iter()
            .find_map(|label| self.labels.get(*label))
            .map_or("latest", String::as_str)
    }
}

/// Whether a workload is in the mesh, and because of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "because")]
pub enum Enrolment {
    /// Enrolled; the text names the deciding label and object.
    Enrolled(String),
    /// Not enrolled; the text says why.
    NotEnrolled(String),
    /// It is to be enrolled and cannot be; the text says why.
    Impossible(String),
}

impl Enrolment {
    /// True for [`Enrolment::Enrolled`].
    pub fn is_enrolled(&self) -> bool {
        matches!(self, Self::Enrolled(_))
    }
}

/// How the agent finds a pod's network namespace on its own node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PodLocation {
    /// A named network namespace, `/run/netns/cart-0` for example.
    Netns(PathBuf),
    /// A cgroup whose processes run in the pod's network namespace; a relative path starts at
    /// the cgroup2 mount.
    Cgroup(PathBuf),
    /// The cgroup that the kubelet makes for the pod of this uid, wherever that is.
    Uid(String),
}

/// What becomes of traffic that should pass the agent while the agent does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// Refused with ECONNREFUSED.
    #[default]
    Closed,
    /// Dialled directly, without the mesh.
    Open,
}

/// Where connections come from that the agent delivers to an application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceAddress {
    /// From a loopback address; `accept` and `getpeername` show the client all the same.
    #[default]
    Translated,
    /// From the client's own address, for everything that looks at packets or at the kernel's
    /// tables.
    Transparent,
}

/// What two agents speak to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// `undermesh/1`, to the pod's own port: one connection of an application at a time.
    #[default]
    Native,
    /// HTTP/2 CONNECT on a port of its own, as Istio's ambient mode has it.
    Hbone,
}

impl Wire {
    /// As annotations, labels and logs say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Hbone => "hbone",
        }
    }
}
