//! After what, and how often, a request is tried again.
//!
//! Source: Istio, `pilot/pkg/networking/core/route/retry`, for what holds where nothing is said.

use undermesh_model::traffic::{Retries, RetryOn};

use super::{
    findings::{Findings, Path},
    shapes,
};

/// `retries`.
pub(super) fn retries(findings: &mut Findings<'_>, at: &Path, shape: &shapes::Retries) -> Retries {
    let standard = Retries::istio_default();
    let others = shape.per_try_timeout.is_some()
        || !shape.retry_on.is_empty()
        || shape.retry_remote_localities.is_some();
    if shape.attempts == 0 && others {
        let remedy = "write attempts, or attempts alone to switch retries off";
        findings.refuse(at, "has conditions and no attempts", remedy);
    }
    let timeout = shape.per_try_timeout.as_ref();
    let backoff = shape.backoff.as_ref();
    let backoff = backoff.and_then(|text| findings.duration(&at.field("backoff"), text));
    let on = match shape.retry_on.as_str() {
        "" => standard.on,
        text => conditions(findings, &at.field("retryOn"), text),
    };
    Retries {
        attempts: shape.attempts,
        per_try_timeout: timeout
            .and_then(|text| findings.duration(&at.field("perTryTimeout"), text)),
        on,
        backoff: backoff.unwrap_or(standard.backoff),
        avoid_previous: shape.retry_ignore_previous_hosts,
        other_localities: shape.retry_remote_localities.unwrap_or(standard.other_localities),
    }
}

fn conditions(findings: &mut Findings<'_>, at: &Path, text: &str) -> RetryOn {
    let mut on = RetryOn::default();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if on.add(name) {
            continue;
        }
        match name {
            // The codes themselves stand beside it.
            "retriable-status-codes" => {}
            "retriable-headers" | "http3-post-connect-failure" => {
                let what = format!("{name} never happens here");
                findings.warn(at, "no-effect", what, "leave it out");
            }
            _ => match name.parse().ok().filter(|code| is_status(*code)) {
                Some(code) => on.codes.push(code),
                None => {
                    let what = format!("{name:?} is no condition for a retry");
                    findings.refuse(at, what, "see docs/reference/traffic.md");
                }
            },
        }
    }
    on
}

/// Statuses that have a meaning (IANA's registry).
fn is_status(code: u16) -> bool {
    matches!(
        code,
        100..=103
            | 200..=208
            | 226
            | 300..=305
            | 307
            | 308
            | 400..=418
            | 421..=426
            | 428
            | 429
            | 431
            | 451
            | 500..=508
            | 510
            | 511
    )
}
