//! What became of requests for certificates: lines of the audit log, counters, and the log for what was
//! refused.

use undermesh_identity::{
    Issued,
    issuance::{self, Observer, Refusal},
};
use undermesh_model::SpiffeId;
use undermesh_telemetry::{Asker, Audit, AuditEvent};

use super::metrics::Metrics;

pub(super) struct Observed {
    audit: Audit,
    metrics: Metrics,
}

impl Observed {
    pub(super) fn new(audit: Audit, metrics: Metrics) -> Self {
        Self { audit, metrics }
    }
}

impl Observer for Observed {
    fn issued(&self, asker: &issuance::Asker, id: &SpiffeId, issued: &Issued) {
        self.metrics.issued();
        tracing::debug!(%id, serial = issued.serial, address = %asker.address, "certificate issued");
        self.audit.record(&AuditEvent::CertificateIssued {
            identity: id.to_string(),
            serial: issued.serial.clone(),
            not_after: issued.expires(),
            asker: who(asker),
        });
    }

    fn refused(&self, asker: &issuance::Asker, refusal: &Refusal) {
        self.metrics.refused(refusal.reason);
        let (address, reason) = (asker.address, refusal.reason);
        tracing::info!(%address, reason, message = refusal.message, "certificate refused");
        self.audit.record(&AuditEvent::CertificateRefused {
            identity: asker.wanted.clone(),
            reason: reason.to_owned(),
            message: refusal.message.clone(),
            asker: who(asker),
        });
    }
}

pub(super) fn who(asker: &issuance::Asker) -> Asker {
    Asker {
        address: asker.address.to_string(),
        identity: asker.identity.as_ref().map(ToString::to_string),
        pod: asker.pod.clone(),
        node: asker.node.clone(),
    }
}
