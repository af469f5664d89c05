//! Counting and reporting of verdicts.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::bpf_ktime_get_ns,
};
use aya_log_ebpf::debug;
use undermesh_ebpf_common::{ConnEvent, Reason};

use crate::maps::{EVENTS, VERDICTS};

/// Adds one to the counter of `reason`.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = VERDICTS.get_ptr_mut(reason as u32) {
        // SAFETY: the slot belongs to this CPU, and programs of one CPU do not interrupt each
        // other in a way that loses more than an increment.
        unsafe { *counter += 1 };
    }
}

/// Sends an event to the agent and wakes it; a full buffer is counted, never waited for.
#[inline(always)]
pub fn send<C: EbpfContext>(ctx: &C, event: ConnEvent) {
    submit(ctx, event, 0);
}

/// Sends an event that may wait: the agent looks for it several times a second, and is woken before
/// that only when the buffer fills. Waking it for every connection would cost each of them more
/// than all that the programs do.
#[inline(always)]
pub fn send_lazily<C: EbpfContext>(ctx: &C, event: ConnEvent) {
    let filling =
        EVENTS.query(BPF_RB_AVAIL_DATA.into()) > EVENTS.query(BPF_RB_RING_SIZE.into()) / 4;
    let wake = if filling { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    submit(ctx, event, wake.into());
}

#[inline(always)]
fn submit<C: EbpfContext>(ctx: &C, event: ConnEvent, flags: u64) {
    debug!(ctx, "event kind {} reason {}", event.kind, event.reason);
    match EVENTS.reserve::<ConnEvent>(0) {
        Some(mut entry) => {
            // SAFETY: plain helper without preconditions.
            let at_ns = unsafe { bpf_ktime_get_ns() };
            entry.write(ConnEvent { at_ns, ..event });
            entry.submit(flags);
        }
        None => count(Reason::EventLost),
    }
}
