//! What exists once per enrolled pod: its sk_lookup link, its listeners, and the entry that
//! switches the programs on for it.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use aya::maps::{MapData, SockHash};
use undermesh_ebpf_common::{ListenerKey, Pod, listener_kind};
use undermesh_snapshot::addr;

use crate::{
    DatapathError, Netns,
    attach::update_pinned,
    bpffs,
    listening::{ListeningPorts, Moment},
    load::POD_PROGRAM,
    sys::{self, LinkTarget},
    table::Table,
};

/// The loaded sk_lookup program.
pub(crate) struct Steer {
    program: OwnedFd,
}

impl Steer {
    pub(crate) fn new(program: OwnedFd) -> Self {
        Self { program }
    }
}

/// The listeners that the agent has opened inside a pod.
#[derive(Clone, Copy, Debug)]
pub struct PodListeners<'a> {
    /// The inbound listener for IPv4 connections.
    pub inbound4: Option<BorrowedFd<'a>>,
    /// The inbound listener for IPv6 connections.
    pub inbound6: Option<BorrowedFd<'a>>,
    /// Port of the outbound listeners on the loopback addresses.
    pub outbound_port: u16,
}

/// Switches pods on and off.
pub struct PodPrograms {
    pods: Table<u64, Pod>,
    listeners: SockHash<MapData, ListenerKey>,
    listening: ListeningPorts,
    steer: Steer,
    pins: PathBuf,
    /// Programs of another version judge what arrives: ours wait until all pods have their entry.
    waits: bool,
}

impl PodPrograms {
    pub(crate) fn new(
        pods: Table<u64, Pod>,
        listeners: SockHash<MapData, ListenerKey>,
        listening: ListeningPorts,
        steer: Steer,
        pins: PathBuf,
    ) -> Self {
        let waits = bpffs::is_beside_others(&pins);
        Self { pods, listeners, listening, steer, pins, waits }
    }

    /// Whether [`Self::switch_on`] leaves what arrives to another version's programs. Ours know of a
    /// neighbour's connection only once that neighbour has its entry; before, they would take it for
    /// a stranger's.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// From now on, arriving connections are judged by our programs as well: switch every pod on
    /// again.
    pub fn wait_no_longer(&mut self) {
        self.waits = false;
    }

    /// Cookies of all pods that are switched on, by this agent or by one before it.
    pub fn switched_on(&self) -> BTreeSet<u64> {
        self.pods.actual().keys().copied().collect()
    }

    /// Reads the map again: another agent may have written to it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read_again(&mut self) -> Result<(), DatapathError> {
        self.pods.read_again()
    }

    /// Switches a pod on: what it accepts first, where it connects last, so that nothing is led
    /// to a listener that is not there. Doing it again updates what has changed.
    ///
    /// # Errors
    /// Where a step fails; the pod is then as it was, or without interception.
    pub fn switch_on(
        &mut self,
        netns: &Netns,
        addresses: &[IpAddr],
        listeners: PodListeners<'_>,
        flags: u32,
    ) -> Result<(), DatapathError> {
        for address in addresses {
            let socket = if address.is_ipv4() { listeners.inbound4 } else { listeners.inbound6 };
            if let Some(socket) = socket {
                self.publish_listener(*address, socket)?;
            }
        }
        if !self.waits {
            self.attach(netns)?;
        }
        let own = |v4: bool| {
            addresses
                .iter()
                .find(|address| address.is_ipv4() == v4)
                .map_or(undermesh_ebpf_common::Addr::UNSPECIFIED, |address| addr(*address))
        };
        let pod = Pod {
            addr4: own(true),
            addr6: own(false),
            outbound_port_be: listeners.outbound_port.to_be(),
            pad: 0,
            flags,
        };
        self.pods.put(netns.cookie(), pod, |_| format!("the pod in {}", netns.path().display()))
    }

    /// Says where the applications of a pod listen, as it was found after `looked`.
    ///
    /// # Errors
    /// Where the map is full or refuses the change.
    pub fn set_listening(
        &mut self,
        addresses: &[IpAddr],
        listening: &BTreeSet<SocketAddr>,
        looked: Moment,
    ) -> Result<(), DatapathError> {
        self.listening.set(addresses, listening, looked)
    }

    /// Leads nothing more to a pod's listeners: meshed connections are refused (or fail open), and
    /// tunnels dropped, as if the agent were gone. What was led there before is still to be
    /// accepted; a listener that closes with connections in its queue resets them.
    ///
    /// # Errors
    /// Where the kernel refuses the change.
    pub fn refuse_new(
        &mut self,
        netns_cookie: u64,
        addresses: &[IpAddr],
    ) -> Result<(), DatapathError> {
        if let Some(pod) = self.pods.actual().get(&netns_cookie).copied() {
            let pod = Pod { outbound_port_be: 0, ..pod };
            self.pods.put(netns_cookie, pod, |cookie| format!("pod {cookie}"))?;
        }
        for address in addresses {
            // Absent already where the listener was closed first.
            let _ = self.listeners.remove(&listener_key(*address));
        }
        Ok(())
    }

    /// Switches a pod off: new connections are left alone at once, live ones run on.
    ///
    /// # Errors
    /// Where the kernel refuses to forget it.
    pub fn switch_off(
        &mut self,
        netns_cookie: u64,
        addresses: &[IpAddr],
    ) -> Result<(), DatapathError> {
        self.pods.remove(&netns_cookie)?;
        bpffs::unpin_link(&self.pin(netns_cookie))?;
        self.set_listening(addresses, &BTreeSet::new(), Moment::now())?;
        for address in addresses {
            // Absent already where the listener was closed first.
            let _ = self.listeners.remove(&listener_key(*address));
        }
        Ok(())
    }

    /// Switches off every pod but those in `keep`, links without a pod included: what an agent
    /// before this one has left behind.
    ///
    /// # Errors
    /// Where the kernel refuses to forget one.
    pub fn retain(&mut self, keep: &BTreeSet<u64>) -> Result<usize, DatapathError> {
        let mut stale: BTreeSet<u64> = self.switched_on();
        let entries = fs::read_dir(&self.pins).map_err(DatapathError::file("list", &self.pins))?;
        stale.extend(
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()),
        );
        let stale: Vec<u64> = stale.difference(keep).copied().collect();
        for cookie in &stale {
            self.switch_off(*cookie, &[])?;
        }
        Ok(stale.len())
    }

    fn publish_listener(
        &mut self,
        address: IpAddr,
        socket: BorrowedFd<'_>,
    ) -> Result<(), DatapathError> {
        self.listeners
            .insert(listener_key(address), socket.as_raw_fd(), 0)
            .map_err(DatapathError::map("write", "LISTENERS"))
    }

    fn attach(&mut self, netns: &Netns) -> Result<(), DatapathError> {
        let pin = self.pin(netns.cookie());
        let target = LinkTarget::Netns(netns.id().inode() as u32);
        let program = self.steer.program.as_fd();
        if update_pinned(POD_PROGRAM, program, target, &pin)? {
            return Ok(());
        }
        let attach_error = |reason: std::io::Error| DatapathError::Attach {
            program: POD_PROGRAM,
            target: netns.path().display().to_string(),
            reason: reason.to_string(),
        };
        let link = sys::netns_link(program, netns.as_fd()).map_err(attach_error)?;
        sys::obj_pin(link.as_fd(), &pin).map_err(attach_error)
    }

    fn pin(&self, netns_cookie: u64) -> PathBuf {
        self.pins.join(netns_cookie.to_string())
    }
}

fn listener_key(address: IpAddr) -> ListenerKey {
    ListenerKey { addr: addr(address), kind: listener_kind::INBOUND }
}
