//! The startup gate's maps: for whom it is meant, what is known of cgroups, and a socket that tells the
//! programs that somebody keeps watch.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
};

use aya::maps::{Array, MapData, SockHash};
use undermesh_ebpf_common::{Gate, GateKey, gate_mark, gate_mode};

use crate::{DatapathError, Netns, table::Table};

/// What the gate does with connections to the mesh from where nothing is programmed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateMode {
    /// Refuses them.
    Refuse,
    /// Lets them through.
    Pass,
}

/// What there is a mark for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateSubject {
    /// A cgroup, by its id.
    Cgroup(u64),
    /// A network namespace, by its cookie.
    Netns(u64),
}

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateMark {
    /// Its processes belong to a pod that is to be in the mesh.
    Held,
    /// They do not, or are never to be held up.
    Open,
}

/// Writes the gate's maps.
pub struct StartupGate {
    gate: Array<MapData, Gate>,
    marks: Table<GateKey, u32>,
    watcher: SockHash<MapData, u32>,
    /// In the map while unknown cgroups may be held. Whatever ends this process takes it out.
    socket: Option<UdpSocket>,
}

impl StartupGate {
    pub(crate) fn new(
        gate: Array<MapData, Gate>,
        marks: Table<GateKey, u32>,
        watcher: SockHash<MapData, u32>,
    ) -> Self {
        Self { gate, marks, watcher, socket: None }
    }

    /// Makes the marks equal to `marks`.
    ///
    /// # Errors
    /// Where the map is full or refuses the change.
    pub fn set_marks(
        &mut self,
        marks: &BTreeMap<GateSubject, GateMark>,
    ) -> Result<usize, DatapathError> {
        let key = |subject: &GateSubject| match *subject {
            GateSubject::Cgroup(id) => GateKey::cgroup(id),
            GateSubject::Netns(cookie) => GateKey::netns(cookie),
        };
        let value = |mark: &GateMark| match mark {
            GateMark::Held => gate_mark::HELD,
            GateMark::Open => gate_mark::OPEN,
        };
        let desired = marks.iter().map(|(subject, mark)| (key(subject), value(mark))).collect();
        let pruned = self.marks.prune(&desired)?;
        Ok(pruned + self.marks.add(&desired, |key| format!("{key:?}"))?)
    }

    /// Raises the gate for what runs below the cgroup `id` at this level of the hierarchy. The
    /// calling process runs in the host's own network namespace.
    ///
    /// # Errors
    /// Where the map refuses the change.
    pub fn raise(&mut self, mode: GateMode, id: u64, level: u32) -> Result<(), DatapathError> {
        let host = Netns::open(Path::new("/proc/thread-self/ns/net"))?;
        let mode = match mode {
            GateMode::Refuse => gate_mode::REFUSE,
            GateMode::Pass => gate_mode::PASS,
        };
        self.write(Gate { cgroup: id, host_netns: host.cookie(), level, mode })
    }

    /// Takes the gate away.
    ///
    /// # Errors
    /// Where a map refuses the change.
    pub fn lower(&mut self) -> Result<(), DatapathError> {
        self.stop_watching();
        self.write(Gate { cgroup: 0, host_netns: 0, level: 0, mode: gate_mode::OFF })?;
        self.marks.prune(&BTreeMap::new())?;
        Ok(())
    }

    /// Says that unknown cgroups may be held: this process finds out whose they are.
    ///
    /// # Errors
    /// Where no socket can be opened, or the map refuses it.
    pub fn watch(&mut self) -> Result<(), DatapathError> {
        if self.socket.is_some() {
            return Ok(());
        }
        let socket = open_socket().map_err(DatapathError::map("open a socket for", "WATCHER"))?;
        self.watcher
            .insert(0, socket.as_raw_fd(), 0)
            .map_err(DatapathError::map("write", "WATCHER"))?;
        self.socket = Some(socket);
        Ok(())
    }

    /// The kernel takes the socket out as it closes; another agent's stays.
    pub fn stop_watching(&mut self) {
        self.socket = None;
    }

    /// Reads the marks again: another agent may have written to them.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn read_again(&mut self) -> Result<(), DatapathError> {
        self.marks.read_again()
    }

    fn write(&mut self, gate: Gate) -> Result<(), DatapathError> {
        self.gate.set(0, gate, 0).map_err(DatapathError::map("write", "GATE"))
    }
}

/// A socket that does nothing: connected to itself, it hears from nobody else.
fn open_socket() -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(socket.local_addr()?)?;
    Ok(socket)
}
