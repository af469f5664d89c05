//! Where a proxied connection was meant to go.

use std::{net::SocketAddr, sync::Arc};

use aya::maps::{HashMap, MapData};
use undermesh_ebpf_common::{OriginalDst, OriginalDstKey};
use undermesh_snapshot::{addr, socket};

/// Reads `ORIGINAL_DST`. Cheap to clone.
#[derive(Clone)]
pub struct OriginalDstTable {
    map: Arc<HashMap<MapData, OriginalDstKey, OriginalDst>>,
}

impl OriginalDstTable {
    pub(crate) fn new(map: HashMap<MapData, OriginalDstKey, OriginalDst>) -> Self {
        Self { map: Arc::new(map) }
    }

    /// The destination that the application dialled, for a connection that the outbound listener
    /// of the pod `netns_cookie` has accepted from `source`.
    ///
    /// sockops writes the entry before the SYN leaves, so an accepted connection without one was
    /// not sent here by the programs.
    pub fn get(&self, netns_cookie: u64, source: SocketAddr) -> Option<SocketAddr> {
        let key = OriginalDstKey {
            netns_cookie,
            source: addr(source.ip()),
            source_port_be: source.port().to_be(),
            pad: [0; 6],
        };
        let found = self.map.get(&key, 0).ok()?;
        Some(socket(found.addr, found.port_be))
    }
}
