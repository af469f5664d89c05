//! `cgroup/getpeername4` and `cgroup/getpeername6`: applications see the address they dialled.

use core::ptr;

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use undermesh_ebpf_common::{Addr, ConnMeta};

use crate::{
    connect::{read_ip6, write_ip6, write_port},
    maps::CONN_META,
};

const ALLOW: i32 = 1;

#[cgroup_sock_addr(getpeername4)]
pub fn undermesh_getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context pointer is the kernel's.
    let peer = Addr::v4_be(unsafe { (*ctx.sock_addr).user_ip4 });
    if let Some(meta) = rewritten(&ctx, &peer) {
        let word = meta.original.v4_word_be();
        // SAFETY: as above; volatile, see `connect`.
        unsafe { ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip4, word) };
        write_port(&ctx, meta.original_port_be);
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn undermesh_getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(meta) = rewritten(&ctx, &read_ip6(&ctx)) {
        write_ip6(&ctx, &meta.original);
        write_port(&ctx, meta.original_port_be);
    }
    ALLOW
}

/// The socket's record, if its peer is still the one that `connect` put there: a socket that was
/// connected anew, outside the mesh, keeps a record that is no longer true.
#[inline(always)]
fn rewritten(ctx: &SockAddrContext, peer: &Addr) -> Option<ConnMeta> {
    // SAFETY: the context's socket is alive for the call, and so is the memory it owns.
    let meta = unsafe { CONN_META.get_ptr_mut(ctx).as_ref() }?;
    // SAFETY: the context pointer is the kernel's.
    let port_be = unsafe { (*ctx.sock_addr).user_port } as u16;
    (meta.backend.equals(peer) && meta.backend_port_be == port_be).then_some(*meta)
}
