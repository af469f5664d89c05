//! The data path: loads the eBPF programs, attaches them as pinned links, and keeps their maps
//! equal to what the snapshot asks for.
//!
//! **Invariant**: nothing here decides where a connection goes. The programs decide, from maps;
//! this crate moves desired state into maps, make before break, and reads back what happened.
//! It is the only user of aya and of raw system calls.

mod attach;
mod bpffs;
mod cgroup;
mod cleanup;
mod conflict;
mod contents;
mod cookie;
mod deliveries;
mod error;
mod events;
mod gate;
mod inspect;
mod interfaces;
mod kernel_log;
mod listening;
mod load;
mod local_tuples;
mod mark;
mod mounts;
mod neighbours;
mod netlink;
mod netns;
mod open;
mod original_dst;
mod pinned;
mod pod_cgroups;
mod pods;
mod probe;
mod reader;
mod return_routes;
mod sizes;
pub mod sock_diag;
mod sys;
mod table;
mod tables;
mod verifier;
mod words;

pub use cgroup::{CgroupRoot, default_attach_point, join_host_cgroups, kubelet_pods};
pub use cleanup::{CleanupReport, cleanup};
pub use contents::{MapContents, MapEntry, READABLE_MAPS};
pub use deliveries::{Announced, DeliveryTable};
pub use error::DatapathError;
pub use events::{ConnectionEvent, EventKind, Events, Traffic};
pub use gate::{GateMark, GateMode, GateSubject, StartupGate};
pub use inspect::{MapStatus, ProgramRuns, ProgramStatus};
pub use interfaces::{Interface, interfaces};
pub use listening::Moment;
pub use load::{Config, Datapath};
pub use local_tuples::{LocalTupleTable, Publisher};
pub use mark::AgentMark;
pub use mounts::Mounts;
pub use neighbours::{Neighbour, Relation, Sharing, neighbours};
pub use netns::{Netns, NetnsId, socket_cookie};
pub use original_dst::OriginalDstTable;
pub use pinned::{PinDirectory, PinnedSet};
pub use pod_cgroups::{PodCgroup, PodCgroups};
pub use pods::{PodListeners, PodPrograms};
pub use probe::{Availability, Feature, KernelFeatures, Need, Probed};
pub use reader::MapReader;
pub use return_routes::{DELIVERY_MARK, ReturnRoutes};
pub use sizes::MapSizes;
pub use sys::{ClockState, bind_address_no_port, clock_state};
pub use undermesh_ebpf_common::{Reason, pod_flags};
pub use verifier::{ProgramCost, verify};
pub use words::flag_words;
