//! Failures of one endpoint in a row.

use crate::{
    grpc::http_status,
    upstream::{LocalError, Outcome},
};

use super::rule::Rule;

/// What was counted since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    errors: u32,
    gateway: u32,
    local: u32,
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Cause {
    Errors,
    Gateway,
    Local,
}

impl Cause {
    /// Stable code for logs and metrics.
    pub(in crate::upstream) fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "consecutive_5xx",
            Self::Gateway => "consecutive_gateway_errors",
            Self::Local => "consecutive_local_origin_failures",
        }
    }
}

impl Counts {
    /// Counts an attempt. Why the endpoint is to be ejected, if it is; that count then begins anew.
    pub(super) fn record(&mut self, outcome: Outcome, rule: &Rule) -> Option<Cause> {
        match status(outcome) {
            Err(_) if rule.split => self.record_local(rule),
            Err(status) => self.record_status(status, rule),
            Ok(status) => {
                self.local = 0;
                self.record_status(status, rule)
            }
        }
    }

    fn record_local(&mut self, rule: &Rule) -> Option<Cause> {
        is_reached(&mut self.local, rule.local).then_some(Cause::Local)
    }

    fn record_status(&mut self, status: u16, rule: &Rule) -> Option<Cause> {
        if !(500..600).contains(&status) {
            (self.errors, self.gateway) = (0, 0);
            return None;
        }
        let gateway = if matches!(status, 502..=504) {
            is_reached(&mut self.gateway, rule.gateway)
        } else {
            self.gateway = 0;
            false
        };
        let errors = is_reached(&mut self.errors, rule.errors);
        if gateway {
            return Some(Cause::Gateway);
        }
        errors.then_some(Cause::Errors)
    }
}

/// One more in a row.
fn is_reached(count: &mut u32, limit: Option<u32>) -> bool {
    *count = count.saturating_add(1);
    let reached = limit.is_some_and(|limit| *count >= limit);
    if reached {
        *count = 0;
    }
    reached
}

/// The status of an answer, or the one that stands for an error of our own.
fn status(outcome: Outcome) -> Result<u16, u16> {
    match outcome {
        Outcome::Status(status) => Ok(status.as_u16()),
        Outcome::Grpc(status) => Ok(http_status(status).as_u16()),
        Outcome::LocalError(LocalError::Timeout) => Err(504),
        Outcome::LocalError(LocalError::ConnectFailure | LocalError::Reset) => Err(503),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use undermesh_model::traffic::OutlierDetection;

    use super::*;

    fn rule(split: bool) -> Rule {
        Rule::new(&OutlierDetection {
            split_local_errors: split,
            consecutive_5xx: Some(3),
            consecutive_gateway: Some(2),
            consecutive_local: Some(2),
            ..OutlierDetection::default()
        })
    }

    fn causes(rule: &Rule, outcomes: &[Outcome]) -> Vec<Option<Cause>> {
        let mut counts = Counts::default();
        outcomes.iter().map(|outcome| counts.record(*outcome, rule)).collect()
    }

    fn answer(status: u16) -> Outcome {
        Outcome::Status(StatusCode::from_u16(status).unwrap())
    }

    const RESET: Outcome = Outcome::LocalError(LocalError::Reset);

    #[test]
    fn only_failures_in_a_row_count() {
        let outcomes = [500, 500, 200, 500, 500, 404, 500, 500, 500].map(answer);
        let causes = causes(&rule(false), &outcomes);
        assert_eq!(causes[..8], [None; 8]);
        assert_eq!(causes[8], Some(Cause::Errors));
    }

    #[test]
    fn gateway_errors_have_a_count_of_their_own() {
        assert_eq!(causes(&rule(false), &[503, 500, 502].map(answer))[2], Some(Cause::Errors));
        assert_eq!(causes(&rule(false), &[503, 504].map(answer))[1], Some(Cause::Gateway));
    }

    #[test]
    fn errors_of_our_own_count_as_gateway_errors_unless_they_are_split_off() {
        let timeout = Outcome::LocalError(LocalError::Timeout);
        assert_eq!(causes(&rule(false), &[RESET, timeout])[1], Some(Cause::Gateway));
        assert_eq!(causes(&rule(true), &[RESET, timeout])[1], Some(Cause::Local));
        assert_eq!(causes(&rule(true), &[RESET, answer(503), RESET]), [None; 3]);
        assert_eq!(
            causes(&rule(true), &[answer(503), RESET, answer(503)])[2],
            Some(Cause::Gateway)
        );
    }

    #[test]
    fn grpc_statuses_count_as_the_http_statuses_that_they_stand_for() {
        assert_eq!(causes(&rule(false), &[Outcome::Grpc(14); 2])[1], Some(Cause::Gateway));
        assert_eq!(causes(&rule(false), &[Outcome::Grpc(13); 3])[2], Some(Cause::Errors));
        assert_eq!(causes(&rule(false), &[Outcome::Grpc(5); 9]), [None; 9]);
        assert_eq!(causes(&rule(false), &[Outcome::Grpc(9999); 3])[2], Some(Cause::Errors));
    }
}
