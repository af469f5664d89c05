//! The desired content of the BPF maps.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use undermesh_ebpf_common::{
    Addr, Backend, BackendKey, Block, BlockKey, PolicyKey, PolicyVerdict, PortKey, Service,
    ServiceKey, WorkloadEntry,
};

/// What the maps should hold that follow from configuration. Pods and listeners depend on what runs
/// on the node and are added by whoever opens them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatapathTables {
    /// `SERVICES`.
    pub services: BTreeMap<ServiceKey, Service>,
    /// `BACKENDS`.
    pub backends: BTreeMap<BackendKey, Backend>,
    /// `BLOCKS`, with the length of the prefix in bits.
    pub blocks: BTreeMap<(u32, BlockKey), Block>,
    /// `WORKLOADS`.
    pub workloads: BTreeMap<Addr, WorkloadEntry>,
    /// `POLICY`.
    pub policy: BTreeMap<PolicyKey, PolicyVerdict>,
    /// `PROBE_PORTS`.
    pub probe_ports: BTreeMap<PortKey, u32>,
    /// `Settings::strict_unknown`: a pod of this node is STRICT or has a policy.
    pub strict_unknown: bool,
}

/// An address as the maps keep it.
pub fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(v4) => Addr::v4(v4.octets()),
        IpAddr::V6(v6) => Addr::v6(v6.octets()),
    }
}

/// An address of a map as the standard library writes it.
pub fn ip(addr: Addr) -> IpAddr {
    Ipv6Addr::from(addr.octets()).to_canonical()
}

/// An address and a port of a map as the standard library writes them.
pub fn socket(addr: Addr, port_be: u16) -> SocketAddr {
    SocketAddr::new(ip(addr), u16::from_be(port_be))
}
