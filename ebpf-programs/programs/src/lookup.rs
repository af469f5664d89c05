//! Finding another socket by its addresses.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::bpf_sk_lookup_tcp,
};
use undermesh_ebpf_common::Addr;

/// A connection as a packet of it would carry it.
pub struct Ends {
    pub from: Addr,
    pub from_port_be: u16,
    pub to: Addr,
    pub to_port_be: u16,
}

/// The TCP socket that a packet would reach in a network namespace, or null. What is found must be
/// released.
#[inline(always)]
pub fn tcp(ctx: *mut c_void, ends: &Ends, netns: u64) -> *mut bpf_sock {
    if ends.to.is_v4() {
        let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: ends.from.v4_word_be(),
            daddr: ends.to.v4_word_be(),
            sport: ends.from_port_be,
            dport: ends.to_port_be,
        };
        lookup(ctx, bpf_sock_tuple__bindgen_ty_1 { ipv4 }, 12, netns)
    } else {
        let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: ends.from.words_be,
            daddr: ends.to.words_be,
            sport: ends.from_port_be,
            dport: ends.to_port_be,
        };
        lookup(ctx, bpf_sock_tuple__bindgen_ty_1 { ipv6 }, 36, netns)
    }
}

#[inline(always)]
fn lookup(
    ctx: *mut c_void,
    tuple: bpf_sock_tuple__bindgen_ty_1,
    size: u32,
    netns: u64,
) -> *mut bpf_sock {
    let mut tuple = bpf_sock_tuple { __bindgen_anon_1: tuple };
    // SAFETY: the tuple lives on this stack, and `size` is that of its family.
    unsafe { bpf_sk_lookup_tcp(ctx, &raw mut tuple, size, netns, 0) }
}
