//! sockops: publishes what `connect` decided under the addresses that the connection really has,
//! before its SYN leaves, and takes it back when the connection closes.

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
        BPF_TCP_CLOSE, BPF_TCP_LISTEN, bpf_sock_ops,
    },
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_socket_cookie, bpf_sk_storage_get},
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use undermesh_ebpf_common::{
    Addr, ConnEvent, ConnMeta, LocalTuple, OriginalDst, OriginalDstKey, Reason, conn_flags,
    event_kind, tcp,
};

use crate::{
    context, listen,
    maps::{CONN_META, LOCAL_TUPLES, ORIGINAL_DST},
    report::{count, send_lazily},
};

const OK: u32 = 1;
const AF_INET: u32 = 2;

#[sock_ops]
pub fn undermesh_publish(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => on_connect(&ctx),
        BPF_SOCK_OPS_RTO_CB => on_retransmit(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => on_established(&ctx),
        BPF_SOCK_OPS_STATE_CB => on_state(&ctx),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listen::begun(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => listen::accepted(&ctx),
        _ => {}
    }
    OK
}

/// The four addresses of a connection, as the client's socket has them.
pub struct Ends {
    pub local: Addr,
    pub local_port_be: u16,
    remote: Addr,
    remote_port_be: u16,
}

#[inline(always)]
fn on_connect(ctx: &SockOpsContext) {
    let Some(meta) = meta(ctx) else { return };
    let ends = ends(ctx);
    if !ends.remote.equals(&meta.backend) || ends.remote_port_be != meta.backend_port_be {
        return; // The socket was connected anew, outside the mesh.
    }
    publish(meta, &ends);
    // A SYN that is sent again must find its record, even if the LRU has dropped it since.
    let flags = BPF_SOCK_OPS_RTO_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG;
    let _ = ctx.set_cb_flags(flags as i32);
    if meta.flags & conn_flags::LOCAL != 0 {
        report_opened(ctx, meta, &ends);
    }
}

#[inline(always)]
fn on_retransmit(ctx: &SockOpsContext) {
    if let Some(meta) = meta(ctx) {
        publish(meta, &ends(ctx));
    }
}

/// From here on the record is not looked up again: no more need to hear of retransmissions.
#[inline(always)]
fn on_established(ctx: &SockOpsContext) {
    if ctx.cb_flags() & BPF_SOCK_OPS_RTO_CB_FLAG != 0 && meta(ctx).is_some() {
        let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
    }
}

#[inline(always)]
fn on_state(ctx: &SockOpsContext) {
    if ctx.arg(0) == BPF_TCP_LISTEN {
        return listen::ended(ctx);
    }
    if ctx.arg(1) != BPF_TCP_CLOSE {
        return;
    }
    let Some(meta) = meta(ctx) else { return };
    let ends = ends(ctx);
    if meta.flags & conn_flags::PROXIED != 0 {
        let _ = ORIGINAL_DST.remove(&original_key(meta, &ends));
    } else {
        let _ = LOCAL_TUPLES.remove(&tuple(&ends));
    }
    if meta.flags & conn_flags::LOCAL != 0 {
        report_closed(ctx, meta, &ends, ctx.arg(0));
    }
}

#[inline(always)]
fn publish(meta: &ConnMeta, ends: &Ends) {
    let stored = if meta.flags & conn_flags::PROXIED != 0 {
        let value =
            OriginalDst { addr: meta.original, port_be: meta.original_port_be, pad: [0; 6] };
        ORIGINAL_DST.insert(&original_key(meta, ends), &value, 0)
    } else {
        LOCAL_TUPLES.insert(&tuple(ends), &meta.netns_cookie, 0)
    };
    if stored.is_err() {
        count(Reason::PublishFailed);
    }
}

#[inline(always)]
fn original_key(meta: &ConnMeta, ends: &Ends) -> OriginalDstKey {
    OriginalDstKey {
        netns_cookie: meta.netns_cookie,
        source: ends.local,
        source_port_be: ends.local_port_be,
        pad: [0; 6],
    }
}

#[inline(always)]
fn tuple(ends: &Ends) -> LocalTuple {
    LocalTuple {
        source: ends.local,
        destination: ends.remote,
        source_port_be: ends.local_port_be,
        destination_port_be: ends.remote_port_be,
    }
}

#[inline(always)]
pub fn meta<'a>(ctx: &'a SockOpsContext) -> Option<&'a mut ConnMeta> {
    // SAFETY: the context pointer is the kernel's; `sk` may be null and is checked, and the
    // socket owns the returned memory for at least the length of this call.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let map = (&raw const CONN_META).cast_mut().cast();
        bpf_sk_storage_get(map, sk.cast(), ptr::null_mut(), 0).cast::<ConnMeta>().as_mut()
    }
}

#[inline(always)]
pub fn ends(ctx: &SockOpsContext) -> Ends {
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: the context pointer is the kernel's. Words are read one by one, as arrays would make
    // a "modified ctx pointer". `local_port` is in host order, `remote_port` in network order.
    unsafe {
        let (local, remote) = if (*ops).family == AF_INET {
            (Addr::v4_be((*ops).local_ip4), Addr::v4_be((*ops).remote_ip4))
        } else {
            (
                context::address(&raw const (*ops).local_ip6),
                context::address(&raw const (*ops).remote_ip6),
            )
        };
        Ends {
            local,
            local_port_be: ((*ops).local_port as u16).to_be(),
            remote,
            remote_port_be: remote_port_be((*ops).remote_port),
        }
    }
}

/// `remote_port` is a word in network byte order whose port stands in the last two bytes.
#[inline(always)]
const fn remote_port_be(word: u32) -> u16 {
    (u32::from_be(word) as u16).to_be()
}

#[inline(always)]
fn report_opened(ctx: &SockOpsContext, meta: &mut ConnMeta, ends: &Ends) {
    // SAFETY: plain helper without preconditions.
    meta.opened_ns = unsafe { bpf_ktime_get_ns() };
    let event = ConnEvent {
        kind: event_kind::LOCAL,
        reason: Reason::Local as u32,
        ..local_event(ctx, meta, ends)
    };
    send_lazily(ctx, event);
}

#[inline(always)]
fn report_closed(ctx: &SockOpsContext, meta: &ConnMeta, ends: &Ends, last_state: u32) {
    // SAFETY: the context pointer is the kernel's; the helper has no preconditions.
    let (acked, received, srtt, now) = unsafe {
        let ops = ctx.ops;
        ((*ops).bytes_acked, (*ops).bytes_received, (*ops).srtt_us, bpf_ktime_get_ns())
    };
    let (to_server, to_client) = tcp::payload(acked, received, last_state);
    let refused = last_state == tcp::state::SYN_SENT;
    let reason = if refused { Reason::LocalFailed } else { Reason::LocalClosed };
    let event = ConnEvent {
        bytes_received: to_server,
        bytes_sent: to_client,
        duration_ns: now - meta.opened_ns,
        // The kernel keeps eight times the value.
        rtt_us: srtt >> 3,
        kind: event_kind::LOCAL_CLOSED,
        reason: reason as u32,
        ..local_event(ctx, meta, ends)
    };
    send_lazily(ctx, event);
}

#[inline(always)]
fn local_event(ctx: &SockOpsContext, meta: &ConnMeta, ends: &Ends) -> ConnEvent {
    ConnEvent {
        netns_cookie: meta.netns_cookie,
        // SAFETY: plain helper on the kernel's own context.
        socket_cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        source: ends.local,
        destination: meta.original,
        backend: ends.remote,
        source_port_be: ends.local_port_be,
        destination_port_be: meta.original_port_be,
        backend_port_be: ends.remote_port_be,
        ..ConnEvent::empty()
    }
}
