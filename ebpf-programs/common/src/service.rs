//! Virtual services and their backends.

use crate::{Addr, map_type};

map_type! {
    /// `SERVICES: ServiceKey -> Service`.
    pub struct ServiceKey: 20 {
        /// A virtual address of the service.
        pub addr: Addr,
        /// The port that clients dial.
        pub port_be: u16,
        /// Zero.
        pub pad: u16,
    }
}

map_type! {
    /// A service port that has a meshed endpoint, or none at all.
    pub struct Service: 4 {
        /// How many slots `BACKENDS` holds for this key.
        pub backends: u32,
    }
}

map_type! {
    /// `BACKENDS: BackendKey -> Backend`. The key holds the service's own key rather than a
    /// number, so that no renumbering can ever lead a connection to another service's pod.
    pub struct BackendKey: 24 {
        /// The service.
        pub service: ServiceKey,
        /// 0 to `Service::backends` - 1.
        pub slot: u32,
    }
}

/// Flags of [`Backend`].
pub mod backend_flags {
    /// An enrolled pod of this node.
    pub const LOCAL: u32 = 1;
}

map_type! {
    /// One endpoint of a service.
    pub struct Backend: 24 {
        /// The endpoint's address.
        pub addr: Addr,
        /// The endpoint's port.
        pub port_be: u16,
        /// Zero.
        pub pad: u16,
        /// See [`backend_flags`].
        pub flags: u32,
    }
}
