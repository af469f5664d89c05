//! sockops: keeps `LISTENING` from falling behind. What is added here is there before `listen`
//! returns; what has to go, and what was added too much, the agent finds out by looking. Kernels before
//! 5.15 cannot tell here whose socket it is: `bind` has left a note.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_SOCK_OPS_STATE_CB_FLAG,
    helpers::{bpf_ktime_get_ns, generated::bpf_get_netns_cookie},
    programs::SockOpsContext,
};
use undermesh_ebpf_common::{Addr, ConnEvent, Pod, PortKey, Reason, event_kind};

use crate::{
    features,
    maps::{LISTENING, PODS},
    publish::{ends, meta},
    report::{count, send},
};

/// A socket is about to listen.
#[inline(always)]
pub fn begun(ctx: &SockOpsContext) {
    let Some(cookie) = netns_cookie(ctx) else { return };
    // SAFETY: values are replaced whole.
    let Some(pod) = (unsafe { PODS.get(&cookie) }) else { return };
    let ends = ends(ctx);
    if ends.local.is_unspecified() {
        // Whether an IPv6 socket takes IPv4 as well cannot be asked here; most do.
        add(&pod.addr4, ends.local_port_be);
        if is_v6(ctx) {
            add(&pod.addr6, ends.local_port_be);
        }
    } else {
        add(&ends.local, ends.local_port_be);
    }
    let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
    tell(ctx, cookie, pod, ends.local_port_be);
}

/// A listening socket has a new connection, which has inherited its callbacks and needs none.
#[inline(always)]
pub fn accepted(ctx: &SockOpsContext) {
    if ctx.cb_flags() != 0 {
        let _ = ctx.set_cb_flags(0);
    }
}

/// A socket has ceased to listen; others may go on at the same port.
#[inline(always)]
pub fn ended(ctx: &SockOpsContext) {
    let Some(cookie) = netns_cookie(ctx) else { return };
    // SAFETY: values are replaced whole.
    if let Some(pod) = unsafe { PODS.get(&cookie) } {
        tell(ctx, cookie, pod, ends(ctx).local_port_be);
    }
}

#[inline(always)]
fn add(addr: &Addr, port_be: u16) {
    if addr.is_unspecified() || addr.is_loopback() {
        return;
    }
    // SAFETY: plain helper without preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if LISTENING.insert(&PortKey::new(addr, port_be), &now, 0).is_err() {
        count(Reason::PublishFailed);
    }
}

#[inline(always)]
fn tell(ctx: &SockOpsContext, cookie: u64, pod: &Pod, port_be: u16) {
    let event = ConnEvent {
        netns_cookie: cookie,
        destination: pod.addr4,
        destination_port_be: port_be,
        kind: event_kind::LISTENING,
        ..ConnEvent::empty()
    };
    send(ctx, event);
}

#[inline(always)]
fn netns_cookie(ctx: &SockOpsContext) -> Option<u64> {
    if !features::sockops_netns_cookie() {
        return meta(ctx).map(|meta| meta.netns_cookie).filter(|cookie| *cookie != 0);
    }
    // SAFETY: plain helper on the kernel's own context.
    Some(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}

#[inline(always)]
fn is_v6(ctx: &SockOpsContext) -> bool {
    const AF_INET6: u32 = 10;
    // SAFETY: the context pointer is the kernel's.
    unsafe { (*ctx.ops).family == AF_INET6 }
}
