//! `cgroup/bind4` and `cgroup/bind6`, on kernels whose sockops cannot ask for the netns cookie (before
//! 5.15): note it in the socket, where sockops finds it should the socket listen.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_netns_cookie, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use undermesh_ebpf_common::{Addr, ConnMeta};

use crate::maps::{CONN_META, PODS};

const ALLOW: i32 = 1;

#[cgroup_sock_addr(bind4)]
pub fn undermesh_bind4(ctx: SockAddrContext) -> i32 {
    note(&ctx)
}

#[cgroup_sock_addr(bind6)]
pub fn undermesh_bind6(ctx: SockAddrContext) -> i32 {
    note(&ctx)
}

#[inline(always)]
fn note(ctx: &SockAddrContext) -> i32 {
    // SAFETY: plain helper on the kernel's own context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: only whether it is there counts.
    if unsafe { PODS.get(&netns_cookie) }.is_some() {
        let mut meta = ConnMeta {
            netns_cookie,
            opened_ns: 0,
            original: Addr::UNSPECIFIED,
            backend: Addr::UNSPECIFIED,
            original_port_be: 0,
            backend_port_be: 0,
            flags: 0,
        };
        // SAFETY: the socket is that of the context. Without the note, the agent looks by itself.
        unsafe { CONN_META.get_or_insert_ptr_mut(ctx, Some(&mut meta)) };
    }
    ALLOW
}
