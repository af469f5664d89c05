//! `cgroup/connect4` at the agent's own cgroup, on kernels without SO_NETNS_COOKIE (before 5.14): tells
//! the agent in which network namespace a socket lives. The agent "connects" a socket to an address
//! that nobody can mean, is refused, and finds the cookie in the socket's storage.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_netns_cookie, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use undermesh_ebpf_common::{Addr, COOKIE_QUESTION, ConnMeta};

use crate::maps::CONN_META;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn undermesh_cookie(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context pointer is the kernel's.
    let (addr, port_be) =
        unsafe { (Addr::v4_be((*ctx.sock_addr).user_ip4), (*ctx.sock_addr).user_port as u16) };
    if !addr.equals(&COOKIE_QUESTION.0) || port_be != COOKIE_QUESTION.1.to_be() {
        return ALLOW;
    }
    let mut answer = ConnMeta {
        // SAFETY: plain helper on the kernel's own context.
        netns_cookie: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        opened_ns: 0,
        original: Addr::UNSPECIFIED,
        backend: Addr::UNSPECIFIED,
        original_port_be: 0,
        backend_port_be: 0,
        flags: 0,
    };
    // SAFETY: the socket is that of the context. Without storage, the agent finds no answer.
    unsafe { CONN_META.get_or_insert_ptr_mut(&ctx, Some(&mut answer)) };
    REFUSE
}
