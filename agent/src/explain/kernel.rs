//! The programs' decisions on the compiled tables, with what they look up.

use std::{cell::RefCell, net::SocketAddr};

use undermesh_datapath::flag_words;
use undermesh_ebpf_common::{
    ANY_PORT, Addr, Backend, Block, BlockKey, InboundView, OutboundView, PolicyKey, PolicyVerdict,
    Publisher, Service, ServiceKey, UNKNOWN_CLASS, WorkloadEntry, backend_flags, block_flags,
    policy_verdict, service_flags, workload_flags,
};
use undermesh_snapshot::{OutgoingView, ip, socket};

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

impl Seen<OutgoingView<'_>> {
    /// Whether chance had a say.
    pub(super) fn has_drawn(&self) -> bool {
        self.view.has_drawn()
    }
}

impl<V: OutboundView> OutboundView for Seen<V> {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        let found = self.view.service(key);
        self.note("SERVICES", socket(key.addr, key.port_be).to_string(), found, service);
        found
    }

    fn backend(&self, service: &ServiceKey, slot: u32) -> Option<Backend> {
        let found = self.view.backend(service, slot);
        let key = format!("{} slot {slot}", socket(service.addr, service.port_be));
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
        self.note("BLOCKS", socket(key.addr, key.port_be).to_string(), found, |block| {
            flags(block.flags, &block_flags::NAMES)
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

fn service(service: &Service) -> String {
    format!("{} slots{}", service.backends, flags(service.flags, &service_flags::NAMES))
}

fn backend(backend: &Backend) -> String {
    let flags = flags(backend.flags, &backend_flags::NAMES);
    format!("{}{flags}", socket(backend.addr, backend.port_be))
}

fn workload(entry: &WorkloadEntry) -> String {
    let policy = match entry.policy {
        0 => "no policy".to_owned(),
        policy => format!("policy {policy:016x}"),
    };
    format!("{policy}{}", flags(entry.flags, &workload_flags::NAMES))
}

/// `, flags a b`, or nothing.
fn flags(set: u32, names: &[(u32, &str)]) -> String {
    let set = flag_words(set, names);
    if set.is_empty() { String::new() } else { format!(", flags {}", set.join(" ")) }
}

#[cfg(test)]
mod tests {
    use undermesh_snapshot::DatapathTables;

    use super::*;

    #[test]
    fn what_is_looked_up_is_noted_once_and_in_order() {
        let tables = DatapathTables::default();
        let view = Seen::outbound(OutgoingView::new(&tables, 0));
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
