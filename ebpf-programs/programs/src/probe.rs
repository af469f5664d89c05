//! `cgroup/connect4` and `cgroup/connect6` at the kubelet's own cgroup: its connections to pods of this
//! node are published, so that `sk_lookup` knows a probe by its exact addresses and ports. The node's
//! address alone proves nothing: every process of the node has it.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use undermesh_ebpf_common::{Addr, ConnMeta, KUBELET, PortKey, conn_flags};

use crate::{
    connect::read_ip6,
    maps::{CONN_META, PROBE_PORTS},
};

const ALLOW: i32 = 1;
const IPPROTO_TCP: u32 = 6;

#[cgroup_sock_addr(connect4)]
pub fn undermesh_probe4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context pointer is the kernel's.
    let addr = Addr::v4_be(unsafe { (*ctx.sock_addr).user_ip4 });
    mark(&ctx, addr)
}

#[cgroup_sock_addr(connect6)]
pub fn undermesh_probe6(ctx: SockAddrContext) -> i32 {
    mark(&ctx, read_ip6(&ctx))
}

/// Marks a connection to a port that is to be probed. Sockets of the kubelet are in no pod, so that
/// nobody else keeps anything in their storage.
#[inline(always)]
fn mark(ctx: &SockAddrContext, addr: Addr) -> i32 {
    // SAFETY: the context pointer is the kernel's.
    let (protocol, port_be) =
        unsafe { ((*ctx.sock_addr).protocol, (*ctx.sock_addr).user_port as u16) };
    // SAFETY: only whether it is there counts.
    if protocol != IPPROTO_TCP
        || unsafe { PROBE_PORTS.get(&PortKey::new(&addr, port_be)) }.is_none()
    {
        return ALLOW;
    }
    let mut meta = ConnMeta {
        netns_cookie: KUBELET,
        opened_ns: 0,
        original: addr,
        backend: addr,
        original_port_be: port_be,
        backend_port_be: port_be,
        flags: conn_flags::PROBE,
    };
    // SAFETY: the socket is that of the context, alive for the call; the returned memory is written
    // whole because a re-used socket already has a value.
    unsafe {
        let stored = CONN_META.get_or_insert_ptr_mut(ctx, Some(&mut meta));
        if !stored.is_null() {
            *stored = meta;
        }
    }
    ALLOW
}
