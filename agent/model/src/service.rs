//! Services and the endpoints behind them.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use crate::{NamespacedName, ResourceRef};

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// The only one that the mesh carries.
    #[default]
    Tcp,
    /// Left untouched.
    Udp,
    /// Left untouched.
    Sctp,
}

/// A Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The Service object it comes from.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// Virtual addresses, none for a headless service.
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`: clients dial pod addresses.
    pub headless: bool,
    /// The ports it offers.
    pub ports: Vec<ServicePort>,
    /// The pods it selects; empty when its endpoints are written by hand.
    pub selector: BTreeMap<String, String>,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `sessionAffinity: ClientIP`: a client keeps its endpoint.
    pub affinity: bool,
    /// Which endpoints a client may be led to, by where they are.
    pub distribution: Distribution,
    /// Annotation `undermesh.io/l7: "true"`: the proxy looks at its connections even where no rule
    /// asks for it.
    pub l7: bool,
}

/// A Service of type ExternalName: another name for a host. Clients never dial it itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalName {
    /// The Service object it comes from.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// The host, in lower case and without a dot at its end.
    pub host: String,
    /// The ports it offers.
    pub ports: Vec<ServicePort>,
}

/// Which endpoints of a service a client is led to, by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Distribution {
    /// All of them.
    #[default]
    Anywhere,
    /// `internalTrafficPolicy: Local`: those of the client's node, and no others.
    OnlySameNode,
    /// `trafficDistribution: PreferSameNode`: those of the client's node, if there is one, else
    /// those of its zone, else all.
    PreferSameNode,
    /// `trafficDistribution: PreferClose` or `PreferSameZone`: those of the client's zone, if
    /// there is one, else all.
    PreferSameZone,
}

/// One port of a [`Service`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Unique in the service; may be empty when it is the only port.
    pub name: String,
    /// The port that clients dial.
    pub port: u16,
    /// Where it leads in the pod.
    pub target_port: TargetPort,
    /// Transport protocol.
    pub protocol: Protocol,
    /// `appProtocol`, where given.
    pub app_protocol: Option<String>,
}

/// `targetPort`: a number, or the name of a container's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A port number.
    Number(u16),
    /// A container port's name, resolved pod by pod.
    Name(String),
}

/// An EndpointSlice: some of the addresses behind one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The EndpointSlice object (or the Service, where the source derived it from the selector).
    pub origin: ResourceRef,
    /// The service it belongs to (label `kubernetes.io/service-name`).
    pub service: NamespacedName,
    /// Ports that every endpoint of the slice serves.
    pub ports: Vec<EndpointPort>,
    /// The addresses.
    pub endpoints: Vec<Endpoint>,
}

/// A port of an [`EndpointSlice`], matched to a [`ServicePort`] by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name of the service port that it implements.
    pub name: String,
    /// The port on the endpoint.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// One address behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address to dial.
    pub address: IpAddr,
    /// Takes new connections (Kubernetes treats an unset condition as ready).
    pub ready: bool,
    /// Is going away but still answers: used where no endpoint is ready.
    pub draining: bool,
    /// The pod behind the address, where the slice names one.
    pub pod: Option<NamespacedName>,
    /// The node it runs on, where the slice names one.
    pub node: Option<String>,
}
