//! Step *authorize*: may this connection be delivered, and may it stay? Decided without I/O; the
//! policy itself is evaluated where it is compiled.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;
use undermesh_model::SpiffeId;
use undermesh_snapshot::{Cause, CompiledPolicy, ConnectionAttributes, Decision, evaluate};
use undermesh_telemetry::CloseReason;

use crate::metrics::Metrics;

/// The policy of one pod as it changes; nothing where no policy is about it.
pub(crate) type PolicyWatch = watch::Receiver<Option<Arc<CompiledPolicy>>>;

/// Everything that a decision may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    /// Who the peer has proven to be; nobody, for plaintext.
    pub(crate) source: Option<&'a SpiffeId>,
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

/// What becomes of a connection that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is delivered as it is.
    Deliver,
    /// Its requests are judged one by one ([`crate::guard`]).
    Judge,
}

/// Decides about a new connection: an identity has to belong to the trust domain of the pod, and
/// policy must have nothing against it. TLS has checked the first already; a destination that is
/// reached in another way is still safe.
pub(crate) fn authorize(
    attempt: &Attempt<'_>,
    policy: Option<&CompiledPolicy>,
    metrics: &Metrics,
) -> Result<Admission, Denial> {
    is_member(attempt)?;
    let Some(policy) = policy else { return Ok(Admission::Deliver) };
    admission(&judge(policy, &attempt.attributes(), metrics))
}

/// Whether an identity belongs to the trust domain of the pod.
pub(crate) fn is_member(attempt: &Attempt<'_>) -> Result<(), Denial> {
    match attempt.source {
        Some(source) if source.trust_domain != attempt.workload.trust_domain => {
            let detail = format!("{source} belongs to another trust domain").into();
            Err(Denial { reason: "wrong_trust_domain", detail })
        }
        _ => Ok(()),
    }
}

/// What a decision of policy means for a connection.
pub(crate) fn admission(decision: &Decision<'_>) -> Result<Admission, Denial> {
    if decision.allowed {
        return Ok(Admission::Deliver);
    }
    if decision.waits() {
        return Ok(Admission::Judge);
    }
    let reason = match decision.cause {
        Cause::StrictPlaintext => "strict_plaintext",
        _ => "policy_denied",
    };
    Err(Denial { reason, detail: decision.to_string().into() })
}

/// How a connection ends that a later policy refuses.
pub(crate) fn late(denial: &Denial) -> CloseReason {
    CloseReason::new(denial.reason, "UAEX").with_detail(&*denial.detail)
}

/// Waits until a changed policy refuses the connection that the former one let in, or looks at requests, which
/// nobody has judged in it. Never returns where none does.
pub(crate) async fn revoked(
    attempt: &Attempt<'_>,
    policies: &mut PolicyWatch,
    metrics: &Metrics,
) -> Denial {
    let judged = |policy: &CompiledPolicy| {
        let decision = evaluate(policy, &attempt.attributes());
        (!decision.allowed).then(|| {
            metrics.record_policy_denial(&decision);
            decision.to_string().into()
        })
    };
    changed(policies, judged).await
}

/// Waits for a change of policy that `judged` has something against. Never returns where there is none.
pub(crate) async fn changed(
    policies: &mut PolicyWatch,
    judged: impl Fn(&CompiledPolicy) -> Option<Arc<str>>,
) -> Denial {
    while policies.changed().await.is_ok() {
        let policy = policies.borrow_and_update().clone();
        if let Some(detail) = policy.as_deref().and_then(&judged) {
            return Denial { reason: "policy_denied_late", detail };
        }
    }
    // The pod is no longer served; whoever has ended that ends its connections.
    std::future::pending().await
}

impl<'a> Attempt<'a> {
    pub(crate) fn attributes(&self) -> ConnectionAttributes<'a> {
        ConnectionAttributes {
            source: self.source,
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
    if !decision.allowed && !decision.waits() {
        metrics.record_policy_denial(&decision);
    }
    for finding in &decision.findings {
        metrics.record_policy_finding(finding);
        tracing::info!(
            source = connection.source.map(ToString::to_string),
            from = %connection.source_address,
            to = %connection.destination,
            policy = %finding.policy,
            rule = finding.rule,
            finding = finding.kind.as_str(),
            "policy has a finding"
        );
    }
    decision
}

#[cfg(test)]
mod tests {
    use undermesh_model::MtlsMode;

    use super::*;
    use crate::testing;

    const MEMBER: &str = "spiffe://cluster.local/ns/other/sa/client";

    fn decide(source: &str, policy: Option<&CompiledPolicy>) -> Result<Admission, Denial> {
        let attempt = Attempt {
            source: Some(&source.parse().unwrap()),
            source_addr: "10.0.0.1:4711".parse().unwrap(),
            destination: "10.0.1.1:80".parse().unwrap(),
            workload: &"spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
        };
        authorize(&attempt, policy, &Metrics::default())
    }

    #[test]
    fn members_of_the_mesh_are_allowed_where_there_is_no_policy() {
        assert_eq!(decide(MEMBER, None), Ok(Admission::Deliver));
    }

    #[test]
    fn another_trust_domain_is_denied_whatever_policy_says() {
        let stranger = "spiffe://elsewhere/ns/shop/sa/cart";
        assert_eq!(decide(stranger, None).unwrap_err().reason, "wrong_trust_domain");
    }

    #[test]
    fn plaintext_has_no_identity_to_allow() {
        let attempt = Attempt {
            source: None,
            source_addr: "10.0.0.1:4711".parse().unwrap(),
            destination: "10.0.1.1:80".parse().unwrap(),
            workload: &"spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
        };
        let decide = |policy: Option<&CompiledPolicy>| {
            authorize(&attempt, policy, &Metrics::default()).map_err(|denial| denial.reason)
        };
        assert_eq!(decide(None), Ok(Admission::Deliver));
        assert_eq!(decide(Some(&testing::policy(&["shop"]))), Err("policy_denied"));
        let strict = CompiledPolicy { modes: MtlsMode::Strict.into(), ..CompiledPolicy::default() };
        assert_eq!(decide(Some(&strict)), Err("strict_plaintext"));
    }

    #[test]
    fn a_denial_names_the_policy() {
        let denial = decide(MEMBER, Some(&testing::policy(&["shop"]))).unwrap_err();
        assert_eq!(denial.reason, "policy_denied");
        assert_eq!(
            &*denial.detail,
            "not allowed by AuthorizationPolicy shop/members, rule[0] from[0] namespaces"
        );
        assert_eq!(
            decide(MEMBER, Some(&testing::policy(&["shop", "other"]))),
            Ok(Admission::Deliver)
        );
    }
}
