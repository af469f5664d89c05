//! `timeouts` and `retry` of HTTPRoute.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;
use undermesh_model::traffic::{Retries, RetryOn};

use super::{cursor::Cursor, values};

/// Attempts after the first where `retry` names no number: as many as Istio's default.
const DEFAULT_ATTEMPTS: u32 = 2;
/// Time before the first retry where `retry` names none: Envoy's and Istio's default.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// `HTTPRouteTimeouts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Timeouts {
    request: Option<String>,
    backend_request: Option<String>,
}

/// `HTTPRouteRetry`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Retry {
    codes: Vec<u16>,
    attempts: Option<u32>,
    backoff: Option<String>,
}

/// Time-outs; `None` where there is none, or where it is 0.
#[derive(Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) request: Option<Duration>,
    pub(super) attempt: Option<Duration>,
}

impl Timeouts {
    /// Reads both.
    pub(super) fn read(&self, cursor: &mut Cursor<'_, '_>) -> Limits {
        let request = values::duration(self.request.as_ref(), "request", cursor);
        let attempt = values::duration(self.backend_request.as_ref(), "backendRequest", cursor);
        let set = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        let limits = Limits { request: set(request), attempt: set(attempt) };
        if let (Some(request), Some(attempt)) = (limits.request, limits.attempt)
            && attempt > request
        {
            let message = "is longer than the time-out of the whole request";
            cursor.error(&["backendRequest"], message, "write less than timeouts.request");
        }
        limits
    }
}

/// Reads `retry`; a time-out of single attempts is kept where there is none.
pub(super) fn retries(
    retry: Option<&Retry>,
    limits: Limits,
    cursor: &mut Cursor<'_, '_>,
) -> Option<Retries> {
    let read = retry.map(|retry| cursor.within("retry", |at| retry.read(limits, at)));
    read.or_else(|| limits.attempt.map(|_| no_retries(limits)))
}

fn no_retries(limits: Limits) -> Retries {
    Retries {
        attempts: 0,
        per_try_timeout: limits.attempt,
        on: RetryOn::default(),
        backoff: DEFAULT_BACKOFF,
        avoid_previous: None,
        other_localities: false,
    }
}

impl Retry {
    fn read(&self, limits: Limits, cursor: &mut Cursor<'_, '_>) -> Retries {
        if self.codes.iter().collect::<BTreeSet<_>>().len() < self.codes.len() {
            cursor.error(&["codes"], "has a status twice", "write every status once");
        }
        let codes = cursor.each("codes", &self.codes, self.codes.len(), |cursor, code| {
            if !(400..=599).contains(code) {
                let message = format!("{code} is no status of an error");
                cursor.error(&[], &message, "write a status from 400 to 599");
            }
            *code
        });
        let attempts = self.attempts.unwrap_or(DEFAULT_ATTEMPTS);
        if attempts == 0 || i32::try_from(attempts).is_err() {
            let message = format!("{attempts} is no number of attempts");
            cursor.error(&["attempts"], &message, "write 1 or more, or remove retry");
        }
        let backoff = values::duration(self.backoff.as_ref(), "backoff", cursor);
        // GEP-1731: errors of the connection are retried, whatever the codes.
        let on = RetryOn {
            reset: true,
            connect_failure: true,
            refused_stream: true,
            codes,
            ..RetryOn::default()
        };
        Retries { attempts, on, backoff: backoff.unwrap_or(DEFAULT_BACKOFF), ..no_retries(limits) }
    }
}
