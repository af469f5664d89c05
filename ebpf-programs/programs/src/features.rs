//! What this kernel offers, as the agent has found out before it loaded the programs. The verifier
//! sees constants and removes what would call a helper that is not there.

use aya_ebpf::Global;

/// Non-zero: sockops can ask for the netns cookie (Linux 5.15).
#[unsafe(no_mangle)]
static SOCKOPS_NETNS_COOKIE: Global<u32> = Global::new(1);

/// Whether sockops can ask for the netns cookie.
#[inline(always)]
pub fn sockops_netns_cookie() -> bool {
    SOCKOPS_NETNS_COOKIE.load() != 0
}
