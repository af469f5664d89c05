//! Which failures of an attempt are worth another one, and when it starts.
//!
//! Source: Envoy, `x-envoy-retry-on`, `x-envoy-retry-grpc-on`; Istio, `HTTPRetry`.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use undermesh_model::traffic::{Retries, RetryOn};

use super::{body::grpc_status, random};
use crate::upstream::SendError;

/// How one attempt went.
#[derive(Debug)]
pub(crate) enum Went<'a> {
    /// The endpoint has begun to answer.
    Answered(StatusCode, &'a HeaderMap),
    /// It did not.
    Failed(&'a SendError),
    /// It took longer than one attempt may.
    TooSlow,
}

/// Whether a rule wants another attempt after this.
pub(crate) fn wants(on: &RetryOn, went: &Went<'_>) -> bool {
    match went {
        Went::Answered(status, headers) => wants_after_answer(on, *status, headers),
        Went::Failed(SendError::Overflow(_)) => false,
        Went::Failed(error) => {
            let reset = on.server_errors || on.gateway_errors || on.reset;
            reset
                || match error {
                    SendError::Connect(_) => on.connect_failure || on.reset_before_request,
                    SendError::Reset { sent, refused, .. } => {
                        (on.refused_stream && *refused) || (on.reset_before_request && !sent)
                    }
                    SendError::Overflow(_) => false,
                }
        }
        Went::TooSlow => on.server_errors || on.gateway_errors || on.reset,
    }
}

fn wants_after_answer(on: &RetryOn, status: StatusCode, headers: &HeaderMap) -> bool {
    if headers.contains_key("x-envoy-overloaded") {
        return false;
    }
    if headers.contains_key("x-envoy-ratelimited") {
        return on.rate_limited;
    }
    let code = status.as_u16();
    (on.server_errors && status.is_server_error())
        || (on.gateway_errors && matches!(code, 502..=504))
        || (on.conflict && code == 409)
        || on.codes.contains(&code)
        // A status that comes as a trailer comes too late for this.
        || grpc_status(headers).is_some_and(|status| on.grpc.contains(&status))
}

/// Time before the retry with this number, from 0: up to twice as long as before the last one, and
/// never more than ten times the first, at random so that clients do not come back all at once.
pub(crate) fn backoff(retries: &Retries, number: u32) -> Duration {
    let most = retries.backoff.saturating_mul(1 << number.min(4));
    random::up_to(most.min(retries.backoff.saturating_mul(10)))
}

#[cfg(test)]
mod tests;
