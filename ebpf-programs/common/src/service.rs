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
    pub struct Service: 8 {
        /// How many slots `BACKENDS` holds for this key.
        pub backends: u32,
        /// See [`service_flags`].
        pub flags: u32,
    }
}

/// Flags of [`Service`].
pub mod service_flags {
    /// A client always gets the same backend, for as long as the backends are the same.
    pub const AFFINITY: u32 = 1;
    /// The proxy looks at connections to it, wherever they lead.
    pub const PROXY: u32 = 2;
    /// Known and none of the mesh's business: connections are left alone, whatever block the address
    /// lies in.
    pub const KNOWN: u32 = 4;
    /// All of them, as people are told them.
    pub const NAMES: [(u32, &str); 3] =
        [(AFFINITY, "affinity"), (PROXY, "proxy"), (KNOWN, "known")];
}

map_type! {
    /// What `BLOCKS` is looked up by. The port comes first: a block of any length, none included, is
    /// about one port.
    pub struct BlockKey: 20 {
        /// The port that clients dial.
        pub port_be: u16,
        /// Zero.
        pub pad: u16,
        /// An address, or the first one of a block.
        pub addr: Addr,
    }
}

impl BlockKey {
    /// Bits of a key that come before the address.
    pub const PORT_BITS: u32 = 32;
    /// All bits.
    pub const BITS: u32 = Self::PORT_BITS + 128;

    /// A port at an address.
    #[inline(always)]
    pub const fn new(addr: &Addr, port_be: u16) -> Self {
        Self { port_be, pad: 0, addr: *addr }
    }
}

map_type! {
    /// `BLOCKS: (length of the prefix, BlockKey) -> Block`, the longest prefix first. A port of a block
    /// of addresses that somebody stands for, and nobody at a single one of them.
    pub struct Block: 4 {
        /// See [`block_flags`].
        pub flags: u32,
    }
}

/// Flags of [`Block`].
pub mod block_flags {
    /// The proxy looks at connections to it.
    pub const PROXY: u32 = 1;
    /// All of them, as people are told them.
    pub const NAMES: [(u32, &str); 1] = [(PROXY, "proxy")];
}

/// The slot that a client has with affinity: the same in the kernel and in the proxy, so that it
/// does not matter which of them chooses. FNV-1a over the address's words; 0 for no slots.
#[inline(always)]
pub const fn affinity_slot(client: &Addr, slots: u32) -> u32 {
    const PRIME: u32 = 0x0100_0193;
    let words = &client.words_be;
    let mut hash = 0x811c_9dc5_u32;
    hash = (hash ^ words[0]).wrapping_mul(PRIME);
    hash = (hash ^ words[1]).wrapping_mul(PRIME);
    hash = (hash ^ words[2]).wrapping_mul(PRIME);
    hash = (hash ^ words[3]).wrapping_mul(PRIME);
    // The last byte of the address is in the high bits of its word; bring it down.
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x2c1b_3c6d);
    hash ^= hash >> 12;
    if slots == 0 { 0 } else { hash % slots }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_the_slots_and_stay_where_they_are() {
        let mut counts = [0_u32; 5];
        for client in 0..=255 {
            let slot = affinity_slot(&Addr::v4([10, 1, 0, client]), 5);
            assert_eq!(slot, affinity_slot(&Addr::v4([10, 1, 0, client]), 5));
            counts[slot as usize] += 1;
        }
        assert!(counts.iter().all(|count| (25..=80).contains(count)), "{counts:?}");
        assert_eq!(affinity_slot(&Addr::UNSPECIFIED, 0), 0);
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
    /// All of them, as people are told them.
    pub const NAMES: [(u32, &str); 1] = [(LOCAL, "local")];
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
