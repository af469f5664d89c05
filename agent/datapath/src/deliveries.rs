//! Connections that the agent delivers from their clients' own addresses.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use undermesh_ebpf_common::LocalTuple;
use undermesh_snapshot::addr;

use crate::sys;

/// Writes `DELIVERIES`. Cheap to clone and free of locks.
#[derive(Clone, Debug)]
pub struct DeliveryTable {
    map: Arc<OwnedFd>,
}

impl DeliveryTable {
    pub(crate) fn new(map: OwnedFd) -> Self {
        Self { map: Arc::new(map) }
    }

    /// Lets one connection through to an application, by its exact addresses. It must be
    /// established within `valid`; after that, the entry means nothing, so that the same client
    /// cannot come in by it a second time, in plaintext.
    ///
    /// # Errors
    /// The kernel's answer; the connection would be taken for a stranger's.
    pub fn announce(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        valid: Duration,
    ) -> io::Result<Announced> {
        let tuple = LocalTuple {
            source: addr(source.ip()),
            destination: addr(destination.ip()),
            source_port_be: source.port().to_be(),
            destination_port_be: destination.port().to_be(),
        };
        let until = now().saturating_add(valid);
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        sys::map_set(self.map.as_fd(), &tuple, &until)?;
        Ok(Announced { table: self.clone(), tuple })
    }
}

/// The clock of `bpf_ktime_get_ns`.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A connection that is let through. Dropping the value takes it back; the connection goes on if
/// it is established.
#[derive(Debug)]
pub struct Announced {
    table: DeliveryTable,
    tuple: LocalTuple,
}

impl Drop for Announced {
    fn drop(&mut self) {
        // Absent already where the map was full and dropped it.
        let _ = sys::map_remove(self.table.map.as_fd(), &self.tuple);
    }
}
