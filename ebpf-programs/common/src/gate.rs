//! The startup gate: what becomes of connections of processes that run where pods run, while nobody
//! has led their network namespace through the mesh yet.

use crate::{
    Addr, Outbound, OutboundView, Reason, ServiceKey, WorkloadEntry, map_type, service_flags,
    workload_flags,
};

/// How many levels of cgroups below [`Gate::cgroup`] are looked at: the kubelet has a class of
/// service, a pod and a container; the last one is for what runs below a container.
pub const GATE_LEVELS: u32 = 4;

/// Values of [`Gate::mode`].
pub mod gate_mode {
    /// There is no gate. What a map that nobody has written to says.
    pub const OFF: u32 = 0;
    /// What is not programmed yet is refused.
    pub const REFUSE: u32 = 1;
    /// It is let through, and counted.
    pub const PASS: u32 = 2;
}

/// Values of `GATE_MARKS`.
pub mod gate_mark {
    /// A pod's that is to be in the mesh: gated wherever its namespace is not programmed.
    pub const HELD: u32 = 1;
    /// Not to be in the mesh, or never to be held up.
    pub const OPEN: u32 = 2;
}

/// What a [`GateKey`] names.
pub mod gate_kind {
    /// A cgroup, by its id.
    pub const CGROUP: u32 = 1;
    /// A network namespace, by its cookie.
    pub const NETNS: u32 = 2;
}

map_type! {
    /// `GATE_MARKS: GateKey -> mark (u32)`, see [`gate_mark`].
    pub struct GateKey: 16 {
        /// An id or a cookie.
        pub id: u64,
        /// See [`gate_kind`].
        pub kind: u32,
        /// Zero.
        pub pad: u32,
    }
}

impl GateKey {
    /// A cgroup.
    #[inline(always)]
    pub const fn cgroup(id: u64) -> Self {
        Self { id, kind: gate_kind::CGROUP, pad: 0 }
    }

    /// A network namespace.
    #[inline(always)]
    pub const fn netns(cookie: u64) -> Self {
        Self { id: cookie, kind: gate_kind::NETNS, pad: 0 }
    }
}

map_type! {
    /// `GATE: [Gate; 1]`.
    pub struct Gate: 24 {
        /// Id of the cgroup below which pods run.
        pub cgroup: u64,
        /// Cookie of the host's own network namespace, which is never gated.
        pub host_netns: u64,
        /// Level of `cgroup` in the hierarchy; the root's is 0.
        pub level: u32,
        /// See [`gate_mode`].
        pub mode: u32,
    }
}

/// What the gate may ask about the process that connects.
pub trait GateView {
    /// Id of the calling process's cgroup at this level of the hierarchy, 0 where it is above.
    fn cgroup_at(&self, level: u32) -> u64;
    /// `GATE_MARKS`; 0 where there is no mark.
    fn mark(&self, key: &GateKey) -> u32;
    /// Whether an agent runs that finds out whose an unknown cgroup is.
    fn agent_watches(&self) -> bool;
}

/// Whose a process is, as far as the gate is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whether its connections to the mesh are to be held up.
    pub held: bool,
    /// The cgroup that says so, or the process's own; 0 where its namespace says it, or nothing does.
    pub cgroup: u64,
}

/// Decides whether the gate is meant for a process of a network namespace that is not programmed.
#[inline(always)]
pub fn is_held<V: GateView>(view: &V, gate: &Gate, netns_cookie: u64) -> Held {
    let not = Held { held: false, cgroup: 0 };
    if gate.mode == gate_mode::OFF
        || netns_cookie == gate.host_netns
        || view.cgroup_at(gate.level) != gate.cgroup
    {
        return not;
    }
    let mark = view.mark(&GateKey::netns(netns_cookie));
    if mark != 0 {
        return Held { held: mark == gate_mark::HELD, cgroup: 0 };
    }
    // The innermost mark counts: it is the most exact one.
    let mut own = 0;
    let mut above = GATE_LEVELS;
    while above > 0 {
        let cgroup = view.cgroup_at(gate.level + above);
        above -= 1;
        if cgroup == 0 {
            continue;
        }
        if own == 0 {
            own = cgroup;
        }
        let mark = view.mark(&GateKey::cgroup(cgroup));
        if mark != 0 {
            return Held { held: mark == gate_mark::HELD, cgroup };
        }
    }
    // Without an agent nobody would ever say that it may go on, a pod of the cluster's own least of
    // all.
    Held { held: own != 0 && view.agent_watches(), cgroup: own }
}

/// Decides about a connection of a process that is held up: enrolment would leave alone what does
/// not go to the mesh, and so does the gate.
#[inline(always)]
pub fn decide_gated<V: OutboundView>(view: &V, gate: &Gate, addr: &Addr, port_be: u16) -> Outbound {
    if addr.is_never_meshed() || !is_meshed(view, addr, port_be) {
        Outbound::pass(Reason::NotEnrolled, addr)
    } else if gate.mode == gate_mode::REFUSE {
        Outbound::refuse(Reason::Gated, addr)
    } else {
        Outbound::pass(Reason::GatedOpen, addr)
    }
}

#[inline(always)]
fn is_meshed<V: OutboundView>(view: &V, addr: &Addr, port_be: u16) -> bool {
    if let Some(service) = view.service(&ServiceKey { addr: *addr, port_be, pad: 0 }) {
        return service.flags & service_flags::KNOWN == 0;
    }
    match view.workload(addr) {
        Some(workload) => takes_the_mesh(&workload),
        None => false,
    }
}

/// A pod of this node is reached as a published connection even where it takes plaintext only.
#[inline(always)]
fn takes_the_mesh(workload: &WorkloadEntry) -> bool {
    workload.has(workload_flags::LOCAL) || !workload.has(workload_flags::PLAIN)
}

#[cfg(test)]
mod tests;
