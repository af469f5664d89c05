//! What is remembered about a single connection.

use crate::{Addr, map_type};

/// Flags of [`ConnMeta`].
pub mod conn_flags {
    /// Rewritten to the agent's listener; sockops publishes [`super::OriginalDst`].
    pub const PROXIED: u32 = 1;
    /// Rewritten to, or found to lead to, a pod of this node; sockops publishes the
    /// [`super::LocalTuple`].
    pub const LOCAL: u32 = 2;
    /// A connection of the kubelet to a pod of this node; sockops publishes the
    /// [`super::LocalTuple`] under [`super::KUBELET`].
    pub const PROBE: u32 = 8;
}

map_type! {
    /// Kept in socket storage from `connect` to close. `CONN_META: sk_storage -> ConnMeta`.
    pub struct ConnMeta: 56 {
        /// The client pod. Kept here because sockops cannot ask for it before Linux 5.15.
        pub netns_cookie: u64,
        /// When the connection was opened (`CLOCK_MONOTONIC`, nanoseconds); local ones only.
        pub opened_ns: u64,
        /// The peer to show to the application: the destination that it dialled, or, where the agent
        /// has delivered the connection, the client.
        pub original: Addr,
        /// The peer that the socket really has.
        pub backend: Addr,
        /// Port of `original`.
        pub original_port_be: u16,
        /// Port of `backend`.
        pub backend_port_be: u16,
        /// See [`conn_flags`].
        pub flags: u32,
    }
}

map_type! {
    /// A socket of the agent, marked from user space: never intercepted. Such a mark can neither be
    /// forged by a pod nor be shared by a process that happens to run in the agent's cgroup.
    /// `AGENT_SOCKETS: sk_storage -> AgentSocket`.
    ///
    /// All ABI versions share this map, so that the programs of one know the agent of another:
    /// what is here never changes.
    pub struct AgentSocket: 24 {
        /// The client for whom the agent delivers this connection, or `::`.
        pub client: Addr,
        /// The client's port.
        pub client_port_be: u16,
        /// Zero.
        pub pad: [u8; 6],
    }
}

map_type! {
    /// A proxied connection as the agent's listener sees it.
    /// `ORIGINAL_DST: OriginalDstKey -> OriginalDst`.
    pub struct OriginalDstKey: 32 {
        /// The client pod.
        pub netns_cookie: u64,
        /// The client's source address.
        pub source: Addr,
        /// The client's source port.
        pub source_port_be: u16,
        /// Zero.
        pub pad: [u8; 6],
    }
}

map_type! {
    /// Where a proxied connection was meant to go.
    pub struct OriginalDst: 24 {
        /// The address that the application dialled.
        pub addr: Addr,
        /// The port that the application dialled.
        pub port_be: u16,
        /// Zero.
        pub pad: [u8; 6],
    }
}

/// Stands for the kubelet where a netns cookie stands for a pod. No network namespace has it.
pub const KUBELET: u64 = 0;

map_type! {
    /// The exact 4-tuple of a connection between two pods of this node, published before its SYN
    /// leaves. `LOCAL_TUPLES: LocalTuple -> u64` (the netns cookie of the source, not its
    /// identity: removing the pod voids every tuple that it left behind; or [`KUBELET`]).
    pub struct LocalTuple: 36 {
        /// Source address as the destination sees it.
        pub source: Addr,
        /// Destination address, never a virtual one.
        pub destination: Addr,
        /// Source port.
        pub source_port_be: u16,
        /// Destination port.
        pub destination_port_be: u16,
    }
}
