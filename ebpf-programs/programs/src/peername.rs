//! `cgroup/getpeername4` and `cgroup/getpeername6`: applications see true addresses. A client sees
//! the address that it dialled, a server the address of its client. The hooks run on `accept` too.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock},
    helpers::generated::{bpf_sk_release, bpf_sk_storage_get},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use undermesh_ebpf_common::{Addr, AgentSocket, ConnMeta};

use crate::{
    connect::{read_ip6, write_ip6, write_port},
    context, lookup,
    maps::{AGENT_SOCKETS, CONN_META},
};

const ALLOW: i32 = 1;
const IPPROTO_MPTCP: u32 = 262;

#[cgroup_sock_addr(getpeername4)]
pub fn undermesh_getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context pointer is the kernel's.
    let peer = Addr::v4_be(unsafe { (*ctx.sock_addr).user_ip4 });
    if let Some(shown) = shown(&ctx, &peer) {
        // SAFETY: as above; volatile, see `connect`.
        unsafe { ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip4, shown.addr.v4_word_be()) };
        write_port(&ctx, shown.port_be);
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn undermesh_getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(shown) = shown(&ctx, &read_ip6(&ctx)) {
        write_ip6(&ctx, &shown.addr);
        write_port(&ctx, shown.port_be);
    }
    ALLOW
}

/// An address and port to show instead of the peer's.
struct Shown {
    addr: Addr,
    port_be: u16,
}

/// What the socket's record says, if its peer is still the one that the record is about: a socket
/// that was connected anew, outside the mesh, keeps a record that is no longer true.
#[inline(always)]
fn shown(ctx: &SockAddrContext, peer: &Addr) -> Option<Shown> {
    // SAFETY: the context pointer is the kernel's.
    let port_be = unsafe { (*ctx.sock_addr).user_port } as u16;
    // SAFETY: the context's socket is alive for the call, and so is the memory it owns.
    let meta = unsafe { CONN_META.get_ptr_mut(ctx).as_ref() };
    if let Some(meta) = meta
        && meta.backend.equals(peer)
        && meta.backend_port_be == port_be
    {
        return Some(Shown { addr: meta.original, port_be: meta.original_port_be });
    }
    // SAFETY: as above.
    if unsafe { (*ctx.sock_addr).protocol } == IPPROTO_MPTCP {
        return led(ctx, peer, port_be);
    }
    peer.is_delivery_source().then(|| delivered(ctx, peer, port_be))?
}

/// The client of a connection that the agent has delivered: it stands in the storage of the
/// agent's own socket, the other end of this one.
#[inline(always)]
fn delivered(ctx: &SockAddrContext, peer: &Addr, port_be: u16) -> Option<Shown> {
    let own = own(ctx, peer);
    // The agent's socket is found as its own packets would find it: from us to it.
    let ends =
        lookup::Ends { from: own.addr, from_port_be: own.port_be, to: *peer, to_port_be: port_be };
    let map = (&raw const AGENT_SOCKETS).cast_mut().cast();
    let agent: AgentSocket = storage_of(ctx, &ends, map)?;
    if agent.client.is_unspecified() {
        return None;
    }
    let shown = Shown { addr: agent.client, port_be: agent.client_port_be };
    Some(keep(ctx, shown, peer, port_be))
}

/// What the client of a Multipath TCP connection has dialled: the socket that was connected, and
/// whose storage has it, is the first subflow, which only the kernel knows of. It has the
/// addresses of the application's socket. Servers find nothing: nobody has led their socket.
#[inline(always)]
fn led(ctx: &SockAddrContext, peer: &Addr, port_be: u16) -> Option<Shown> {
    let own = own(ctx, peer);
    let ends =
        lookup::Ends { from: *peer, from_port_be: port_be, to: own.addr, to_port_be: own.port_be };
    let map = (&raw const CONN_META).cast_mut().cast();
    let meta: ConnMeta = storage_of(ctx, &ends, map)?;
    if !meta.backend.equals(peer) || meta.backend_port_be != port_be {
        return None;
    }
    let shown = Shown { addr: meta.original, port_be: meta.original_port_be };
    Some(keep(ctx, shown, peer, port_be))
}

/// A copy of what another socket of this network namespace has in its storage; `map` holds `T`.
#[inline(always)]
fn storage_of<T: Copy>(ctx: &SockAddrContext, ends: &lookup::Ends, map: *mut c_void) -> Option<T> {
    let sk = lookup::tcp(ctx.as_ptr(), ends, i64::from(BPF_F_CURRENT_NETNS) as u64);
    if sk.is_null() {
        return None;
    }
    // SAFETY: `sk` is a referenced socket until it is released below; the storage is copied
    // before that.
    unsafe {
        let found = bpf_sk_storage_get(map, sk.cast(), ptr::null_mut(), 0).cast::<T>();
        let copied = found.as_ref().copied();
        bpf_sk_release(sk.cast());
        copied
    }
}

/// Keeps what was found in this socket's own storage, as the other socket may be gone when the
/// application asks again.
#[inline(always)]
fn keep(ctx: &SockAddrContext, shown: Shown, peer: &Addr, port_be: u16) -> Shown {
    let mut own_meta = ConnMeta {
        netns_cookie: 0,
        original: shown.addr,
        backend: *peer,
        original_port_be: shown.port_be,
        backend_port_be: port_be,
        flags: 0,
        opened_ns: 0,
    };
    // SAFETY: the socket is that of the context. That the record cannot be kept is no harm.
    unsafe { CONN_META.get_or_insert_ptr_mut(ctx, Some(&mut own_meta)) };
    shown
}

/// This end of a connection, in the family of its peer.
#[inline(always)]
fn own(ctx: &SockAddrContext, peer: &Addr) -> Shown {
    // SAFETY: `sk` of the context is a valid socket of this program type.
    unsafe {
        let own: *mut bpf_sock = (*ctx.sock_addr).__bindgen_anon_1.sk;
        let addr = if peer.is_v4() {
            Addr::v4_be((*own).src_ip4)
        } else {
            context::address(&raw const (*own).src_ip6)
        };
        // `src_port` is in host byte order.
        Shown { addr, port_be: ((*own).src_port as u16).to_be() }
    }
}
