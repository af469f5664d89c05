//! A connection that carries no requests, where the policy looks at requests.

use std::sync::Arc;

use undermesh_snapshot::{CompiledPolicy, evaluate_opaque};
use undermesh_telemetry::{ByteCounters, CloseReason};

use super::Visit;
use crate::{
    authorize::{Denial, PolicyWatch, changed, late},
    duplex::Duplex,
    error::Failure,
    forward::forward,
};

/// Judges it as layer 4 does, and delivers it if it may pass. A stream that is dropped is reset.
pub(super) async fn serve<D: Duplex>(
    visit: &Visit,
    stream: &mut D,
    policies: &mut PolicyWatch,
    counters: &ByteCounters,
) -> CloseReason {
    let server = match authorize(visit) {
        Ok(()) => visit.connect().await,
        Err(Denial { reason, detail }) => Err(Failure::Denied { reason, detail }),
    };
    let mut server = match server {
        Ok(server) => server,
        Err(failure) => {
            return CloseReason::new(failure.reason(), failure.flags())
                .with_detail(failure.to_string());
        }
    };
    let judged = |policy: &CompiledPolicy| {
        let decision = evaluate_opaque(policy, &visit.attributes());
        (!decision.allowed).then(|| decision.to_string().into())
    };
    tokio::select! {
        ending = forward(stream, &mut server, counters) => ending.close_reason(),
        denial = changed(policies, judged) => late(&denial),
    }
}

/// Whether bytes that nobody looks into may pass.
pub(crate) fn authorize(visit: &Visit) -> Result<(), Denial> {
    let policy = visit.policy();
    let decision = evaluate_opaque(&policy, &visit.attributes());
    if decision.allowed {
        return Ok(());
    }
    visit.pod.shared.metrics.record_policy_denial(&decision);
    let detail = Arc::from(format!("{decision} (the connection carries no HTTP)"));
    Err(Denial { reason: "policy_denied", detail })
}
