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
}

map_type! {
    /// A verdict that no proxy sees and that a user will ask about.
    pub struct ConnEvent: 80 {
        /// `CLOCK_MONOTONIC`, in nanoseconds.
        pub at_ns: u64,
        /// The client pod for outbound verdicts, 0 for inbound ones.
        pub netns_cookie: u64,
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
    }
}
