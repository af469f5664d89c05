//! Records of the ring buffer `EVENTS`.

use crate::{Addr, map_type};

/// Kinds of [`ConnEvent`].
pub mod event_kind {
    /// A local connection was opened.
    pub const LOCAL: u32 = 1;
    /// `connect` was refused.
    pub const REFUSED: u32 = 2;
    /// An inbound connection was dropped.
    pub const DROPPED: u32 = 3;
    /// A local connection has ended.
    pub const LOCAL_CLOSED: u32 = 4;
    /// An application of a pod has begun or ceased to listen at a port.
    pub const LISTENING: u32 = 5;
    /// A process whose namespace is not programmed was let through the gate.
    pub const GATED_OPEN: u32 = 6;
}

map_type! {
    /// Something that no proxy sees and that a user will ask about.
    pub struct ConnEvent: 128 {
        /// `CLOCK_MONOTONIC`, in nanoseconds.
        pub at_ns: u64,
        /// The client pod for outbound reports, 0 for inbound ones.
        pub netns_cookie: u64,
        /// Of the client's socket, for local connections: joins their two reports.
        pub socket_cookie: u64,
        /// Bytes from client to server, at the end of a local connection.
        pub bytes_received: u64,
        /// Bytes from server to client, at the end of a local connection.
        pub bytes_sent: u64,
        /// Nanoseconds from opening to end of a local connection.
        pub duration_ns: u64,
        /// For what the gate has held up or let through: the cgroup that it belongs to, else 0.
        pub cgroup: u64,
        /// Source address where it is known, else `::`.
        pub source: Addr,
        /// The address that the application dialled, or the local address of an inbound one.
        pub destination: Addr,
        /// The pod that a local connection was led to, else `::`.
        pub backend: Addr,
        /// Source port, or 0.
        pub source_port_be: u16,
        /// Destination port.
        pub destination_port_be: u16,
        /// Port of `backend`, or 0.
        pub backend_port_be: u16,
        /// Zero.
        pub pad: u16,
        /// See [`event_kind`].
        pub kind: u32,
        /// A [`crate::Reason`].
        pub reason: u32,
        /// Smoothed round-trip time at the end of a local connection, in microseconds.
        pub rtt_us: u32,
        /// Zero.
        pub pad2: u32,
    }
}

impl ConnEvent {
    /// A record with nothing in it.
    #[inline(always)]
    pub const fn empty() -> Self {
        Self {
            at_ns: 0,
            netns_cookie: 0,
            socket_cookie: 0,
            bytes_received: 0,
            bytes_sent: 0,
            duration_ns: 0,
            cgroup: 0,
            source: Addr::UNSPECIFIED,
            destination: Addr::UNSPECIFIED,
            backend: Addr::UNSPECIFIED,
            source_port_be: 0,
            destination_port_be: 0,
            backend_port_be: 0,
            pad: 0,
            kind: 0,
            reason: 0,
            rtt_us: 0,
            pad2: 0,
        }
    }
}
