//! Where applications listen, as `LISTENING` has it. The programs add to it; what has to go is found
//! out here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use aya::maps::{HashMap, MapData, MapError};
use undermesh_ebpf_common::PortKey;
use undermesh_snapshot::{addr, ip};

use crate::{DatapathError, sizes::setting_of};

/// Create, never replace (bpf(2)).
const BPF_NOEXIST: u64 = 1;

/// Writes `LISTENING`.
pub(crate) struct ListeningPorts {
    map: HashMap<MapData, PortKey, u64>,
    max_entries: u32,
}

/// A moment, as the programs tell time.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }
}

impl ListeningPorts {
    pub(crate) fn new(map: HashMap<MapData, PortKey, u64>, max_entries: u32) -> Self {
        Self { map, max_entries }
    }

    /// Makes the entries of these addresses equal to `listening`, the ports at them that sockets were
    /// found to listen at after `looked`. What a program has added since then stays.
    ///
    /// # Errors
    /// A full map, by the port that found no place; or whatever else the kernel refuses.
    pub(crate) fn set(
        &mut self,
        addresses: &[IpAddr],
        listening: &BTreeSet<SocketAddr>,
        looked: Moment,
    ) -> Result<(), DatapathError> {
        let there = self.entries(addresses)?;
        for port in listening.iter().filter(|port| !there.contains_key(port)) {
            self.add(*port)?;
        }
        for (port, since) in there {
            // A moment after it was read it may be added anew and is lost; its event brings the agent
            // here again. Connections are refused until then, never let past.
            if !listening.contains(&port) && since < looked.0 {
                self.remove(port)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, port: SocketAddr) -> Result<(), DatapathError> {
        let refused =
            DatapathError::write("LISTENING", self.max_entries, setting_of("LISTENING"), || {
                format!("port {port}")
            });
        match self.map.insert(key(port), 0, BPF_NOEXIST) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(())
            }
            result => result.map_err(refused),
        }
    }

    fn remove(&mut self, port: SocketAddr) -> Result<(), DatapathError> {
        match self.map.remove(&key(port)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(DatapathError::map("delete from", "LISTENING")(error)),
        }
    }

    fn entries(&self, addresses: &[IpAddr]) -> Result<BTreeMap<SocketAddr, u64>, DatapathError> {
        let mut found = BTreeMap::new();
        for entry in &self.map {
            let (key, since) = entry.map_err(DatapathError::map("read", "LISTENING"))?;
            let address = ip(key.addr);
            if addresses.contains(&address) {
                found.insert(SocketAddr::new(address, u16::from_be(key.port_be)), since);
            }
        }
        Ok(found)
    }
}

fn key(port: SocketAddr) -> PortKey {
    PortKey::new(&addr(port.ip()), port.port().to_be())
}
