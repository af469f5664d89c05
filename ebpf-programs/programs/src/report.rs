//! Counting and reporting of verdicts.

use aya_ebpf::{EbpfContext, helpers::bpf_ktime_get_ns};
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

/// Sends an event to the agent; a full buffer is counted, never waited for.
#[inline(always)]
pub fn send<C: EbpfContext>(ctx: &C, event: ConnEvent) {
    debug!(ctx, "event kind {} reason {}", event.kind, event.reason);
    match EVENTS.reserve::<ConnEvent>(0) {
        Some(mut entry) => {
            // SAFETY: plain helper without preconditions.
            let at_ns = unsafe { bpf_ktime_get_ns() };
            entry.write(ConnEvent { at_ns, ..event });
            entry.submit(0);
        }
        None => count(Reason::EventLost),
    }
}
