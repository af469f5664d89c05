//! `cgroup/connect4` and `cgroup/connect6` for sockets whose network namespace is not programmed: the
//! startup gate.
//!
//! Here `current` may be asked, other than in sockops and sk_lookup: `connect` runs in the process that
//! calls it (or in a thread that the kernel has made for its io_uring, in the same cgroup).

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_map_lookup_elem, bpf_sk_release,
};
use undermesh_ebpf_common::{
    Addr, GateKey, GateView, Held, Outbound, Reason, decide_gated, is_held,
};

use crate::{
    connect::Maps,
    maps::{GATE, GATE_MARKS, WATCHER},
};

/// What the gate says, and which cgroup it is about.
pub struct Gated {
    pub verdict: Outbound,
    pub cgroup: u64,
}

/// Decides about a connection from a namespace that `PODS` does not know. A process that runs where no
/// pod does costs an array element and one helper.
#[inline(always)]
pub fn decide(maps: &Maps<'_>, netns_cookie: u64, addr: &Addr, port_be: u16) -> Gated {
    if let Some(gate) = GATE.get(0) {
        let Held { held, cgroup } = is_held(&Caller, gate, netns_cookie);
        if held {
            return Gated { verdict: decide_gated(maps, gate, addr, port_be), cgroup };
        }
    }
    Gated { verdict: Outbound::pass(Reason::NotEnrolled, addr), cgroup: 0 }
}

/// The process that connects.
struct Caller;

impl GateView for Caller {
    #[inline(always)]
    fn cgroup_at(&self, level: u32) -> u64 {
        // SAFETY: plain helper without preconditions.
        unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
    }
    #[inline(always)]
    fn mark(&self, key: &GateKey) -> u32 {
        // SAFETY: a word, read at once.
        unsafe { GATE_MARKS.get(key) }.copied().unwrap_or(0)
    }
    #[inline(always)]
    fn agent_watches(&self) -> bool {
        let key = 0u32;
        // SAFETY: the key lives on this stack; what is found is released and used nowhere else. (aya's
        // own type of this map has no lookup.)
        unsafe {
            let map = (&raw const WATCHER).cast_mut().cast();
            let socket = bpf_map_lookup_elem(map, (&raw const key).cast());
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket);
        }
        true
    }
}
