//! The decisions, as pure functions over what the maps say.
//!
//! The programs hand in a view of their maps; tests hand in plain collections. Everything is
//! inlined, so that the verifier sees one straight function per hook.

use crate::{
    Addr, Backend, HBONE_PORT, Listener, Pod, Reason, Service, ServiceKey, WorkloadEntry,
    backend_flags, pod_flags, workload_flags,
};

/// What `connect4` and `connect6` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Leave the connection as it is.
    Pass(Reason),
    /// Lead it to a pod of this node, over a plain kernel connection.
    Local {
        /// The pod's address.
        addr: Addr,
        /// The pod's port.
        port_be: u16,
    },
    /// Lead it to the agent's listener on the loopback address of this family.
    Proxy {
        /// The listener's port.
        port_be: u16,
    },
    /// Answer ECONNREFUSED.
    Refuse(Reason),
}

impl Outbound {
    /// The reason that is counted.
    #[inline(always)]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Pass(reason) | Self::Refuse(reason) => *reason,
            Self::Local { .. } => Reason::Local,
            Self::Proxy { .. } => Reason::Proxied,
        }
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
        return Outbound::Pass(Reason::NeverMeshed);
    }
    let key = ServiceKey {
        addr: *addr,
        port_be,
        pad: 0,
    };
    if let Some(service) = view.service(&key) {
        if service.backends == 0 {
            return Outbound::Refuse(Reason::NoEndpoint);
        }
        let Some(backend) = view.backend(&key, view.random() % service.backends) else {
            return Outbound::Refuse(Reason::Inconsistent);
        };
        if backend.flags & backend_flags::LOCAL != 0 {
            return Outbound::Local {
                addr: backend.addr,
                port_be: backend.port_be,
            };
        }
        return to_proxy(view, pod, addr);
    }
    if pod.owns(addr) {
        return Outbound::Pass(Reason::OwnAddress);
    }
    match view.workload(addr) {
        None => Outbound::Pass(Reason::OutsideMesh),
        Some(workload) if workload.has(workload_flags::LOCAL) => Outbound::Local {
            addr: *addr,
            port_be,
        },
        Some(_) => to_proxy(view, pod, addr),
    }
}

#[inline(always)]
fn to_proxy<V: OutboundView>(view: &V, pod: &Pod, addr: &Addr) -> Outbound {
    if view.proxy_listens(addr, pod.outbound_port_be) {
        Outbound::Proxy {
            port_be: pod.outbound_port_be,
        }
    } else if pod.flags & pod_flags::OUTBOUND_FAIL_OPEN != 0 {
        Outbound::Pass(Reason::ProxyDownFailedOpen)
    } else {
        Outbound::Refuse(Reason::ProxyDown)
    }
}

/// What `sk_lookup` does with a new inbound TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Leave it to the kernel's own lookup.
    Pass(Reason),
    /// Hand it to the agent's listener, and drop it where there is none.
    Steer(Listener),
    /// Drop it; the client sees a reset.
    Drop(Reason),
}

/// What an inbound decision may look up.
pub trait InboundView {
    /// `WORKLOADS`, for the local address.
    fn workload(&self) -> Option<WorkloadEntry>;
    /// Whether `LOCAL_TUPLES` holds this connection, published by a pod that is still enrolled.
    fn published(&self) -> bool;
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
    if local.is_loopback() || remote.is_loopback() || *local == *remote {
        return Inbound::Pass(Reason::InboundSelf);
    }
    let strict = match view.workload() {
        Some(_) if local_port == HBONE_PORT => return Inbound::Steer(Listener::Hbone),
        Some(workload) => workload.has(workload_flags::STRICT),
        None => view.strict_unknown(),
    };
    if view.published() {
        Inbound::Pass(Reason::InboundLocal)
    } else if strict {
        Inbound::Drop(Reason::StrictPlaintext)
    } else {
        Inbound::Pass(Reason::InboundPlaintext)
    }
}

#[cfg(test)]
mod tests;
