//! Every map of the data path, by the name under which it is pinned. Sizes are the defaults;
//! the agent overrides them from its configuration when it creates the maps.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SockHash},
};
use undermesh_ebpf_common::{
    Addr, AgentSocket, Backend, BackendKey, Block, BlockKey, ConnMeta, Gate, GateKey, ListenerKey,
    LocalTuple, OriginalDst, OriginalDstKey, Pod, PolicyKey, PolicyVerdict, PortKey, Service,
    ServiceKey, Settings, WorkloadEntry,
};

/// Enrolled pods of this node, by netns cookie. Its absence makes every other lookup moot, so
/// that processes outside the mesh pay for exactly one.
#[map]
pub static PODS: HashMap<u64, Pod> = HashMap::pinned(1 << 10, BPF_F_NO_PREALLOC);

/// Meshed workloads of all nodes, by address.
#[map]
pub static WORKLOADS: HashMap<Addr, WorkloadEntry> = HashMap::pinned(1 << 16, BPF_F_NO_PREALLOC);

/// What the policies of this node's pods answer.
#[map]
pub static POLICY: HashMap<PolicyKey, PolicyVerdict> = HashMap::pinned(1 << 16, BPF_F_NO_PREALLOC);

/// Where applications of enrolled pods listen; sockops adds, the agent puts right.
#[map]
pub static LISTENING: HashMap<PortKey, u64> = HashMap::pinned(1 << 14, BPF_F_NO_PREALLOC);

/// Where the kubelet has been asked to probe enrolled pods.
#[map]
pub static PROBE_PORTS: HashMap<PortKey, u32> = HashMap::pinned(1 << 12, BPF_F_NO_PREALLOC);

/// Service ports with a meshed endpoint or none.
#[map]
pub static SERVICES: HashMap<ServiceKey, Service> = HashMap::pinned(1 << 14, BPF_F_NO_PREALLOC);

/// The endpoints behind `SERVICES`.
#[map]
pub static BACKENDS: HashMap<BackendKey, Backend> = HashMap::pinned(1 << 17, BPF_F_NO_PREALLOC);

/// Blocks of addresses that hosts of ServiceEntries stand for, by port.
#[map]
pub static BLOCKS: LpmTrie<BlockKey, Block> = LpmTrie::pinned(1 << 14, BPF_F_NO_PREALLOC);

/// Where proxied connections were meant to go; written by sockops, read by the agent.
#[map]
pub static ORIGINAL_DST: LruHashMap<OriginalDstKey, OriginalDst> = LruHashMap::pinned(1 << 17, 0);

/// Connections between pods of this node; written by sockops, read by sk_lookup.
#[map]
pub static LOCAL_TUPLES: LruHashMap<LocalTuple, u64> = LruHashMap::pinned(1 << 17, 0);

/// Connections that the agent delivers from their clients' own addresses, and until when
/// (`CLOCK_MONOTONIC`, nanoseconds); written by the agent, read by sk_lookup. Old ones may be
/// dropped: those that a killed agent has left behind.
#[map]
pub static DELIVERIES: LruHashMap<LocalTuple, u64> = LruHashMap::pinned(1 << 17, 0);

/// The agent's listeners inside pods.
#[map]
pub static LISTENERS: SockHash<ListenerKey> = SockHash::pinned(1 << 12, 0);

/// One element.
#[map]
pub static SETTINGS: Array<Settings> = Array::pinned(1, 0);

/// One element: whom the startup gate is meant for.
#[map]
pub static GATE: Array<Gate> = Array::pinned(1, 0);

/// What is known of cgroups below the one in which pods run, and of namespaces that are not programmed.
#[map]
pub static GATE_MARKS: HashMap<GateKey, u32> = HashMap::pinned(1 << 13, BPF_F_NO_PREALLOC);

/// A socket of the agent that keeps watch; the kernel removes it when the agent dies.
#[map]
pub static WATCHER: SockHash<u32> = SockHash::pinned(1, 0);

/// Verdicts by `Reason`.
#[map]
pub static VERDICTS: PerCpuArray<u64> = PerCpuArray::pinned(32, 0);

/// `ConnEvent`s for the agent.
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(1 << 18, 0);

/// What a socket's `connect` decided. Not pinned by name: it is a BTF map, which the loader pins.
#[btf_map]
pub static CONN_META: SkStorage<ConnMeta> = SkStorage::new();

/// The agent's own sockets; the loader pins it where all versions find it.
#[btf_map]
pub static AGENT_SOCKETS: SkStorage<AgentSocket> = SkStorage::new();
