//! What the kernel offers beyond the least that is needed. Asked, never concluded from a version.

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use socket2::{Domain, Socket, Type};

use crate::sys;

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
        let helper =
            is_helper_supported(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None);
        Self {
            sockops_netns_cookie: helper.unwrap_or(false),
            socket_netns_cookie: socket.and_then(sys::netns_cookie).is_ok(),
        }
    }
}
