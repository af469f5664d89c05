//! Node-wide settings.

use crate::map_type;

map_type! {
    /// `SETTINGS: [Settings; 1]`.
    pub struct Settings: 8 {
        /// Non-zero: plaintext to an address that no workload owns is dropped. Set while a pod of
        /// this node is STRICT or has a policy, so that its link-local or secondary addresses are no way round.
        pub strict_unknown: u32,
        /// Zero.
        pub pad: u32,
    }
}
