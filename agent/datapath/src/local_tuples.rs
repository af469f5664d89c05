//! Which local connections are open, as the kernel's map has them.

use std::{net::SocketAddr, sync::Arc};

use aya::maps::{HashMap, MapData};
use undermesh_ebpf_common::{KUBELET, LocalTuple};
use undermesh_snapshot::addr;

/// Who has published a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publisher {
    /// A pod of this node, by its netns cookie.
    Pod(u64),
    /// The kubelet.
    Kubelet,
}

/// Reads `LOCAL_TUPLES`. Cheap to clone.
#[derive(Clone)]
pub struct LocalTupleTable {
    map: Arc<HashMap<MapData, LocalTuple, u64>>,
}

impl LocalTupleTable {
    pub(crate) fn new(map: HashMap<MapData, LocalTuple, u64>) -> Self {
        Self { map: Arc::new(map) }
    }

    /// Whether a connection is published; it is from before its SYN leaves until it has closed.
    pub fn contains(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        self.publisher(source, destination).is_some()
    }

    /// Who has published a connection.
    pub fn publisher(&self, source: SocketAddr, destination: SocketAddr) -> Option<Publisher> {
        let tuple = LocalTuple {
            source: addr(source.ip()),
            destination: addr(destination.ip()),
            source_port_be: source.port().to_be(),
            destination_port_be: destination.port().to_be(),
        };
        self.map.get(&tuple, 0).ok().map(|cookie| match cookie {
            KUBELET => Publisher::Kubelet,
            cookie => Publisher::Pod(cookie),
        })
    }
}
