//! The decisions, as pure functions over what the maps say.
//!
//! The programs hand in a view of their maps; tests hand in plain collections. Everything is
//! inlined, so that the verifier sees one straight function per hook.

use crate::{
    ANY_PORT, Addr, Backend, Block, BlockKey, HBONE_PORT, Pod, PolicyKey, PolicyVerdict, Reason,
    Service, ServiceKey, UNKNOWN_CLASS, WorkloadEntry, affinity_slot, backend_flags, block_flags,
    pod_flags, policy_verdict, service_flags, workload_flags,
};

/// What `connect4` and `connect6` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave the connection as it is.
    Pass,
    /// Lead it to a pod of this node, over a plain kernel connection.
    Local,
    /// Lead it to the agent's listener on the loopback address of its family.
    Proxy,
    /// Answer ECONNREFUSED: lead it to port 0, where nothing can listen.
    Refuse,
}

/// An outbound verdict. A struct whose fields are all set in every case, rather than an enum with
/// payloads: LLVM copies unset payloads around, and the verifier refuses to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// What to do.
    pub action: Action,
    /// Why; this is what is counted.
    pub reason: Reason,
    /// The destination to write, for every action but `Pass`.
    pub to: Addr,
    /// The port to write, for every action but `Pass`.
    pub to_port_be: u16,
}

impl Outbound {
    #[inline(always)]
    const fn new(action: Action, reason: Reason, to: Addr, to_port_be: u16) -> Self {
        Self { action, reason, to, to_port_be }
    }

    /// Leave a connection to `dialled` alone.
    #[inline(always)]
    pub const fn pass(reason: Reason, dialled: &Addr) -> Self {
        Self::new(Action::Pass, reason, *dialled, 0)
    }

    /// Refuse a connection to `dialled`.
    #[inline(always)]
    pub const fn refuse(reason: Reason, dialled: &Addr) -> Self {
        Self::new(Action::Refuse, reason, dialled.loopback(), 0)
    }

    /// Lead to a pod of this node.
    #[inline(always)]
    pub const fn local(addr: &Addr, port_be: u16) -> Self {
        Self::new(Action::Local, Reason::Local, *addr, port_be)
    }

    /// Lead a connection to `dialled` to the agent.
    #[inline(always)]
    pub const fn proxy(dialled: &Addr, port_be: u16) -> Self {
        Self::new(Action::Proxy, Reason::Proxied, dialled.loopback(), port_be)
    }
}

/// What an outbound decision may look up.
pub trait OutboundView {
    /// `SERVICES`.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// `BACKENDS`.
    fn backend(&self, service: &ServiceKey, slot: u32) -> Option<Backend>;
    /// `WORKLOADS`.
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry>;
    /// `BLOCKS`: the smallest block that the key lies in.
    fn block(&self, key: &BlockKey) -> Option<Block>;
    /// A random number.
    fn random(&self) -> u32;
    /// Whether the agent listens at this port of the pod's loopback address, for a destination
    /// of this family.
    fn proxy_listens(&self, destination: &Addr, port_be: u16) -> bool;
}

/// Decides where an enrolled pod's TCP connection goes.
#[inline(always)]
pub fn decide_outbound<V: OutboundView>(
    view: &V,
    pod: &Pod,
    addr: &Addr,
    port_be: u16,
) -> Outbound {
    if addr.is_never_meshed() {
        return Outbound::pass(Reason::NeverMeshed, addr);
    }
    let key = ServiceKey { addr: *addr, port_be, pad: 0 };
    if let Some(service) = view.service(&key) {
        if service.flags & service_flags::PROXY != 0 {
            return to_proxy(view, pod, addr);
        }
        if service.flags & service_flags::KNOWN != 0 {
            return Outbound::pass(Reason::OutsideMesh, addr);
        }
        if service.backends == 0 {
            return Outbound::refuse(Reason::NoEndpoint, addr);
        }
        let slot = if service.flags & service_flags::AFFINITY != 0 {
            affinity_slot(&pod.source_for(addr), service.backends)
        } else {
            view.random() % service.backends
        };
        let Some(backend) = view.backend(&key, slot) else {
            return Outbound::refuse(Reason::Inconsistent, addr);
        };
        if backend.flags & backend_flags::LOCAL != 0 {
            return Outbound::local(&backend.addr, backend.port_be);
        }
        return to_proxy(view, pod, addr);
    }
    if pod.owns(addr) {
        return Outbound::pass(Reason::OwnAddress, addr);
    }
    match view.workload(addr) {
        None => outside(view, pod, addr, port_be),
        Some(workload) if workload.has(workload_flags::LOCAL) => Outbound::local(addr, port_be),
        Some(workload) if workload.has(workload_flags::PLAIN) => {
            Outbound::pass(Reason::OutsideMesh, addr)
        }
        Some(_) => to_proxy(view, pod, addr),
    }
}

/// Nobody of the mesh is at the address: somebody may be registered for a block that it lies in.
#[inline(always)]
fn outside<V: OutboundView>(view: &V, pod: &Pod, addr: &Addr, port_be: u16) -> Outbound {
    match view.block(&BlockKey::new(addr, port_be)) {
        Some(block) if block.flags & block_flags::PROXY != 0 => to_proxy(view, pod, addr),
        Some(_) => Outbound::pass(Reason::OutsideMesh, addr),
        None if pod.flags & pod_flags::REGISTRY_ONLY != 0 => {
            Outbound::refuse(Reason::NotRegistered, addr)
        }
        None => Outbound::pass(Reason::OutsideMesh, addr),
    }
}

#[inline(always)]
fn to_proxy<V: OutboundView>(view: &V, pod: &Pod, addr: &Addr) -> Outbound {
    if view.proxy_listens(addr, pod.outbound_port_be) {
        Outbound::proxy(addr, pod.outbound_port_be)
    } else if pod.flags & pod_flags::OUTBOUND_FAIL_OPEN != 0 {
        Outbound::pass(Reason::ProxyDownFailedOpen, addr)
    } else {
        Outbound::refuse(Reason::ProxyDown, addr)
    }
}

/// What `sk_lookup` does with a new inbound TCP connection, and the reason that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Leave it to the kernel's own lookup.
    Pass(Reason),
    /// Hand it to the agent's listener, and drop it where there is none.
    Steer(Reason),
    /// Drop it; the client sees a reset.
    Drop(Reason),
}

/// Who has published an arriving connection. A struct rather than an option with a payload, as
/// [`Outbound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// Whether a pod has that is still enrolled.
    pub known: bool,
    /// Whether the kubelet has.
    pub kubelet: bool,
    /// The pod's own address, of the connection's family. Not the connection's: a pod may bind to
    /// any address, but it has the identity of its own one.
    pub addr: Addr,
}

impl Publisher {
    /// Nobody has.
    pub const NOBODY: Self = Self { known: false, kubelet: false, addr: Addr::UNSPECIFIED };
    /// The kubelet has.
    pub const KUBELET: Self = Self { kubelet: true, ..Self::NOBODY };

    /// A pod has.
    #[inline(always)]
    pub const fn pod(addr: Addr) -> Self {
        Self { known: true, addr, ..Self::NOBODY }
    }
}

/// What an inbound decision may look up.
pub trait InboundView {
    /// `WORKLOADS`.
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry>;
    /// Who has published this connection in `LOCAL_TUPLES`.
    fn publisher(&self) -> Publisher;
    /// Whether the agent is delivering exactly this connection, as `DELIVERIES` says.
    fn delivered(&self) -> bool;
    /// `POLICY`.
    fn policy(&self, key: &PolicyKey) -> Option<PolicyVerdict>;
    /// `LISTENING`: whether an application listens where the connection goes.
    fn listens(&self) -> bool;
    /// `PROBE_PORTS`: whether the kubelet has been asked to probe where the connection goes.
    fn is_probed(&self) -> bool;
    /// `Settings::strict_unknown`.
    fn strict_unknown(&self) -> bool;
}

/// Decides what becomes of a TCP connection that arrives in an enrolled pod's network namespace.
#[inline(always)]
pub fn decide_inbound<V: InboundView>(
    view: &V,
    local: &Addr,
    local_port: u16,
    remote: &Addr,
) -> Inbound {
    // Loopback sources cannot come from outside: the kernel drops them as martians.
    if local.is_loopback() || remote.is_loopback() || local.equals(remote) {
        return Inbound::Pass(Reason::InboundSelf);
    }
    let (policy, flags) = match view.workload(local) {
        Some(_) if local_port == HBONE_PORT => return Inbound::Steer(Reason::InboundTunnel),
        Some(workload) => (workload.policy, workload.flags),
        None if view.strict_unknown() => (0, workload_flags::STRICT | workload_flags::PLAIN),
        None => (0, workload_flags::PLAIN),
    };
    if view.delivered() {
        return Inbound::Pass(Reason::InboundTransparent);
    }
    let publisher = view.publisher();
    if publisher.kubelet && view.is_probed() {
        return Inbound::Pass(Reason::InboundProbe);
    }
    if !publisher.known && is_for_the_agent(view, flags, remote) {
        return to_agent(view);
    }
    let allowed = if publisher.known { Reason::InboundLocal } else { Reason::InboundPlaintext };
    let reason = if policy != 0 {
        ask_policy(view, policy, flags, local_port, &publisher, allowed)
    } else if !publisher.known && flags & workload_flags::STRICT != 0 {
        Reason::StrictPlaintext
    } else {
        allowed
    };
    match reason {
        Reason::InboundLocal | Reason::InboundPlaintext => Inbound::Pass(reason),
        Reason::InboundCaptured => to_agent(view),
        _ => Inbound::Drop(reason),
    }
}

/// Hands a connection to the agent. Dropping what nobody would accept keeps a closed port closed, and
/// never opens one: should the map be behind the truth, the connection is refused and not let past.
#[inline(always)]
fn to_agent<V: InboundView>(view: &V) -> Inbound {
    if view.listens() {
        Inbound::Steer(Reason::InboundCaptured)
    } else {
        Inbound::Drop(Reason::PortClosed)
    }
}

/// Whether only the agent can tell what an unpublished connection is: it may be a tunnel, or its
/// address decides. All other plaintext is judged here and never enters user space.
#[inline(always)]
fn is_for_the_agent<V: InboundView>(view: &V, flags: u32, remote: &Addr) -> bool {
    if flags & workload_flags::BY_ADDRESS != 0 {
        return true;
    }
    flags & workload_flags::PLAIN == 0
        && view.workload(remote).is_some_and(|source| source.has(workload_flags::NATIVE))
}

/// What the destination's policy says: `allowed`, that only the agent can tell, or why not. A source that is published and has
/// no class is not an unknown one, which a DENY rule about its identity would let through.
#[inline(always)]
fn ask_policy<V: InboundView>(
    view: &V,
    policy: u64,
    flags: u32,
    port: u16,
    publisher: &Publisher,
    allowed: Reason,
) -> Reason {
    let mut class = UNKNOWN_CLASS;
    if publisher.known {
        class = match view.workload(&publisher.addr) {
            Some(source) if flags & workload_flags::BY_ADDRESS != 0 => source.address_class,
            Some(source) => source.class,
            None => UNKNOWN_CLASS,
        };
        if class == UNKNOWN_CLASS {
            return Reason::PolicyDenied;
        }
    }
    let mut key = PolicyKey { policy, class, port: port as u32, pad: 0 };
    let mut found = view.policy(&key);
    if found.is_none() {
        key.port = ANY_PORT;
        found = view.policy(&key);
    }
    match found {
        Some(found) if found.verdict == policy_verdict::ALLOW => allowed,
        Some(found) if found.verdict == policy_verdict::STRICT => Reason::StrictPlaintext,
        Some(found) if found.verdict == policy_verdict::JUDGE => Reason::InboundCaptured,
        _ => Reason::PolicyDenied,
    }
}

#[cfg(test)]
mod tests;
