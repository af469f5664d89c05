//! The pinned maps, looked up one entry at a time as the programs do: for whoever asks what they would find.

use std::{net::SocketAddr, path::Path};

use aya::maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key};
use undermesh_ebpf_common::{
    Addr, Backend, BackendKey, Block, BlockKey, InboundView, KUBELET, LocalTuple, OutboundView,
    Pod, PolicyKey, PolicyVerdict, PortKey, Publisher, Service, ServiceKey, Settings,
    WorkloadEntry,
};
use undermesh_snapshot::addr;

use crate::{DatapathError, open};

/// Open handles to the maps that the decisions look at.
pub struct MapReader {
    pods: HashMap<MapData, u64, Pod>,
    services: HashMap<MapData, ServiceKey, Service>,
    backends: HashMap<MapData, BackendKey, Backend>,
    blocks: LpmTrie<MapData, BlockKey, Block>,
    workloads: HashMap<MapData, Addr, WorkloadEntry>,
    policy: HashMap<MapData, PolicyKey, PolicyVerdict>,
    local_tuples: HashMap<MapData, LocalTuple, u64>,
    listening: HashMap<MapData, PortKey, u64>,
    probe_ports: HashMap<MapData, PortKey, u32>,
    settings: Array<MapData, Settings>,
}

impl MapReader {
    /// Opens the maps below a directory of pins.
    pub(crate) fn open(maps: &Path) -> Result<Self, DatapathError> {
        Ok(Self {
            pods: open::hash(maps, "PODS")?.map,
            services: open::hash(maps, "SERVICES")?.map,
            backends: open::hash(maps, "BACKENDS")?.map,
            blocks: open::trie(maps, "BLOCKS")?.map,
            workloads: open::hash(maps, "WORKLOADS")?.map,
            policy: open::hash(maps, "POLICY")?.map,
            local_tuples: open::hash(maps, "LOCAL_TUPLES")?.map,
            listening: open::hash(maps, "LISTENING")?.map,
            probe_ports: open::hash(maps, "PROBE_PORTS")?.map,
            settings: open::array(maps, "SETTINGS")?.map,
        })
    }

    /// What the programs know of a pod.
    pub fn pod(&self, netns_cookie: u64) -> Option<Pod> {
        self.pods.get(&netns_cookie, 0).ok()
    }

    /// The maps as a connection finds them that leaves a pod, where chance chooses this slot.
    pub fn outgoing(&self, slot: u32) -> Outgoing<'_> {
        Outgoing { maps: self, slot }
    }

    /// The maps as a connection finds them that arrives.
    pub fn arriving(&self, from: SocketAddr, to: SocketAddr) -> Arriving<'_> {
        Arriving { maps: self, from, to, publisher: None }
    }

    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.workloads.get(addr, 0).ok()
    }
}

/// See [`MapReader::outgoing`].
pub struct Outgoing<'a> {
    maps: &'a MapReader,
    slot: u32,
}

impl OutboundView for Outgoing<'_> {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.maps.services.get(key, 0).ok()
    }

    fn backend(&self, service: &ServiceKey, slot: u32) -> Option<Backend> {
        self.maps.backends.get(&BackendKey { service: *service, slot }, 0).ok()
    }

    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.maps.workload(addr)
    }

    fn block(&self, key: &BlockKey) -> Option<Block> {
        self.maps.blocks.get(&Key::new(BlockKey::BITS, *key), 0).ok()
    }

    fn random(&self) -> u32 {
        self.slot
    }

    /// Whoever asks is the agent, and it runs.
    fn proxy_listens(&self, _destination: &Addr, _port_be: u16) -> bool {
        true
    }
}

/// See [`MapReader::arriving`].
pub struct Arriving<'a> {
    maps: &'a MapReader,
    from: SocketAddr,
    to: SocketAddr,
    publisher: Option<Publisher>,
}

impl Arriving<'_> {
    /// The same while the connection was published by this pod, as it may not be any more.
    #[must_use]
    pub fn published_by(self, pod: &Pod) -> Self {
        let publisher = Publisher::pod(pod.source_for(&addr(self.to.ip())));
        Self { publisher: Some(publisher), ..self }
    }

    fn port(&self) -> PortKey {
        PortKey::new(&addr(self.to.ip()), self.to.port().to_be())
    }
}

impl InboundView for Arriving<'_> {
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.maps.workload(addr)
    }

    fn publisher(&self) -> Publisher {
        let tuple = LocalTuple {
            source: addr(self.from.ip()),
            destination: addr(self.to.ip()),
            source_port_be: self.from.port().to_be(),
            destination_port_be: self.to.port().to_be(),
        };
        match self.maps.local_tuples.get(&tuple, 0) {
            Err(_) if self.publisher.is_some() => self.publisher.unwrap_or(Publisher::NOBODY),
            Err(_) => Publisher::NOBODY,
            Ok(KUBELET) => Publisher::KUBELET,
            Ok(cookie) => match self.maps.pod(cookie) {
                Some(pod) => Publisher::pod(pod.source_for(&addr(self.to.ip()))),
                None => Publisher::NOBODY,
            },
        }
    }

    /// A client's own connection is none that the agent delivers.
    fn delivered(&self) -> bool {
        false
    }

    fn policy(&self, key: &PolicyKey) -> Option<PolicyVerdict> {
        self.maps.policy.get(key, 0).ok()
    }

    fn listens(&self) -> bool {
        self.maps.listening.get(&self.port(), 0).is_ok()
    }

    fn is_probed(&self) -> bool {
        self.maps.probe_ports.get(&self.port(), 0).is_ok()
    }

    fn strict_unknown(&self) -> bool {
        self.maps.settings.get(&0, 0).is_ok_and(|settings| settings.strict_unknown != 0)
    }
}
