//! Why a connection went where it went: the index of a counter, and a word in logs and metrics.

macro_rules! reasons {
    ($($(#[$meta:meta])* $name:ident = $code:literal $text:literal,)*) => {
        /// The one reason of a verdict.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$meta])* $name = $code,)* }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Stable name for logs, metrics and documentation.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The socket's network namespace is not an enrolled pod.
    NotEnrolled = 0 "not_enrolled",
    /// Loopback, link-local, multicast or unspecified destination.
    NeverMeshed = 1 "never_meshed",
    /// No meshed service or workload at the destination.
    OutsideMesh = 2 "outside_mesh",
    /// The agent's own connection.
    AgentOwn = 3 "agent_own",
    /// The pod dialled its own address.
    OwnAddress = 4 "own_address",
    /// A pod of this node, reached without user space.
    Local = 5 "local",
    /// Sent to the node's proxy.
    Proxied = 6 "proxied",
    /// The service exists and has no endpoint.
    NoEndpoint = 7 "no_endpoint",
    /// The agent does not answer, and the pod fails closed.
    ProxyDown = 8 "proxy_down",
    /// The agent does not answer, and the pod fails open.
    ProxyDownFailedOpen = 9 "proxy_down_failed_open",
    /// A backend slot was empty: the maps were being changed, and the client should retry.
    Inconsistent = 10 "inconsistent",
    /// The destination could not be saved or rewritten.
    RewriteFailed = 11 "rewrite_failed",
    /// Inbound: plaintext that the table of policy lets in.
    InboundPlaintext = 12 "inbound_plaintext",
    /// Inbound: from inside the pod, the agent's delivery included.
    InboundSelf = 13 "inbound_self",
    /// Inbound: a published connection of an enrolled pod of this node.
    InboundLocal = 14 "inbound_local",
    /// Inbound: steered to the agent's tunnel listener.
    InboundTunnel = 15 "inbound_tunnel",
    /// Inbound: plaintext to a STRICT pod.
    StrictPlaintext = 16 "strict_plaintext",
    /// Inbound: tunnel connection while the agent has no listener.
    TunnelDown = 17 "tunnel_down",
    /// An event was lost because the ring buffer was full.
    EventLost = 18 "event_lost",
    /// A published connection could not be stored; the destination will treat it as unknown.
    PublishFailed = 19 "publish_failed",
    /// A local connection has ended; an event's reason, not a verdict.
    LocalClosed = 20 "closed",
    /// A local connection was not accepted; an event's reason, not a verdict.
    LocalFailed = 21 "connection_refused",
    /// Inbound: an AuthorizationPolicy refuses it.
    PolicyDenied = 22 "policy_denied",
    /// Inbound: handed to the agent, which finds out whether it is a tunnel and judges it.
    InboundCaptured = 23 "inbound_captured",
    /// Inbound: for the agent to judge, at a port where nobody listens.
    PortClosed = 24 "port_closed",
    /// Inbound: the kubelet's own connection to a port that it was asked to probe.
    InboundProbe = 25 "inbound_probe",
    /// A process that runs where pods run, in a namespace that is not programmed yet: refused.
    Gated = 26 "gated",
    /// The same, let through.
    GatedOpen = 27 "gated_open",
    /// Inbound: the agent's delivery, from the client's own address.
    InboundTransparent = 28 "inbound_transparent",
    /// Nothing that is registered is at the destination, and the mesh lets nothing else through.
    NotRegistered = 29 "not_registered",
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::Reason;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_indices_and_names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        let names: BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
