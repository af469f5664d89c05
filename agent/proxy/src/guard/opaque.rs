//! A connection that carries no requests, where the policy looks at requests.

use std::sync::Arc;

use undermesh_snapshot::{CompiledPolicy, Decision, evaluate_opaque};
use undermesh_telemetry::ConnectionInfo;

use super::Visit;
use crate::{
    authorize::{Denial, PolicyWatch, changed, late},
    duplex::Duplex,
    error::Failure,
    forward::forward,
    record,
};

/// Judges it as layer 4 does, and delivers it if it may pass. A stream that is dropped is reset.
pub(super) async fn serve<D: Duplex>(
    visit: &Visit,
    info: ConnectionInfo,
    stream: &mut D,
    mut policies: PolicyWatch,
) {
    let server = match authorize(visit) {
        Ok(()) => visit.connect().await,
        Err(Denial { reason, detail }) => Err(Failure::Denied { reason, detail }),
    };
    let mut server = match server {
        Ok(server) => server,
        Err(failure) => return record::inbound_refused(&visit.pod, info, &failure),
    };
    let record = visit.pod.shared.telemetry.open(info);
    let judged = |policy: &CompiledPolicy| {
        let decision = evaluate_opaque(policy, &visit.attributes());
        (!decision.allowed).then(|| decision.to_string().into())
    };
    let reason = tokio::select! {
        ending = forward(stream, &mut server, record.counters()) => ending.close_reason(),
        denial = changed(&mut policies, judged) => late(&denial),
    };
    record.close(reason);
}

/// Whether bytes that nobody looks into may pass.
pub(crate) fn authorize(visit: &Visit) -> Result<(), Denial> {
    let policy = visit.policy();
    let decision = evaluate_opaque(&policy, &visit.attributes());
    if !decision.allowed {
        visit.pod.shared.metrics.record_policy_denial(&decision);
    }
    admission(&decision)
}

/// What a decision means for such bytes.
pub(super) fn admission(decision: &Decision<'_>) -> Result<(), Denial> {
    if decision.allowed {
        return Ok(());
    }
    let detail = Arc::from(format!("{decision} (the connection carries no HTTP)"));
    Err(Denial { reason: "policy_denied", detail })
}
