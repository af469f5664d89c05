//! What the kernel offers beyond the least that is needed, as far as the agent does something else
//! without it. Asked as `undermesh doctor` asks, never concluded from a version.

use crate::probe::{Availability, Feature};

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// sockops can ask for the netns cookie (Linux 5.15). Without it, `bind` leaves a note of it
    /// in the socket.
    pub sockops_netns_cookie: bool,
    /// SO_NETNS_COOKIE (Linux 5.14). Without it, a program at the agent's own cgroup answers.
    pub socket_netns_cookie: bool,
}

impl Features {
    /// Asks the kernel.
    pub fn probe() -> Self {
        let has = |feature: Feature| feature.probe() == Availability::Available;
        Self {
            sockops_netns_cookie: has(Feature::SockOpsNetnsCookie),
            socket_netns_cookie: has(Feature::SocketNetnsCookie),
        }
    }
}
