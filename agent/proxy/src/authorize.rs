//! Step *authorize*: may this connection be delivered, and may it stay? Decided without I/O; the
//! policy itself is evaluated where it is compiled.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;
use undermesh_model::SpiffeId;
use undermesh_snapshot::{CompiledPolicy, ConnectionAttributes, Decision, evaluate};

use crate::metrics::Metrics;

/// The policy of one pod as it changes; nothing where no policy is about it.
pub(crate) type PolicyWatch = watch::Receiver<Option<Arc<CompiledPolicy>>>;

/// Everything that a decision may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    /// Who the peer has proven to be.
    pub(crate) source: &'a SpiffeId,
    /// Where it comes from.
    pub(crate) source_addr: SocketAddr,
    /// What it wants to reach.
    pub(crate) destination: SocketAddr,
    /// The pod it wants to reach it in.
    pub(crate) workload: &'a SpiffeId,
}

/// Why a connection may not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Stable code for logs and metrics.
    pub(crate) reason: &'static str,
    /// Which policy says so.
    pub(crate) detail: Arc<str>,
}

/// Decides about a new connection: its identity has to belong to the trust domain of the pod, and
/// policy must have nothing against it. TLS has checked the first already; a destination that is
/// reached in another way is still safe.
pub(crate) fn authorize(
    attempt: &Attempt<'_>,
    policy: Option<&CompiledPolicy>,
    metrics: &Metrics,
) -> Result<(), Denial> {
    if attempt.source.trust_domain != attempt.workload.trust_domain {
        let detail = format!("{} belongs to another trust domain", attempt.source).into();
        return Err(Denial { reason: "wrong_trust_domain", detail });
    }
    let Some(policy) = policy else { return Ok(()) };
    let decision = judge(policy, &attempt.attributes(), metrics);
    if decision.allowed {
        return Ok(());
    }
    Err(Denial { reason: "policy_denied", detail: decision.to_string().into() })
}

/// Waits until a changed policy refuses the connection that the former one let in. Never returns
/// where none does.
pub(crate) async fn revoked(
    attempt: &Attempt<'_>,
    policies: &mut PolicyWatch,
    metrics: &Metrics,
) -> Denial {
    while policies.changed().await.is_ok() {
        let policy = policies.borrow_and_update().clone();
        let Some(policy) = policy else { continue };
        let decision = evaluate(&policy, &attempt.attributes());
        if !decision.allowed {
            metrics.record_policy_denial(&decision);
            return Denial { reason: "policy_denied_late", detail: decision.to_string().into() };
        }
    }
    // The pod is no longer served; whoever has ended that ends its connections.
    std::future::pending().await
}

impl Attempt<'_> {
    fn attributes(&self) -> ConnectionAttributes<'_> {
        ConnectionAttributes {
            source: Some(self.source),
            source_address: self.source_addr.ip(),
            destination: self.destination,
        }
    }
}

/// Evaluates, and counts what there is to report.
pub(crate) fn judge<'a>(
    policy: &'a CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
    metrics: &Metrics,
) -> Decision<'a> {
    let decision = evaluate(policy, connection);
    if !decision.allowed {
        metrics.record_policy_denial(&decision);
    }
    for finding in &decision.findings {
        metrics.record_policy_finding(finding);
        tracing::info!(
            source = connection.source.map(ToString::to_string),
            from = %connection.source_address,
            to = %connection.destination,
            policy = %finding.policy,
            finding = finding.kind.as_str(),
            "policy has a finding"
        );
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const MEMBER: &str = "spiffe://cluster.local/ns/other/sa/client";

    fn decide(source: &str, policy: Option<&CompiledPolicy>) -> Result<(), Denial> {
        let attempt = Attempt {
            source: &source.parse().unwrap(),
            source_addr: "10.0.0.1:4711".parse().unwrap(),
            destination: "10.0.1.1:80".parse().unwrap(),
            workload: &"spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
        };
        authorize(&attempt, policy, &Metrics::default())
    }

    #[test]
    fn members_of_the_mesh_are_allowed_where_there_is_no_policy() {
        assert_eq!(decide(MEMBER, None), Ok(()));
    }

    #[test]
    fn another_trust_domain_is_denied_whatever_policy_says() {
        let stranger = "spiffe://elsewhere/ns/shop/sa/cart";
        assert_eq!(decide(stranger, None).unwrap_err().reason, "wrong_trust_domain");
    }

    #[test]
    fn a_denial_names_the_policy() {
        let denial = decide(MEMBER, Some(&testing::policy(&["shop"]))).unwrap_err();
        assert_eq!(denial.reason, "policy_denied");
        assert_eq!(&*denial.detail, "not allowed by AuthorizationPolicy shop/members");
        assert_eq!(decide(MEMBER, Some(&testing::policy(&["shop", "other"]))), Ok(()));
    }
}
