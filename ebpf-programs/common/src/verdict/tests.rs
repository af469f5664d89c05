//! Every branch of both decisions, on the host.

extern crate std;

use std::collections::BTreeMap;

use super::*;

const VIP: Addr = Addr::v4([10, 96, 0, 10]);
const LOCAL_POD: Addr = Addr::v4([10, 1, 0, 5]);
const REMOTE_POD: Addr = Addr::v4([10, 1, 1, 5]);
const OUTSIDER: Addr = Addr::v4([192, 0, 2, 1]);
const OWN: Addr = Addr::v4([10, 1, 0, 2]);
const PORT: u16 = 8080_u16.to_be();
const AGENT: u16 = 15001_u16.to_be();

#[derive(Default)]
struct Maps {
    services: BTreeMap<ServiceKey, Service>,
    backends: BTreeMap<(ServiceKey, u32), Backend>,
    workloads: BTreeMap<Addr, WorkloadEntry>,
    blocks: BTreeMap<BlockKey, Block>,
    random: u32,
    listening: bool,
}

impl OutboundView for Maps {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }
    fn backend(&self, service: &ServiceKey, slot: u32) -> Option<Backend> {
        self.backends.get(&(*service, slot)).copied()
    }
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.workloads.get(addr).copied()
    }
    fn block(&self, key: &BlockKey) -> Option<Block> {
        self.blocks.get(key).copied()
    }
    fn random(&self) -> u32 {
        self.random
    }
    fn proxy_listens(&self, _: &Addr, port_be: u16) -> bool {
        self.listening && port_be == AGENT
    }
}

fn pod(flags: u32) -> Pod {
    Pod { addr4: OWN, addr6: Addr::UNSPECIFIED, outbound_port_be: AGENT, pad: 0, flags }
}

fn entry(flags: u32) -> WorkloadEntry {
    WorkloadEntry { flags, pad: 0, policy: 0, class: 0, address_class: 0 }
}

fn maps(backends: &[(Addr, u32)]) -> Maps {
    let key = ServiceKey { addr: VIP, port_be: PORT, pad: 0 };
    let mut maps = Maps { listening: true, ..Maps::default() };
    maps.services.insert(key, Service { backends: backends.len() as u32, flags: 0 });
    for (slot, (addr, flags)) in backends.iter().enumerate() {
        let backend = Backend { addr: *addr, port_be: PORT, pad: 0, flags: *flags };
        maps.backends.insert((key, slot as u32), backend);
    }
    maps.workloads.insert(LOCAL_POD, entry(workload_flags::LOCAL));
    maps.workloads.insert(REMOTE_POD, entry(0));
    maps
}

fn decide(maps: &Maps, flags: u32, addr: Addr) -> Outbound {
    decide_outbound(maps, &pod(flags), &addr, PORT)
}

#[test]
fn a_virtual_address_leads_to_the_backend_that_chance_picks() {
    let mut maps = maps(&[(LOCAL_POD, backend_flags::LOCAL), (REMOTE_POD, 0)]);
    assert_eq!(decide(&maps, 0, VIP), Outbound::local(&LOCAL_POD, PORT));
    maps.random = 7;
    assert_eq!(decide(&maps, 0, VIP), Outbound::proxy(&VIP, AGENT));
}

#[test]
fn with_affinity_chance_has_no_say() {
    let mut maps = maps(&[(LOCAL_POD, backend_flags::LOCAL), (REMOTE_POD, 0)]);
    let key = ServiceKey { addr: VIP, port_be: PORT, pad: 0 };
    maps.services.insert(key, Service { backends: 2, flags: service_flags::AFFINITY });
    let first = decide(&maps, 0, VIP);
    for random in 0..10 {
        maps.random = random;
        assert_eq!(decide(&maps, 0, VIP), first);
    }
}

#[test]
fn what_rules_are_about_goes_to_the_agent_whatever_is_behind_it() {
    let key = ServiceKey { addr: VIP, port_be: PORT, pad: 0 };
    for backends in [&[(LOCAL_POD, backend_flags::LOCAL)][..], &[(OUTSIDER, 0)], &[]] {
        let mut maps = maps(backends);
        let flags = service_flags::PROXY | service_flags::AFFINITY;
        maps.services.insert(key, Service { backends: backends.len() as u32, flags });
        assert_eq!(decide(&maps, 0, VIP), Outbound::proxy(&VIP, AGENT));
        maps.listening = false;
        assert_eq!(decide(&maps, 0, VIP), Outbound::refuse(Reason::ProxyDown, &VIP));
    }
}

#[test]
fn pod_addresses_are_local_proxied_or_outside() {
    let maps = maps(&[]);
    assert_eq!(decide(&maps, 0, LOCAL_POD), Outbound::local(&LOCAL_POD, PORT));
    assert_eq!(decide(&maps, 0, REMOTE_POD), Outbound::proxy(&REMOTE_POD, AGENT));
    assert_eq!(decide(&maps, 0, OUTSIDER), Outbound::pass(Reason::OutsideMesh, &OUTSIDER));
    assert_eq!(decide(&maps, 0, OWN), Outbound::pass(Reason::OwnAddress, &OWN));
    let loopback = Addr::LOOPBACK_V4;
    assert_eq!(decide(&maps, 0, loopback), Outbound::pass(Reason::NeverMeshed, &loopback));
}

#[test]
fn a_workload_that_takes_only_plaintext_is_dialled_directly() {
    let mut maps = maps(&[]);
    maps.workloads.insert(REMOTE_POD, entry(workload_flags::PLAIN));
    let pass = Outbound::pass(Reason::OutsideMesh, &REMOTE_POD);
    assert_eq!(decide(&maps, 0, REMOTE_POD), pass);
}

#[test]
fn a_service_without_endpoints_or_with_a_torn_update_refuses() {
    let mut maps = maps(&[]);
    assert_eq!(decide(&maps, 0, VIP), Outbound::refuse(Reason::NoEndpoint, &VIP));
    let key = ServiceKey { addr: VIP, port_be: PORT, pad: 0 };
    maps.services.insert(key, Service { backends: 3, flags: 0 });
    assert_eq!(decide(&maps, 0, VIP), Outbound::refuse(Reason::Inconsistent, &VIP));
}

#[test]
fn a_dead_agent_refuses_unless_the_pod_fails_open() {
    let mut maps = maps(&[(REMOTE_POD, 0)]);
    maps.listening = false;
    assert_eq!(decide(&maps, 0, VIP), Outbound::refuse(Reason::ProxyDown, &VIP));
    assert_eq!(decide(&maps, 0, REMOTE_POD), Outbound::refuse(Reason::ProxyDown, &REMOTE_POD));
    let open = pod_flags::OUTBOUND_FAIL_OPEN;
    assert_eq!(
        decide(&maps, open, REMOTE_POD),
        Outbound::pass(Reason::ProxyDownFailedOpen, &REMOTE_POD)
    );
    assert_eq!(decide(&maps, 0, OUTSIDER), Outbound::pass(Reason::OutsideMesh, &OUTSIDER));
    assert_eq!(decide(&maps, 0, LOCAL_POD), Outbound::local(&LOCAL_POD, PORT));
}

#[test]
fn a_block_leads_to_the_agent_and_whoever_is_at_the_address_comes_first() {
    let mut maps = maps(&[(LOCAL_POD, backend_flags::LOCAL)]);
    for addr in [OUTSIDER, LOCAL_POD, VIP, OWN] {
        let block = Block { flags: block_flags::PROXY };
        maps.blocks.insert(BlockKey::new(&addr, PORT), block);
    }
    assert_eq!(decide(&maps, 0, OUTSIDER), Outbound::proxy(&OUTSIDER, AGENT));
    assert_eq!(decide(&maps, 0, LOCAL_POD), Outbound::local(&LOCAL_POD, PORT));
    assert_eq!(decide(&maps, 0, VIP), Outbound::local(&LOCAL_POD, PORT));
    assert_eq!(decide(&maps, 0, OWN), Outbound::pass(Reason::OwnAddress, &OWN));
    let elsewhere = decide_outbound(&maps, &pod(0), &OUTSIDER, 1);
    assert_eq!(elsewhere, Outbound::pass(Reason::OutsideMesh, &OUTSIDER));
    maps.listening = false;
    assert_eq!(decide(&maps, 0, OUTSIDER), Outbound::refuse(Reason::ProxyDown, &OUTSIDER));
    maps.blocks.insert(BlockKey::new(&OUTSIDER, PORT), Block { flags: 0 });
    let pass = Outbound::pass(Reason::OutsideMesh, &OUTSIDER);
    assert_eq!(decide(&maps, pod_flags::REGISTRY_ONLY, OUTSIDER), pass);
}

#[test]
fn only_what_nobody_has_registered_is_refused_where_the_mesh_wants_that() {
    let mut maps = maps(&[(REMOTE_POD, 0)]);
    let only = pod_flags::REGISTRY_ONLY;
    let refused = Outbound::refuse(Reason::NotRegistered, &OUTSIDER);
    assert_eq!(decide(&maps, only, OUTSIDER), refused);
    assert_eq!(decide(&maps, only, VIP), Outbound::proxy(&VIP, AGENT));
    assert_eq!(decide(&maps, only, LOCAL_POD), Outbound::local(&LOCAL_POD, PORT));
    assert_eq!(decide(&maps, only, OWN), Outbound::pass(Reason::OwnAddress, &OWN));
    let loopback = Addr::LOOPBACK_V4;
    assert_eq!(decide(&maps, only, loopback), Outbound::pass(Reason::NeverMeshed, &loopback));
    let key = ServiceKey { addr: OUTSIDER, port_be: PORT, pad: 0 };
    maps.services.insert(key, Service { backends: 0, flags: service_flags::KNOWN });
    assert_eq!(decide(&maps, only, OUTSIDER), Outbound::pass(Reason::OutsideMesh, &OUTSIDER));
}

#[derive(Default)]
struct Arriving {
    workloads: BTreeMap<Addr, WorkloadEntry>,
    publisher: Option<Addr>,
    delivered: bool,
    kubelet: bool,
    policies: BTreeMap<PolicyKey, PolicyVerdict>,
    listens: bool,
    probed: bool,
    strict_unknown: bool,
}

impl InboundView for Arriving {
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        self.workloads.get(addr).copied()
    }
    fn publisher(&self) -> Publisher {
        match self.publisher {
            Some(addr) => Publisher::pod(addr),
            None if self.kubelet => Publisher::KUBELET,
            None => Publisher::NOBODY,
        }
    }
    fn delivered(&self) -> bool {
        self.delivered
    }
    fn policy(&self, key: &PolicyKey) -> Option<PolicyVerdict> {
        self.policies.get(key).copied()
    }
    fn listens(&self) -> bool {
        self.listens
    }
    fn is_probed(&self) -> bool {
        self.probed
    }
    fn strict_unknown(&self) -> bool {
        self.strict_unknown
    }
}

impl Arriving {
    fn at(&self, port: u16) -> Inbound {
        self.from(OUTSIDER, port)
    }

    fn from(&self, remote: Addr, port: u16) -> Inbound {
        decide_inbound(self, &LOCAL_POD, port, &remote)
    }
}

const TUNNEL: Inbound = Inbound::Steer(Reason::InboundTunnel);
const CAPTURED: Inbound = Inbound::Steer(Reason::InboundCaptured);

const STRICT: Option<u32> = Some(workload_flags::LOCAL | workload_flags::STRICT);
const PERMISSIVE: Option<u32> = Some(workload_flags::LOCAL);

fn arrive(workload: Option<u32>, published: bool, strict_unknown: bool, port: u16) -> Inbound {
    let workloads = workload.map(|flags| (LOCAL_POD, entry(flags))).into_iter().collect();
    let publisher = published.then_some(OWN);
    let view = Arriving { workloads, publisher, strict_unknown, ..Arriving::default() };
    view.at(port)
}

#[test]
fn strict_pods_take_only_the_tunnel_and_published_connections() {
    assert_eq!(arrive(STRICT, false, true, 80), Inbound::Drop(Reason::StrictPlaintext));
    assert_eq!(arrive(STRICT, true, true, 80), Inbound::Pass(Reason::InboundLocal));
    assert_eq!(arrive(STRICT, false, true, HBONE_PORT), TUNNEL);
}

#[test]
fn permissive_pods_take_plaintext_and_the_tunnel() {
    assert_eq!(arrive(PERMISSIVE, false, true, 80), Inbound::Pass(Reason::InboundPlaintext));
    assert_eq!(arrive(PERMISSIVE, false, false, HBONE_PORT), TUNNEL);
}

#[test]
fn what_the_agent_delivers_passes_but_for_the_port_of_the_tunnel() {
    let workloads = BTreeMap::from([(LOCAL_POD, entry(STRICT.unwrap()))]);
    let mut view = Arriving { workloads, delivered: true, ..Arriving::default() };
    assert_eq!(view.at(80), Inbound::Pass(Reason::InboundTransparent));
    assert_eq!(view.at(HBONE_PORT), TUNNEL);
    view.delivered = false;
    assert_eq!(view.at(80), Inbound::Drop(Reason::StrictPlaintext));
}

#[test]
fn an_address_that_no_workload_owns_is_no_way_round_strict() {
    assert_eq!(arrive(None, false, true, 80), Inbound::Drop(Reason::StrictPlaintext));
    assert_eq!(arrive(None, false, false, 80), Inbound::Pass(Reason::InboundPlaintext));
}

#[test]
fn traffic_inside_the_pod_is_left_alone() {
    let mut view = Arriving { strict_unknown: true, ..Arriving::default() };
    view.workloads.insert(LOCAL_POD, WorkloadEntry { policy: 1, ..entry(STRICT.unwrap()) });
    let loopback = Addr::v4([127, 0, 0, 6]);
    for (local, remote) in [(LOCAL_POD, loopback), (loopback, loopback), (LOCAL_POD, LOCAL_POD)] {
        let decision = decide_inbound(&view, &local, HBONE_PORT, &remote);
        assert_eq!(decision, Inbound::Pass(Reason::InboundSelf));
    }
}

/// A pod with policy 7 and these answers; its neighbour `OWN` is of class 1, and of class 2 by
/// address.
fn guarded(flags: u32, answers: &[(u64, u32, u32)]) -> Arriving {
    let mut view = Arriving::default();
    view.workloads.insert(LOCAL_POD, WorkloadEntry { policy: 7, ..entry(flags) });
    let source = WorkloadEntry { class: 1, address_class: 2, ..entry(workload_flags::LOCAL) };
    view.workloads.insert(OWN, source);
    for (class, port, verdict) in answers {
        let key = PolicyKey { policy: 7, class: *class, port: *port, pad: 0 };
        view.policies.insert(key, PolicyVerdict { verdict: *verdict });
    }
    view
}

#[test]
fn an_exact_port_beats_the_default_and_what_is_not_written_is_denied() {
    use policy_verdict::{ALLOW, DENY};
    let mut view = guarded(0, &[(1, 0, ALLOW), (1, 80, DENY), (0, 81, ALLOW)]);
    let denied = Inbound::Drop(Reason::PolicyDenied);
    view.publisher = Some(OWN);
    assert_eq!(view.at(80), denied);
    assert_eq!(view.at(81), Inbound::Pass(Reason::InboundLocal));
    assert_eq!(view.at(HBONE_PORT), TUNNEL);
    view.publisher = None;
    assert_eq!(view.at(80), denied);
    assert_eq!(view.at(81), Inbound::Pass(Reason::InboundPlaintext));
}

#[test]
fn a_port_that_takes_no_plaintext_says_so() {
    let view = guarded(0, &[(0, 0, policy_verdict::ALLOW), (0, 80, policy_verdict::STRICT)]);
    assert_eq!(view.at(80), Inbound::Drop(Reason::StrictPlaintext));
    assert_eq!(view.at(81), Inbound::Pass(Reason::InboundPlaintext));
}

#[test]
fn a_policy_by_address_asks_for_the_class_by_address() {
    let answers = [(1, 0, policy_verdict::DENY), (2, 0, policy_verdict::ALLOW)];
    let mut view = guarded(workload_flags::BY_ADDRESS, &answers);
    view.publisher = Some(OWN);
    assert_eq!(view.at(80), Inbound::Pass(Reason::InboundLocal));
    let mut view = guarded(0, &answers);
    view.publisher = Some(OWN);
    assert_eq!(view.at(80), Inbound::Drop(Reason::PolicyDenied));
}

#[test]
fn a_published_source_without_a_class_is_not_taken_for_an_unknown_one() {
    let mut view = guarded(0, &[(0, 0, policy_verdict::ALLOW)]);
    for publisher in [REMOTE_POD, OUTSIDER] {
        view.workloads.insert(REMOTE_POD, entry(0));
        view.publisher = Some(publisher);
        assert_eq!(view.at(80), Inbound::Drop(Reason::PolicyDenied));
    }
}

#[test]
fn what_may_be_a_native_tunnel_goes_to_the_agent_if_somebody_listens() {
    for flags in [STRICT, PERMISSIVE] {
        let mut view = Arriving { listens: true, ..Arriving::default() };
        view.workloads.insert(LOCAL_POD, entry(flags.unwrap()));
        view.workloads.insert(REMOTE_POD, entry(workload_flags::NATIVE));
        assert_eq!(view.from(REMOTE_POD, 80), CAPTURED);
        assert_ne!(view.from(OUTSIDER, 80), CAPTURED, "an outsider speaks no tunnel");
        view.workloads.insert(REMOTE_POD, entry(0));
        assert_ne!(view.from(REMOTE_POD, 80), CAPTURED, "nor does a peer of HBONE alone");
        view.workloads.insert(REMOTE_POD, entry(workload_flags::NATIVE));
        view.publisher = Some(OWN);
        assert_eq!(view.from(REMOTE_POD, 80), Inbound::Pass(Reason::InboundLocal));
        view.publisher = None;
        view.listens = false;
        assert_eq!(view.from(REMOTE_POD, 80), Inbound::Drop(Reason::PortClosed));
    }
}

#[test]
fn a_pod_that_takes_only_plaintext_takes_it_without_the_agent() {
    let mut view = Arriving { listens: true, ..Arriving::default() };
    view.workloads.insert(LOCAL_POD, entry(workload_flags::LOCAL | workload_flags::PLAIN));
    view.workloads.insert(REMOTE_POD, entry(workload_flags::NATIVE));
    assert_eq!(view.from(REMOTE_POD, 80), Inbound::Pass(Reason::InboundPlaintext));
}

#[test]
fn plaintext_to_a_policy_by_address_is_judged_by_the_agent() {
    let mut view = guarded(workload_flags::BY_ADDRESS, &[(1, 0, policy_verdict::ALLOW)]);
    assert_eq!(view.at(80), Inbound::Drop(Reason::PortClosed));
    view.listens = true;
    assert_eq!(view.at(80), CAPTURED);
}

#[test]
fn what_depends_on_requests_is_for_the_agent_whoever_comes() {
    use policy_verdict::{DENY, JUDGE};
    let mut view = guarded(0, &[(0, 0, JUDGE), (1, 0, JUDGE), (1, 81, DENY)]);
    for publisher in [None, Some(OWN)] {
        view.publisher = publisher;
        view.listens = true;
        assert_eq!(view.at(80), CAPTURED);
        view.listens = false;
        assert_eq!(view.at(80), Inbound::Drop(Reason::PortClosed), "a closed port was opened");
    }
    assert_eq!(view.at(81), Inbound::Drop(Reason::PolicyDenied));
}

#[test]
fn the_kubelet_passes_at_the_ports_that_it_probes_and_is_nobody_at_others() {
    let answers = [(0, 0, policy_verdict::STRICT)];
    let mut view = guarded(workload_flags::STRICT | workload_flags::BY_ADDRESS, &answers);
    view.kubelet = true;
    view.probed = true;
    assert_eq!(view.at(80), Inbound::Pass(Reason::InboundProbe));
    view.probed = false;
    assert_eq!(view.at(80), Inbound::Drop(Reason::PortClosed));
    view.kubelet = false;
    view.probed = true;
    assert_eq!(view.at(80), Inbound::Drop(Reason::PortClosed), "others do not pass there");
    let view = Arriving { kubelet: true, ..guarded(workload_flags::STRICT, &answers) };
    assert_eq!(view.at(80), Inbound::Drop(Reason::StrictPlaintext));
}
