//! `cgroup/connect4` and `cgroup/connect6`: where a connection of an enrolled pod goes.

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock},
    helpers::{
        bpf_get_prandom_u32,
        generated::{bpf_bind, bpf_get_netns_cookie, bpf_setsockopt, bpf_sk_release},
    },
    macros::cgroup_sock_addr,
    maps::lpm_trie::Key,
    programs::SockAddrContext,
};
use undermesh_ebpf_common::{
    Action, Addr, Backend, BackendKey, Block, BlockKey, ConnEvent, ConnMeta, Outbound,
    OutboundView, Reason, Service, ServiceKey, WorkloadEntry, conn_flags, decide_outbound,
    event_kind,
};

use crate::{
    context,
    gate::{self, Gated},
    lookup,
    maps::{AGENT_SOCKETS, BACKENDS, BLOCKS, CONN_META, PODS, SERVICES, WORKLOADS},
    report::{count, send},
};

const ALLOW: i32 = 1;
const IPPROTO_TCP: u32 = 6;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;
#[cgroup_sock_addr(connect4)]
pub fn undermesh_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context pointer is the kernel's.
    let addr = Addr::v4_be(unsafe { (*ctx.sock_addr).user_ip4 });
    connect(&ctx, addr, |ctx, to| {
        // SAFETY: as above; volatile, because LLVM would merge adjacent context stores into one
        // that the verifier refuses.
        unsafe { ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip4, to.v4_word_be()) };
    })
}

#[cgroup_sock_addr(connect6)]
pub fn undermesh_connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, read_ip6(&ctx), write_ip6)
}

/// Reads `user_ip6`.
#[inline(always)]
pub fn read_ip6(ctx: &SockAddrContext) -> Addr {
    // SAFETY: the context pointer is the kernel's.
    unsafe { context::address(&raw const (*ctx.sock_addr).user_ip6) }
}

/// Writes `user_ip6` word by word.
#[inline(always)]
pub fn write_ip6(ctx: &SockAddrContext, to: &Addr) {
    let words = to.words_be;
    // SAFETY: the context pointer is the kernel's.
    unsafe {
        let ip = &raw mut (*ctx.sock_addr).user_ip6;
        ptr::write_volatile(&raw mut (*ip)[0], words[0]);
        ptr::write_volatile(&raw mut (*ip)[1], words[1]);
        ptr::write_volatile(&raw mut (*ip)[2], words[2]);
        ptr::write_volatile(&raw mut (*ip)[3], words[3]);
    }
}

/// Writes `user_port`.
#[inline(always)]
pub fn write_port(ctx: &SockAddrContext, port_be: u16) {
    // SAFETY: the context pointer is the kernel's.
    unsafe { ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port_be)) };
}

/// The maps, as the decisions look at them.
pub struct Maps<'a>(&'a SockAddrContext);

impl OutboundView for Maps<'_> {
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        // SAFETY: values are replaced whole, and BPF_F_NO_PREALLOC keeps a removed element's
        // memory from being reused while a program runs. The same holds for every map below.
        unsafe { SERVICES.get(key) }.copied()
    }
    #[inline(always)]
    fn backend(&self, service: &ServiceKey, slot: u32) -> Option<Backend> {
        // SAFETY: see `service`.
        unsafe { BACKENDS.get(&BackendKey { service: *service, slot }) }.copied()
    }
    #[inline(always)]
    fn workload(&self, addr: &Addr) -> Option<WorkloadEntry> {
        // SAFETY: see `service`.
        unsafe { WORKLOADS.get(addr) }.copied()
    }
    #[inline(always)]
    fn block(&self, key: &BlockKey) -> Option<Block> {
        BLOCKS.get(Key::new(BlockKey::BITS, *key)).copied()
    }
    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: plain helper without preconditions.
        unsafe { bpf_get_prandom_u32() }
    }
    #[inline(always)]
    fn proxy_listens(&self, destination: &Addr, port_be: u16) -> bool {
        let ends = lookup::Ends {
            from: Addr::UNSPECIFIED,
            from_port_be: 0,
            to: destination.loopback(),
            to_port_be: port_be,
        };
        let sk = lookup::tcp(self.0.as_ptr(), &ends, i64::from(BPF_F_CURRENT_NETNS) as u64);
        if sk.is_null() {
            return false;
        }
        // SAFETY: a socket that was just found, and is used nowhere else.
        unsafe { bpf_sk_release(sk.cast()) };
        true
    }
}

/// The hook: decide, remember, rewrite. Never blocks what is not enrolled.
#[inline(always)]
fn connect<W: Fn(&SockAddrContext, &Addr)>(ctx: &SockAddrContext, addr: Addr, write: W) -> i32 {
    // SAFETY: the context pointer is the kernel's.
    let (protocol, port_be) =
        unsafe { ((*ctx.sock_addr).protocol, (*ctx.sock_addr).user_port as u16) };
    if protocol != IPPROTO_TCP {
        return ALLOW;
    }
    // SAFETY: plain helper on the kernel's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: see `Maps::service`.
    let Some(pod) = (unsafe { PODS.get(&cookie) }) else {
        at_gate(ctx, &Dialled { cookie, addr, port_be, cgroup: 0 }, write);
        return ALLOW;
    };
    let verdict = if is_agent(ctx) {
        Outbound::pass(Reason::AgentOwn, &addr)
    } else {
        decide_outbound(&Maps(ctx), pod, &addr, port_be)
    };
    count(verdict.reason);
    let dialled = Dialled { cookie, addr, port_be, cgroup: 0 };
    match verdict.action {
        Action::Pass => {}
        Action::Refuse => refuse(ctx, &dialled, verdict.reason, write),
        Action::Local => lead(ctx, &dialled, &verdict, conn_flags::LOCAL, write),
        Action::Proxy => {
            leave_device(ctx);
            bind_source(ctx, &pod.source_for(&addr));
            lead(ctx, &dialled, &verdict, conn_flags::PROXIED, write);
        }
    }
    ALLOW
}

struct Dialled {
    cookie: u64,
    addr: Addr,
    port_be: u16,
    /// What the gate has to say is about this one.
    cgroup: u64,
}

/// The namespace is not programmed: outside the mesh, or not yet in it. The agent's own sockets outlive
/// the pods that they were opened in.
#[inline(always)]
fn at_gate<W: Fn(&SockAddrContext, &Addr)>(ctx: &SockAddrContext, dialled: &Dialled, write: W) {
    let Gated { verdict, cgroup } =
        gate::decide(&Maps(ctx), dialled.cookie, &dialled.addr, dialled.port_be);
    let reason = verdict.reason;
    if !matches!(reason, Reason::NotEnrolled) && is_agent(ctx) {
        return count(Reason::AgentOwn);
    }
    count(reason);
    let kind = match reason {
        Reason::Gated => {
            lead_nowhere(ctx, dialled, write);
            event_kind::REFUSED
        }
        Reason::GatedOpen => event_kind::GATED_OPEN,
        _ => return,
    };
    report(ctx, &Dialled { cgroup, ..*dialled }, kind, reason);
}

/// Rewrites the destination. Where that cannot be remembered, the connection is refused: unmarked,
/// it would reach the proxy, or a STRICT pod, as a stranger.
#[inline(always)]
fn lead<W: Fn(&SockAddrContext, &Addr)>(
    ctx: &SockAddrContext,
    dialled: &Dialled,
    verdict: &Outbound,
    flags: u32,
    write: W,
) {
    if remember(ctx, dialled, verdict, flags) {
        write(ctx, &verdict.to);
        write_port(ctx, verdict.to_port_be);
    } else {
        count(Reason::RewriteFailed);
        refuse(ctx, dialled, Reason::RewriteFailed, write);
    }
}

/// Nothing can listen at port 0, so the kernel itself answers ECONNREFUSED, on every version;
/// returning 0 would give EPERM, which applications take for final.
#[inline(always)]
fn refuse<W: Fn(&SockAddrContext, &Addr)>(
    ctx: &SockAddrContext,
    dialled: &Dialled,
    reason: Reason,
    write: W,
) {
    lead_nowhere(ctx, dialled, write);
    report(ctx, dialled, event_kind::REFUSED, reason);
}

#[inline(always)]
fn lead_nowhere<W: Fn(&SockAddrContext, &Addr)>(
    ctx: &SockAddrContext,
    dialled: &Dialled,
    write: W,
) {
    leave_device(ctx);
    write(ctx, &dialled.addr.loopback());
    write_port(ctx, 0);
}

#[inline(always)]
fn is_agent(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context's socket is alive for the call.
    !unsafe { AGENT_SOCKETS.get_ptr_mut(ctx) }.is_null()
}

#[inline(always)]
fn remember(ctx: &SockAddrContext, dialled: &Dialled, verdict: &Outbound, flags: u32) -> bool {
    let mut meta = ConnMeta {
        netns_cookie: dialled.cookie,
        original: dialled.addr,
        backend: verdict.to,
        original_port_be: dialled.port_be,
        backend_port_be: verdict.to_port_be,
        flags,
        opened_ns: 0,
    };
    // SAFETY: the socket is that of the context, alive for the call; the returned memory is
    // written whole because a re-used socket already has a value.
    unsafe {
        let stored = CONN_META.get_or_insert_ptr_mut(ctx, Some(&mut meta));
        if stored.is_null() {
            return false;
        }
        *stored = meta;
    }
    true
}

/// Binds the socket to the pod's own address, so that `getsockname` shows it although the peer is
/// a loopback address. Harmless where it fails, and left alone where the application has bound.
#[inline(always)]
fn bind_source(ctx: &SockAddrContext, source: &Addr) {
    // SAFETY: `sk` of the context is a valid socket of this program type.
    let sk: *mut bpf_sock = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    // SAFETY: as above.
    if source.is_unspecified() || unsafe { (*sk).src_port } != 0 {
        return;
    }
    // SAFETY: as above.
    let socket_is_v6 = unsafe { (*ctx.sock_addr).family } == u32::from(AF_INET6);
    if socket_is_v6 {
        let mut sockaddr = SockaddrIn6 {
            family: AF_INET6,
            port_be: 0,
            flow_info: 0,
            addr: source.words_be,
            scope_id: 0,
        };
        // SAFETY: a complete sockaddr_in6 on this stack.
        unsafe { bpf_bind(ctx.sock_addr, (&raw mut sockaddr).cast(), 28) };
    } else {
        let mut sockaddr =
            SockaddrIn { family: AF_INET, port_be: 0, addr_be: source.v4_word_be(), zero: [0; 8] };
        // SAFETY: a complete sockaddr_in on this stack.
        unsafe { bpf_bind(ctx.sock_addr, (&raw mut sockaddr).cast(), 16) };
    }
}

/// Undoes SO_BINDTODEVICE: a socket held to `eth0` would never hear from a loopback address. What
/// leaves the pod for it leaves from the agent's own socket, by the pod's routes.
#[inline(always)]
fn leave_device(ctx: &SockAddrContext) {
    // SAFETY: `sk` of the context is a valid socket of this program type.
    let bound = unsafe { (*(*ctx.sock_addr).__bindgen_anon_1.sk).bound_dev_if };
    if bound != 0 {
        let mut name = [0u8; 4];
        // SAFETY: an empty, terminated device name on this stack.
        unsafe {
            bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, SO_BINDTODEVICE, name.as_mut_ptr().cast(), 4)
        };
    }
}

#[inline(always)]
fn report(ctx: &SockAddrContext, dialled: &Dialled, kind: u32, reason: Reason) {
    let event = ConnEvent {
        netns_cookie: dialled.cookie,
        cgroup: dialled.cgroup,
        destination: dialled.addr,
        destination_port_be: dialled.port_be,
        kind,
        reason: reason as u32,
        ..ConnEvent::empty()
    };
    send(ctx, event);
}

#[repr(C)]
struct SockaddrIn {
    family: u16,
    port_be: u16,
    addr_be: u32,
    zero: [u8; 8],
}

#[repr(C)]
struct SockaddrIn6 {
    family: u16,
    port_be: u16,
    flow_info: u32,
    addr: [u32; 4],
    scope_id: u32,
}
