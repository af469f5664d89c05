//! Hosts that are no Kubernetes Service, and endpoints that are no pods.
//!
//! Source: Istio `networking/v1/service_entry.proto`, `workload_entry.proto`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Locality, Scope};
use crate::{NamespacedName, ResourceRef};

/// One ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// `creationTimestamp`, in seconds since 1970; 0 where there is none.
    pub created: i64,
    /// DNS names in lower case: full, or `*.` and a name.
    pub hosts: Vec<String>,
    /// Virtual addresses and blocks.
    pub addresses: Vec<IpNet>,
    /// The ports.
    pub ports: Vec<EntryPort>,
    /// Inside or outside the mesh.
    pub location: EntryLocation,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Its endpoints; with DNS and none given, the hosts themselves.
    pub endpoints: Vec<EntryEndpoint>,
    /// Labels of the pods and WorkloadEntries of its namespace that are its endpoints; where there are
    /// none of them, all are.
    pub selector: Option<BTreeMap<String, String>>,
    /// Names of which the server's certificate has to have one.
    pub subject_alt_names: BTreeSet<String>,
    /// Clients that it is for.
    pub scope: Scope,
}

/// A port of a [`ServiceEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPort {
    /// The port that clients dial.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP`, `TLS`, in upper case.
    pub protocol: String,
    /// The port of endpoints that have none for the name.
    pub target: Option<u16>,
}

/// Inside or outside the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryLocation {
    /// Outside: no mTLS of ours.
    #[default]
    External,
    /// Inside.
    Internal,
}

/// How endpoints are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// The address that the client dialled.
    #[default]
    None,
    /// The endpoints' addresses.
    Static,
    /// DNS, all addresses of an answer.
    Dns,
    /// DNS, one address at a time.
    DnsRoundRobin,
    /// DNS, all addresses of the name that the client asks for.
    DynamicDns,
}

/// An endpoint of a [`ServiceEntry`], or a [`WorkloadEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEndpoint {
    /// Where it is.
    pub address: EntryAddress,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The network it is in; empty for ours.
    pub network: String,
    /// Where it is.
    pub locality: Locality,
    /// Its share; 0 and 1 are the same.
    pub weight: u32,
    /// Whom it proves to be.
    pub service_account: Option<String>,
}

/// An address, or a name that stands for some.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntryAddress {
    /// An address.
    Ip(IpAddr),
    /// A DNS name.
    Host(String),
}

/// A WorkloadEntry: an endpoint with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// What it is.
    pub endpoint: EntryEndpoint,
}
