//! Every branch of the gate, on the host.

extern crate std;

use std::{collections::BTreeMap, vec::Vec};

use super::*;
use crate::{Backend, Block, BlockKey, Service};

const PODS: u64 = 100;
const HOST: u64 = 1;
const POD_NETNS: u64 = 7;
const LEVEL: u32 = 2;
const MESHED: Addr = Addr::v4([10, 1, 0, 5]);
const PLAIN: Addr = Addr::v4([10, 1, 0, 6]);
const PLAIN_LOCAL: Addr = Addr::v4([10, 1, 0, 7]);
const VIP: Addr = Addr::v4([10, 96, 0, 10]);
const OUTSIDE: Addr = Addr::v4([192, 0, 2, 1]);
const PORT: u16 = 80_u16.to_be();

/// The cgroups that the process is in, from the root on, and what else can be asked.
struct Process {
    path: Vec<u64>,
    marks: BTreeMap<GateKey, u32>,
    watched: bool,
}

impl OutboundView for Process {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        key.addr.equals(&VIP).then_some(Service { backends: 1, flags: 0 })
    }
    fn backend(&self, _: &ServiceKey, _: u32) -> Option<Backend> {
        None
    }
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        let flags = [
            (MESHED, 0),
            (PLAIN, workload_flags::PLAIN),
            (PLAIN_LOCAL, workload_flags::PLAIN | workload_flags::LOCAL),
        ];
        let found = flags.iter().find(|(known, _)| known.equals(addr));
        found.map(|(_, flags)| WorkloadEntry {
            flags: *flags,
            pad: 0,
            policy: 0,
            class: 0,
            address_class: 0,
        })
    }
    fn block(&self, _: &BlockKey) -> Option<Block> {
        None
    }
    fn random(&self) -> u32 {
        0
    }
    fn proxy_listens(&self, _: &Addr, _: u16) -> bool {
        true
    }
}

impl GateView for Process {
    fn cgroup_at(&self, level: u32) -> u64 {
        self.path.get(level as usize).copied().unwrap_or(0)
    }
    fn mark(&self, key: &GateKey) -> u32 {
        self.marks.get(key).copied().unwrap_or(0)
    }
    fn agent_watches(&self) -> bool {
        self.watched
    }
}

fn process(path: &[u64], marks: &[(u64, u32)], watched: bool) -> Process {
    let marks = marks.iter().map(|(id, mark)| (GateKey::cgroup(*id), *mark)).collect();
    Process { path: path.to_vec(), marks, watched }
}

fn gate(mode: u32) -> Gate {
    Gate { cgroup: PODS, host_netns: HOST, level: LEVEL, mode }
}

fn held(path: &[u64], marks: &[(u64, u32)], watched: bool) -> bool {
    is_held(&process(path, marks, watched), &gate(gate_mode::REFUSE), POD_NETNS).held
}

#[test]
fn outside_the_pods_cgroup_nobody_is_held() {
    let marks = [(200, gate_mark::HELD)];
    for path in [&[50][..], &[50, 60], &[50, 60, 200], &[50, 60, 99, 200], &[PODS, 200]] {
        assert!(!held(path, &marks, true), "{path:?}");
    }
    assert!(!held(&[50, 60, PODS], &marks, true), "in it, but below no pod's");
}

#[test]
fn the_hosts_namespace_and_a_gate_that_is_off_hold_nobody() {
    let process = process(&[50, 60, PODS, 200], &[(200, gate_mark::HELD)], true);
    assert!(is_held(&process, &gate(gate_mode::REFUSE), POD_NETNS).held);
    assert!(!is_held(&process, &gate(gate_mode::REFUSE), HOST).held);
    assert!(!is_held(&process, &gate(gate_mode::OFF), POD_NETNS).held);
    let never_written = Gate { cgroup: 0, host_netns: 0, level: 0, mode: 0 };
    assert!(!is_held(&process, &never_written, POD_NETNS).held);
}

#[test]
fn the_innermost_mark_counts() {
    let path = [50, 60, PODS, 200, 300, 400];
    let (open, hold) = (gate_mark::OPEN, gate_mark::HELD);
    for (marks, expected) in [
        (&[(200, hold)][..], true),
        (&[(200, open)], false),
        (&[(200, open), (300, hold)], true),
        (&[(200, hold), (400, open)], false),
    ] {
        assert_eq!(held(&path, marks, true), expected, "{marks:?}");
        assert_eq!(held(&path, marks, false), expected, "marks hold without an agent: {marks:?}");
    }
}

#[test]
fn what_is_known_of_the_namespace_counts_more_than_the_cgroup() {
    let path = [50, 60, PODS, 200];
    for (netns, cgroup, expected) in [
        (gate_mark::OPEN, gate_mark::HELD, false),
        (gate_mark::HELD, gate_mark::OPEN, true),
        (gate_mark::OPEN, 0, false),
    ] {
        let mut process = process(&path, &[(200, cgroup)], true);
        process.marks.insert(GateKey::netns(POD_NETNS), netns);
        let held = is_held(&process, &gate(gate_mode::REFUSE), POD_NETNS);
        assert_eq!(held, Held { held: expected, cgroup: 0 });
        // Outside of the pods' cgroup, the mark is of no account.
        process.path = [50, 60].to_vec();
        assert!(!is_held(&process, &gate(gate_mode::REFUSE), POD_NETNS).held);
    }
}

#[test]
fn an_unknown_cgroup_is_held_only_while_somebody_finds_out_whose_it_is() {
    let path = [50, 60, PODS, 200, 300];
    let gate = gate(gate_mode::PASS);
    let watched = is_held(&process(&path, &[], true), &gate, POD_NETNS);
    assert_eq!(watched, Held { held: true, cgroup: 300 });
    assert!(!is_held(&process(&path, &[], false), &gate, POD_NETNS).held);
}

#[test]
fn below_the_last_level_a_process_belongs_to_whom_the_last_level_belongs() {
    let deep = [50, 60, PODS, 1, 2, 3, 4, 5, 6];
    assert!(held(&deep, &[(4, gate_mark::HELD)], false));
    assert!(!held(&deep, &[(5, gate_mark::HELD)], false));
}

#[test]
fn only_connections_to_the_mesh_are_refused_or_counted() {
    let process = process(&[], &[], true);
    let decide = |mode, addr: Addr| {
        let verdict = decide_gated(&process, &gate(mode), &addr, PORT);
        (verdict.action, verdict.reason)
    };
    use crate::Action::{Pass, Refuse};
    for addr in [MESHED, PLAIN_LOCAL, VIP] {
        assert_eq!(decide(gate_mode::REFUSE, addr), (Refuse, Reason::Gated), "{addr:?}");
        assert_eq!(decide(gate_mode::PASS, addr), (Pass, Reason::GatedOpen), "{addr:?}");
    }
    for addr in [PLAIN, OUTSIDE, Addr::LOOPBACK_V4, Addr::LOOPBACK_V6] {
        assert_eq!(decide(gate_mode::REFUSE, addr), (Pass, Reason::NotEnrolled), "{addr:?}");
    }
}
