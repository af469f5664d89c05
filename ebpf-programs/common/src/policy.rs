//! Policy for what no proxy sees: connections between pods of this node, and plaintext.
//!
//! User space evaluates every policy for every class of sources and writes down the answers; the
//! programs look them up. Nothing is matched here.

use crate::map_type;

/// The class of a source that has not proven who it is: plaintext.
pub const UNKNOWN_CLASS: u64 = 0;

/// The port that stands for all ports without an entry of their own.
pub const ANY_PORT: u32 = 0;

map_type! {
    /// `POLICY: PolicyKey -> PolicyVerdict`.
    pub struct PolicyKey: 24 {
        /// [`crate::WorkloadEntry::policy`] of the destination.
        pub policy: u64,
        /// A class of sources, or [`UNKNOWN_CLASS`].
        pub class: u64,
        /// Destination port in host byte order, or [`ANY_PORT`].
        pub port: u32,
        /// Zero.
        pub pad: u32,
    }
}

map_type! {
    /// What becomes of a connection.
    pub struct PolicyVerdict: 4 {
        /// See [`policy_verdict`].
        pub verdict: u32,
    }
}

/// Values of [`PolicyVerdict`]. Whatever else is found there, nothing included, denies.
pub mod policy_verdict {
    /// Let it in.
    pub const ALLOW: u32 = 1;
    /// An AuthorizationPolicy refuses it.
    pub const DENY: u32 = 2;
    /// The port takes no plaintext.
    pub const STRICT: u32 = 3;
    /// The agent decides, request by request.
    pub const JUDGE: u32 = 4;
}
