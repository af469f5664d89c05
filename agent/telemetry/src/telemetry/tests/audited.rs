//! What policies refuse is audited, once, and where it is refused.

use undermesh_model::ResourceRef;

use super::*;
use crate::{Audit, AuditSink, RequestInfo};

#[test]
fn what_a_policy_refuses_is_audited_by_the_servers_agent_and_nothing_else_is() {
    let (telemetry, _) = telemetry(10);
    let lines = Lines::default();
    let audit = Audit::start("agent", AuditSink::Memory(Arc::clone(&lines))).unwrap();
    telemetry.audit_denials(audit);
    let server = ConnectionInfo { reporter: Reporter::Destination, ..info("web") };
    let because = |reason| CloseReason::new(reason, "-").with_detail("shop/members");
    for (info, reason) in [
        (&server, "policy_denied"),
        (&server, "tls_no_certificate"),
        (&info("web"), "policy_denied"),
    ] {
        telemetry.denied(&Denial { info: info.clone(), reason: because(reason) });
    }
    telemetry.open(server.clone()).close(because("policy_denied_late"));
    telemetry.open(server.clone()).close(CloseReason::closed());
    let policy = ResourceRef::namespaced("AuthorizationPolicy", "shop", "members");
    let request =
        RequestInfo { reason: "policy_denied", policy: Some(policy.named()), ..Default::default() };
    telemetry.requests(1, server.clone()).record(&request);
    telemetry.requests(1, server).record(&RequestInfo::default());
    assert!(telemetry.flush_audit(Duration::from_secs(5)));
    let found = wait_for(&lines, 3);
    assert_eq!(found.len(), 3, "{found:?}");
    for line in &found {
        assert_eq!(line["event"], "policy_denied");
        assert_eq!(line["identity"], "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(line["address"], "10.1.0.2");
    }
    assert_eq!(found[0]["detail"], "shop/members");
    assert_eq!(found[1]["reason"], "policy_denied_late");
    assert_eq!(found[2]["policy"], "AuthorizationPolicy shop/members");
}
