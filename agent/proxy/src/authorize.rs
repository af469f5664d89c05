//! Step *authorize*: may this connection be delivered? Decided from a plain struct, without I/O.

use std::net::SocketAddr;

use undermesh_model::{SpiffeId, TrustDomain};

/// Everything that a decision may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionAttributes<'a> {
    /// Who the peer has proven to be.
    pub(crate) source: &'a SpiffeId,
    /// Where it comes from.
    pub(crate) source_addr: SocketAddr,
    /// What it wants to reach.
    pub(crate) destination: SocketAddr,
    /// The pod it wants to reach it in.
    pub(crate) workload: &'a SpiffeId,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Deliver it.
    Allow,
    /// Refuse it, and say why.
    Deny {
        /// Stable code for logs and metrics.
        reason: &'static str,
    },
}

/// Members of the mesh may connect: those whose identity belongs to the trust domain of the pod.
/// TLS has checked this already; a destination that is reached in another way is still safe.
pub(crate) fn authorize(connection: &ConnectionAttributes<'_>) -> Decision {
    let domain: &TrustDomain = &connection.workload.trust_domain;
    if connection.source.trust_domain == *domain {
        return Decision::Allow;
    }
    tracing::debug!(
        source = %connection.source,
        from = %connection.source_addr,
        to = %connection.destination,
        "denied: another trust domain"
    );
    Decision::Deny { reason: "wrong_trust_domain" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(source: &str) -> Decision {
        authorize(&ConnectionAttributes {
            source: &source.parse().unwrap(),
            source_addr: "10.0.0.1:4711".parse().unwrap(),
            destination: "10.0.1.1:80".parse().unwrap(),
            workload: &"spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
        })
    }

    #[test]
    fn members_of_the_mesh_are_allowed() {
        let member = "spiffe://cluster.local/ns/other/sa/client";
        assert_eq!(decide(member), Decision::Allow);
    }

    #[test]
    fn another_trust_domain_is_denied() {
        let reason = "wrong_trust_domain";
        let stranger = "spiffe://elsewhere/ns/shop/sa/cart";
        assert_eq!(decide(stranger), Decision::Deny { reason });
    }
}
