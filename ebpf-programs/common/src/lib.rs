//! What the eBPF programs and user space must agree on: map types and the decisions taken on them.
//!
//! `no_std`, no allocation, no I/O: the programs include this crate as it is, and every decision
//! is tested on the host. Addresses are IPv6 or IPv4-mapped IPv6 in network byte order, so that
//! no map and no decision exists twice. Fields in network byte order end in `_be`.
#![no_std]

mod address;
mod connection;
mod event;
mod gate;
mod pod;
mod policy;
mod reason;
mod service;
mod settings;
pub mod tcp;
mod verdict;

pub use address::Addr;
pub use connection::{
    AgentSocket, ConnMeta, KUBELET, LocalTuple, OriginalDst, OriginalDstKey, conn_flags,
};
pub use event::{ConnEvent, event_kind};
pub use gate::{
    GATE_LEVELS, Gate, GateKey, GateView, Held, decide_gated, gate_kind, gate_mark, gate_mode,
    is_held,
};
pub use pod::{ListenerKey, Pod, PortKey, WorkloadEntry, listener_kind, pod_flags, workload_flags};
pub use policy::{ANY_PORT, PolicyKey, PolicyVerdict, UNKNOWN_CLASS, policy_verdict};
pub use reason::Reason;
pub use service::{
    Backend, BackendKey, Block, BlockKey, Service, ServiceKey, affinity_slot, backend_flags,
    block_flags, service_flags,
};
pub use settings::Settings;
pub use verdict::{
    Action, Inbound, InboundView, Outbound, OutboundView, Publisher, decide_inbound,
    decide_outbound,
};

/// Version of everything in this crate that is shared through pinned maps. It names the pin
/// directory: raise it with every change of a map's key, value or meaning.
pub const ABI_VERSION: u32 = 6;

/// Where the agent "connects" to on kernels without SO_NETNS_COOKIE, to be told the cookie of a
/// socket's network namespace: an address of this host's network that is none, so that no application
/// can mean it.
pub const COOKIE_QUESTION: (Addr, u16) = (Addr::v4([0, 0, 0, 2]), 929);

/// Port of the HBONE tunnel, in host byte order.
pub const HBONE_PORT: u16 = 15008;

/// Declares a map type: `repr(C)`, zerocopy derives (which refuse implicit padding), its size
/// asserted, and `aya::Pod` where user space asks for it.
macro_rules! map_type {
    ($(#[$meta:meta])* pub struct $name:ident : $size:literal { $($(#[$fmeta:meta])* pub $field:ident : $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        pub struct $name { $($(#[$fmeta])* pub $field: $type,)* }

        const _: () = assert!(core::mem::size_of::<$name>() == $size);

        // SAFETY: `repr(C)`, integers and byte arrays only, and `IntoBytes` proves that there is
        // no padding byte that could carry kernel or process memory.
        #[cfg(feature = "user")]
        #[allow(unsafe_code)]
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use map_type;
