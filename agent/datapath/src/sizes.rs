//! How large the maps are, and which setting says so.

use aya::EbpfLoader;

/// Sizes of the maps, in entries unless said otherwise. They count when a map is created; a map
/// that a former agent has pinned keeps its size until `undermesh cleanup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Enrolled pods of this node.
    pub pods: u32,
    /// Meshed addresses of all nodes.
    pub workloads: u32,
    /// Answers of policies.
    pub policy_entries: u32,
    /// Service ports.
    pub services: u32,
    /// Endpoints of all service ports.
    pub backends: u32,
    /// Live connections of either kind.
    pub connections: u32,
    /// Ports of this node's pods: those where applications listen, and as many that the kubelet
    /// probes.
    pub pod_ports: u32,
    /// Ring buffer of events, in bytes; a power of two and a multiple of the page size.
    pub event_bytes: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            pods: 1 << 10,
            workloads: 1 << 16,
            policy_entries: 1 << 16,
            services: 1 << 14,
            backends: 1 << 17,
            connections: 1 << 17,
            pod_ports: 1 << 14,
            event_bytes: 1 << 20,
        }
    }
}

impl MapSizes {
    /// Has maps that are created now made in these sizes.
    pub(crate) fn apply(&self, loader: &mut EbpfLoader<'_>) {
        for (map, setting, factor) in SIZED {
            loader.map_max_entries(map, self.of(setting).saturating_mul(factor));
        }
        loader.map_max_entries("EVENTS", self.event_bytes);
    }

    fn of(&self, setting: &str) -> u32 {
        match setting {
            PODS => self.pods,
            WORKLOADS => self.workloads,
            POLICY => self.policy_entries,
            SERVICES => self.services,
            BACKENDS => self.backends,
            POD_PORTS => self.pod_ports,
            _ => self.connections,
        }
    }
}

const PODS: &str = "maxPods";
const WORKLOADS: &str = "maxWorkloads";
const POLICY: &str = "maxPolicyEntries";
const SERVICES: &str = "maxServices";
const BACKENDS: &str = "maxBackends";
const POD_PORTS: &str = "maxPodPorts";
const CONNECTIONS: &str = "maxConnections";

/// Maps, the settings that they are sized by, and how many times that they take.
const SIZED: [(&str, &str, u32); 13] = [
    ("PODS", PODS, 1),
    ("GATE_MARKS", PODS, 8),
    ("LISTENERS", PODS, 4),
    ("WORKLOADS", WORKLOADS, 1),
    ("POLICY", POLICY, 1),
    ("LISTENING", POD_PORTS, 1),
    ("PROBE_PORTS", POD_PORTS, 1),
    ("SERVICES", SERVICES, 1),
    ("BLOCKS", SERVICES, 1),
    ("BACKENDS", BACKENDS, 1),
    ("ORIGINAL_DST", CONNECTIONS, 1),
    ("LOCAL_TUPLES", CONNECTIONS, 1),
    ("DELIVERIES", CONNECTIONS, 1),
];

/// The setting that a map's size comes from; empty for those of fixed size.
pub(crate) fn setting_of(map: &str) -> &'static str {
    SIZED.iter().find(|(name, ..)| *name == map).map_or("", |(_, setting, _)| setting)
}
