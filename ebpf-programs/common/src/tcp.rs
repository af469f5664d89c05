//! What TCP's own counters say about the bytes of an application.

/// Connection states of Linux (`enum`, `include/net/tcp_states.h`).
pub mod state {
    /// Our SYN is on its way.
    pub const SYN_SENT: u32 = 2;
    /// Our FIN is acknowledged.
    pub const FIN_WAIT2: u32 = 5;
    /// Both have closed.
    pub const TIME_WAIT: u32 = 6;
    /// The peer has closed.
    pub const CLOSE_WAIT: u32 = 8;
    /// The peer has closed, and so have we.
    pub const LAST_ACK: u32 = 9;
    /// Both have closed at once.
    pub const CLOSING: u32 = 11;
}

/// Bytes of payload that a client has sent and received, from `bytes_acked` and `bytes_received` at
/// the end of its connection. Sequence numbers count SYN and FIN as a byte each: ours are part of
/// what was acknowledged, the peer's FIN of what was received.
#[inline(always)]
pub const fn payload(acked: u64, received: u64, last_state: u32) -> (u64, u64) {
    use state::{CLOSE_WAIT, CLOSING, FIN_WAIT2, LAST_ACK, TIME_WAIT};
    let our_fin = matches!(last_state, FIN_WAIT2 | TIME_WAIT | LAST_ACK | CLOSING);
    let their_fin = matches!(last_state, FIN_WAIT2 | TIME_WAIT | LAST_ACK | CLOSING | CLOSE_WAIT);
    (acked.saturating_sub(1 + our_fin as u64), received.saturating_sub(their_fin as u64))
}

#[cfg(test)]
mod tests {
    use super::{payload, state};

    #[test]
    fn syn_and_fin_are_no_payload() {
        assert_eq!(payload(102, 201, state::FIN_WAIT2), (100, 200));
        assert_eq!(payload(102, 201, state::LAST_ACK), (100, 200));
        assert_eq!(payload(101, 201, state::CLOSE_WAIT), (100, 200));
        assert_eq!(payload(101, 200, 1), (100, 200));
        assert_eq!(payload(0, 0, state::SYN_SENT), (0, 0));
    }
}
