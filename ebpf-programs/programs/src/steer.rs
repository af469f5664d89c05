//! sk_lookup, one link per enrolled pod's network namespace: who may reach the pod, and how.

use core::ptr;

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::sk_lookup, programs::SkLookupContext};
use undermesh_ebpf_common::{
    Addr, ConnEvent, Inbound, InboundView, KUBELET, ListenerKey, LocalTuple, PolicyKey,
    PolicyVerdict, PortKey, Publisher, Reason, WorkloadEntry, decide_inbound, event_kind,
    listener_kind,
};

use crate::{
    context,
    maps::{
        DELIVERIES, LISTENERS, LISTENING, LOCAL_TUPLES, PODS, POLICY, PROBE_PORTS, SETTINGS,
        WORKLOADS,
    },
    report::{count, send},
};

const SK_DROP: u32 = 0;
const SK_PASS: u32 = 1;
const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
/// Replace what an earlier program of this namespace has chosen.
const REPLACE: u64 = 1;

#[sk_lookup]
pub fn undermesh_steer(ctx: SkLookupContext) -> u32 {
    // SAFETY: the context pointer is the kernel's.
    if unsafe { (*ctx.lookup).protocol } != IPPROTO_TCP {
        return SK_PASS;
    }
    let arriving = Arriving::read(&ctx);
    let local_port = u16::from_be(arriving.0.destination_port_be);
    let tuple = &arriving.0;
    match decide_inbound(&arriving, &tuple.destination, local_port, &tuple.source) {
        Inbound::Pass(reason) => {
            count(reason);
            SK_PASS
        }
        Inbound::Steer(reason) => steer(&ctx, &arriving.0, reason),
        // What the kernel would say of any closed port; nobody has been kept from anything.
        Inbound::Drop(Reason::PortClosed) => {
            count(Reason::PortClosed);
            SK_DROP
        }
        Inbound::Drop(reason) => drop_reported(&ctx, &arriving.0, reason),
    }
}

/// A pod without a listener drops: falling through would hand TLS to the application.
#[inline(always)]
fn steer(ctx: &SkLookupContext, tuple: &LocalTuple, reason: Reason) -> u32 {
    let key = ListenerKey { addr: tuple.destination, kind: listener_kind::INBOUND };
    match LISTENERS.redirect_sk_lookup(ctx, &key, REPLACE) {
        Ok(()) => {
            count(reason);
            SK_PASS
        }
        Err(_) => drop_reported(ctx, tuple, Reason::TunnelDown),
    }
}

#[inline(always)]
fn drop_reported(ctx: &SkLookupContext, tuple: &LocalTuple, reason: Reason) -> u32 {
    count(reason);
    let event = ConnEvent {
        source: tuple.source,
        destination: tuple.destination,
        source_port_be: tuple.source_port_be,
        destination_port_be: tuple.destination_port_be,
        kind: event_kind::DROPPED,
        reason: reason as u32,
        ..ConnEvent::empty()
    };
    send(ctx, event);
    SK_DROP
}

/// The connection's addresses; the source is the remote end.
struct Arriving(LocalTuple);

impl Arriving {
    #[inline(always)]
    fn read(ctx: &SkLookupContext) -> Self {
        let lookup = ctx.lookup;
        // SAFETY: the context pointer is the kernel's; words are read one by one, as arrays would
        // make a "modified ctx pointer".
        unsafe {
            let (source, destination) = if (*lookup).family == AF_INET {
                (Addr::v4_be((*lookup).remote_ip4), Addr::v4_be((*lookup).local_ip4))
            } else {
                (
                    context::address(&raw const (*lookup).remote_ip6),
                    context::address(&raw const (*lookup).local_ip6),
                )
            };
            Self(LocalTuple {
                source,
                destination,
                source_port_be: ptr::read_volatile(&raw const (*lookup).remote_port),
                destination_port_be: ((*lookup).local_port as u16).to_be(),
            })
        }
    }
}

impl InboundView for Arriving {
    #[inline(always)]
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        // SAFETY: values are replaced whole, and BPF_F_NO_PREALLOC keeps a removed element's
        // memory from being reused while a program runs.
        unsafe { WORKLOADS.get(addr) }.copied()
    }
    #[inline(always)]
    fn publisher(&self) -> Publisher {
        // SAFETY: an element that is reused meanwhile gives another live pod's cookie at worst,
        // which only a connection with the very same addresses could have published.
        let Some(cookie) = (unsafe { LOCAL_TUPLES.get(&self.0) }) else {
            return Publisher::NOBODY;
        };
        if *cookie == KUBELET {
            return Publisher::KUBELET;
        }
        // SAFETY: as in `workload`.
        match unsafe { PODS.get(cookie) } {
            Some(pod) => Publisher::pod(pod.source_for(&self.0.destination)),
            None => Publisher::NOBODY,
        }
    }
    #[inline(always)]
    fn delivered(&self) -> bool {
        // SAFETY: an element that is reused meanwhile gives another delivery's time at worst.
        let until = unsafe { DELIVERIES.get(&self.0) };
        // SAFETY: plain helper without preconditions.
        until.is_some_and(|until| unsafe { bpf_ktime_get_ns() } < *until)
    }
    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<PolicyVerdict> {
        // SAFETY: as in `workload`.
        unsafe { POLICY.get(key) }.copied()
    }
    #[inline(always)]
    fn listens(&self) -> bool {
        let key = PortKey::new(&self.0.destination, self.0.destination_port_be);
        // SAFETY: only whether it is there counts.
        unsafe { LISTENING.get(&key) }.is_some()
    }
    #[inline(always)]
    fn is_probed(&self) -> bool {
        let key = PortKey::new(&self.0.destination, self.0.destination_port_be);
        // SAFETY: only whether it is there counts.
        unsafe { PROBE_PORTS.get(&key) }.is_some()
    }
    #[inline(always)]
    fn strict_unknown(&self) -> bool {
        SETTINGS.get(0).is_some_and(|settings| settings.strict_unknown != 0)
    }
}
