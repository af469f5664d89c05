//! Pods of this node, workloads of the whole mesh, and the agent's listeners.

use crate::{Addr, map_type};

/// Flags of [`Pod`].
pub mod pod_flags {
    /// While no listener answers, meshed destinations are dialled directly instead of refused.
    pub const OUTBOUND_FAIL_OPEN: u32 = 1;
    /// Destinations that nobody has registered are refused.
    pub const REGISTRY_ONLY: u32 = 2;
    /// All of them, as people are told them.
    pub const NAMES: [(u32, &str); 2] =
        [(OUTBOUND_FAIL_OPEN, "outbound-fail-open"), (REGISTRY_ONLY, "registry-only")];
}

map_type! {
    /// An enrolled pod of this node. `PODS: netns cookie (u64) -> Pod`.
    pub struct Pod: 40 {
        /// The pod's IPv4 address, or `::`.
        pub addr4: Addr,
        /// The pod's IPv6 address, or `::`.
        pub addr6: Addr,
        /// Port of the agent's outbound listener on the pod's loopback addresses.
        pub outbound_port_be: u16,
        /// Zero.
        pub pad: u16,
        /// See [`pod_flags`].
        pub flags: u32,
    }
}

impl Pod {
    /// The address that connections of this family leave from.
    #[inline(always)]
    pub const fn source_for(&self, destination: &Addr) -> Addr {
        if destination.is_v4() { self.addr4 } else { self.addr6 }
    }

    /// True for the pod's own addresses.
    #[inline(always)]
    pub const fn owns(&self, addr: &Addr) -> bool {
        addr.equals(&self.addr4) || addr.equals(&self.addr6)
    }
}

/// Flags of [`WorkloadEntry`].
pub mod workload_flags {
    /// Runs on this node.
    pub const LOCAL: u32 = 1;
    /// Accepts no plaintext: what is neither the tunnel nor a published local tuple is dropped.
    pub const STRICT: u32 = 2;
    /// Takes plaintext only (`DISABLE`): clients of other nodes dial it as if it were outside the
    /// mesh.
    pub const PLAIN: u32 = 4;
    /// Its policy looks at source addresses: sources are classed by address as well, and plaintext
    /// is judged by the agent.
    pub const BY_ADDRESS: u32 = 8;
    /// Its agent speaks the native wire: what comes from it may be a tunnel, at any port.
    pub const NATIVE: u32 = 16;
    /// All of them, as people are told them.
    pub const NAMES: [(u32, &str); 5] = [
        (LOCAL, "local"),
        (STRICT, "strict"),
        (PLAIN, "plain"),
        (BY_ADDRESS, "by-address"),
        (NATIVE, "native"),
    ];
}

map_type! {
    /// A meshed workload, on this or another node. `WORKLOADS: Addr -> WorkloadEntry`.
    pub struct WorkloadEntry: 32 {
        /// See [`workload_flags`].
        pub flags: u32,
        /// Zero.
        pub pad: u32,
        /// Which answers of `POLICY` say who may reach it; 0 where nothing needs to be asked.
        pub policy: u64,
        /// Its class as a source, by identity; 0 for workloads of other nodes.
        pub class: u64,
        /// Its class as a source, by identity and this very address.
        pub address_class: u64,
    }
}

impl WorkloadEntry {
    /// True where `flag` is set.
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

map_type! {
    /// A port of a pod of this node, at one of its addresses.
    /// `LISTENING: PortKey -> u64`: an application listens there; since when (`CLOCK_MONOTONIC`,
    /// nanoseconds), 0 where it did before anybody looked. `PROBE_PORTS: PortKey -> u32`: the kubelet
    /// has been asked to probe it; the value means nothing.
    pub struct PortKey: 20 {
        /// The pod's address, also where the application listens at all of them.
        pub addr: Addr,
        /// The port.
        pub port_be: u16,
        /// Zero.
        pub pad: u16,
    }
}

impl PortKey {
    /// A port at an address.
    #[inline(always)]
    pub const fn new(addr: &Addr, port_be: u16) -> Self {
        Self { addr: *addr, port_be, pad: 0 }
    }
}

/// Which of the agent's listeners a [`ListenerKey`] names.
pub mod listener_kind {
    /// For whatever arrives from outside the pod: tunnels, and what the agent has to judge. The
    /// accepted socket's own port tells which.
    pub const INBOUND: u32 = 1;
}

map_type! {
    /// `LISTENERS: ListenerKey -> socket` (a sockhash; the kernel removes a socket that closes).
    pub struct ListenerKey: 20 {
        /// The pod's address.
        pub addr: Addr,
        /// See [`listener_kind`].
        pub kind: u32,
    }
}
