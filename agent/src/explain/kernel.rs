//! The programs' decisions on the compiled tables, with what they look up.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
};

use undermesh_ebpf_common::{
    ANY_PORT, Addr, Backend, Block, BlockKey, InboundView, OutboundView, PolicyKey, PolicyVerdict,
    Publisher, Service, ServiceKey, UNKNOWN_CLASS, WorkloadEntry, backend_flags, block_flags,
    policy_verdict, service_flags, workload_flags,
};
use undermesh_snapshot::{DatapathTables, ip};

use super::report::Lookup;

/// A view, and what was asked of it, in order.
pub(crate) struct Seen<V> {
    view: V,
    /// The connection's source and destination, for an inbound view.
    tuple: Option<(SocketAddr, SocketAddr)>,
    lookups: RefCell<Vec<Lookup>>,
}

impl<V> Seen<V> {
    /// An outbound view.
    pub(crate) fn outbound(view: V) -> Self {
        Self { view, tuple: None, lookups: RefCell::default() }
    }

    /// An inbound view, for a connection from the one to the other.
    pub(crate) fn inbound(view: V, from: SocketAddr, to: SocketAddr) -> Self {
        Self { view, tuple: Some((from, to)), lookups: RefCell::default() }
    }

    /// What was looked up.
    pub(crate) fn lookups(self) -> Vec<Lookup> {
        self.lookups.into_inner()
    }

    fn note<T>(&self, map: &str, key: String, found: Option<T>, value: impl Fn(&T) -> String) {
        let value = found.as_ref().map_or_else(|| "none".to_owned(), value);
        let lookup = Lookup { map: map.to_owned(), key, value };
        let mut lookups = self.lookups.borrow_mut();
        if !lookups.contains(&lookup) {
            lookups.push(lookup);
        }
    }

    fn tuple(&self) -> String {
        self.tuple.map_or_else(String::new, |(from, to)| format!("{from} -> {to}"))
    }

    fn port(&self) -> String {
        self.tuple.map_or_else(String::new, |(_, to)| to.to_string())
    }

    fn note_workload(&self, addr: &Addr, found: Option<WorkloadEntry>) {
        self.note("WORKLOADS", ip(*addr).to_string(), found, workload);
    }
}

impl<V: OutboundView> OutboundView for Seen<V> {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        let found = self.view.service(key);
        self.note("SERVICES", at(&key.addr, key.port_be), found, service);
        found
    }

    fn backend(&self, service: &ServiceKey, slot: u32) -> Option<Backend> {
        let found = self.view.backend(service, slot);
        let key = format!("{} slot {slot}", at(&service.addr, service.port_be));
        self.note("BACKENDS", key, found, backend);
        found
    }

    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        let found = self.view.workload(addr);
        self.note_workload(addr, found);
        found
    }

    fn block(&self, key: &BlockKey) -> Option<Block> {
        let found = self.view.block(key);
        self.note("BLOCKS", at(&key.addr, key.port_be), found, |block| {
            flags(block.flags, &[(block_flags::PROXY, "proxy")])
        });
        found
    }

    fn random(&self) -> u32 {
        self.view.random()
    }

    fn proxy_listens(&self, destination: &Addr, port_be: u16) -> bool {
        self.view.proxy_listens(destination, port_be)
    }
}

impl<V: InboundView> InboundView for Seen<V> {
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        let found = self.view.workload(addr);
        self.note_workload(addr, found);
        found
    }

    fn publisher(&self) -> Publisher {
        let found = self.view.publisher();
        let known = (found.known || found.kubelet).then_some(found);
        self.note("LOCAL_TUPLES", self.tuple(), known, |publisher| match publisher.kubelet {
            true => "the kubelet".to_owned(),
            false => format!("the pod with {}", ip(publisher.addr)),
        });
        found
    }

    fn delivered(&self) -> bool {
        let found = self.view.delivered();
        self.note("DELIVERIES", self.tuple(), found.then_some(()), |()| "announced".to_owned());
        found
    }

    fn policy(&self, key: &PolicyKey) -> Option<PolicyVerdict> {
        let found = self.view.policy(key);
        let class = match key.class {
            UNKNOWN_CLASS => "plaintext".to_owned(),
            class => format!("{class:016x}"),
        };
        let port = match key.port {
            ANY_PORT => "any".to_owned(),
            port => port.to_string(),
        };
        let text = format!("policy {:016x} class {class} port {port}", key.policy);
        self.note("POLICY", text, found, |found| match found.verdict {
            policy_verdict::ALLOW => "allow".to_owned(),
            policy_verdict::DENY => "deny".to_owned(),
            policy_verdict::STRICT => "strict".to_owned(),
            policy_verdict::JUDGE => "judge".to_owned(),
            other => other.to_string(),
        });
        found
    }

    fn listens(&self) -> bool {
        let found = self.view.listens();
        self.note("LISTENING", self.port(), found.then_some(()), |()| "listens".to_owned());
        found
    }

    fn is_probed(&self) -> bool {
        let found = self.view.is_probed();
        self.note("PROBE_PORTS", self.port(), found.then_some(()), |()| "probed".to_owned());
        found
    }

    fn strict_unknown(&self) -> bool {
        let found = self.view.strict_unknown();
        let value = |strict: &bool| format!("strict_unknown {strict}");
        self.note("SETTINGS", "0".to_owned(), Some(found), value);
        found
    }
}

/// The tables of a node as a connecting pod's programs find them, where chance chooses this slot.
pub(super) struct Outgoing<'a> {
    tables: &'a DatapathTables,
    slot: u32,
    drawn: Cell<bool>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(tables: &'a DatapathTables, slot: u32) -> Self {
        Self { tables, slot, drawn: Cell::new(false) }
    }
}

impl Seen<Outgoing<'_>> {
    /// Whether chance had a say.
    pub(super) fn has_drawn(&self) -> bool {
        self.view.drawn.get()
    }
}

impl OutboundView for Outgoing<'_> {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.tables.services.get(key).copied()
    }

    fn backend(&self, service: &ServiceKey, slot: u32) -> Option<Backend> {
        let key = undermesh_ebpf_common::BackendKey { service: *service, slot };
        self.tables.backends.get(&key).copied()
    }

    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.tables.workloads.get(addr).copied()
    }

    fn block(&self, key: &BlockKey) -> Option<Block> {
        let around = |(length, block): &(u32, BlockKey)| covers(*length, block, key);
        let blocks = self.tables.blocks.iter().filter(|(block, _)| around(block));
        blocks.max_by_key(|((length, _), _)| *length).map(|(_, block)| *block)
    }

    fn random(&self) -> u32 {
        self.drawn.set(true);
        self.slot
    }

    /// The agent is taken to run.
    fn proxy_listens(&self, _destination: &Addr, _port_be: u16) -> bool {
        true
    }
}

/// Whether a block of so many bits holds a key, as the kernel's trie has it.
fn covers(length: u32, block: &BlockKey, key: &BlockKey) -> bool {
    let bytes = |key: &BlockKey| {
        let mut bytes = key.port_be.to_ne_bytes().to_vec();
        bytes.extend(key.pad.to_ne_bytes());
        bytes.extend(key.addr.octets());
        bytes
    };
    let (block, key) = (bytes(block), bytes(key));
    let whole = (length / 8) as usize;
    let mask = !(0xff_u16 >> (length % 8)) as u8;
    let same = |at: usize, mask: u8| match (block.get(at), key.get(at)) {
        (Some(one), Some(other)) => one & mask == other & mask,
        _ => true,
    };
    (0..whole).all(|at| same(at, 0xff)) && same(whole, mask)
}

/// The tables of a node as a connection finds them that arrives at a pod of it.
pub(super) struct Arriving<'a> {
    pub(super) tables: &'a DatapathTables,
    /// Who has published it.
    pub(super) publisher: Publisher,
}

impl InboundView for Arriving<'_> {
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.tables.workloads.get(addr).copied()
    }

    fn publisher(&self) -> Publisher {
        self.publisher
    }

    fn delivered(&self) -> bool {
        false
    }

    fn policy(&self, key: &PolicyKey) -> Option<PolicyVerdict> {
        self.tables.policy.get(key).copied()
    }

    /// An application is taken to listen.
    fn listens(&self) -> bool {
        true
    }

    /// It is none of the kubelet's.
    fn is_probed(&self) -> bool {
        false
    }

    fn strict_unknown(&self) -> bool {
        self.tables.strict_unknown
    }
}

fn at(addr: &Addr, port_be: u16) -> String {
    SocketAddr::new(ip(*addr), u16::from_be(port_be)).to_string()
}

fn service(service: &Service) -> String {
    let names = [
        (service_flags::AFFINITY, "affinity"),
        (service_flags::PROXY, "proxy"),
        (service_flags::KNOWN, "known"),
    ];
    format!("{} slots{}", service.backends, flags(service.flags, &names))
}

fn backend(backend: &Backend) -> String {
    let flags = flags(backend.flags, &[(backend_flags::LOCAL, "local")]);
    format!("{}{flags}", at(&backend.addr, backend.port_be))
}

fn workload(entry: &WorkloadEntry) -> String {
    let names = [
        (workload_flags::LOCAL, "local"),
        (workload_flags::STRICT, "strict"),
        (workload_flags::PLAIN, "plain"),
        (workload_flags::BY_ADDRESS, "by_address"),
        (workload_flags::NATIVE, "native"),
    ];
    let policy = match entry.policy {
        0 => "no policy".to_owned(),
        policy => format!("policy {policy:016x}"),
    };
    format!("{policy}{}", flags(entry.flags, &names))
}

/// `, flags a b`, or nothing.
fn flags(set: u32, names: &[(u32, &str)]) -> String {
    let set: Vec<&str> =
        names.iter().filter(|(flag, _)| set & flag != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { String::new() } else { format!(", flags {}", set.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(prefix: [u8; 4], bits: u32) -> (u32, BlockKey) {
        (BlockKey::PORT_BITS + 96 + bits, BlockKey::new(&Addr::v4(prefix), 443_u16.to_be()))
    }

    #[test]
    fn the_smallest_block_is_found_as_the_kernel_finds_it() {
        let mut tables = DatapathTables::default();
        tables.blocks.insert(block([192, 0, 0, 0], 12), Block { flags: 0 });
        tables.blocks.insert(block([192, 0, 2, 0], 23), Block { flags: block_flags::PROXY });
        let of = |address: [u8; 4], port: u16| {
            let view = Outgoing::new(&tables, 0);
            view.block(&BlockKey::new(&Addr::v4(address), port.to_be())).map(|block| block.flags)
        };
        assert_eq!(of([192, 0, 3, 7], 443), Some(block_flags::PROXY));
        assert_eq!(of([192, 0, 4, 7], 443), Some(0));
        assert_eq!(of([192, 0, 3, 7], 80), None);
        assert_eq!(of([198, 51, 100, 1], 443), None);
    }

    #[test]
    fn what_is_looked_up_is_noted_once_and_in_order() {
        let tables = DatapathTables::default();
        let view = Seen::outbound(Outgoing::new(&tables, 0));
        let key = ServiceKey { addr: Addr::v4([10, 0, 0, 1]), port_be: 80_u16.to_be(), pad: 0 };
        for _ in 0..2 {
            assert!(view.service(&key).is_none());
        }
        let _ = OutboundView::workload(&view, &key.addr);
        let lookups = view.lookups();
        let maps: Vec<&str> = lookups.iter().map(|one| one.map.as_str()).collect();
        assert_eq!(maps, ["SERVICES", "WORKLOADS"]);
        assert_eq!((lookups[0].key.as_str(), lookups[0].value.as_str()), ("10.0.0.1:80", "none"));
    }
}
