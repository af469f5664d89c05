//! A rule with its defaults.

use std::time::Duration;

use undermesh_model::traffic::{Millionths, OutlierDetection};

/// Envoy's default where Istio sets none: failures in a row.
const CONSECUTIVE: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
/// Envoy's `max_ejection_time`, which Istio does not set.
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
/// In percent.
const MAX_EJECTION: f64 = 10.0;
/// Sweeps more often than this would do little else.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Errors of our own are counted apart.
    pub(super) split: bool,
    /// In a row; `None` for never.
    pub(super) errors: Option<u32>,
    pub(super) gateway: Option<u32>,
    pub(super) local: Option<u32>,
    pub(super) interval: Duration,
    base: Duration,
    max: Duration,
    max_ejected: Millionths,
}

impl Rule {
    pub(super) fn new(settings: &OutlierDetection) -> Self {
        let on = |count: Option<u32>| count.filter(|count| *count > 0);
        let base = settings.base_ejection_time.unwrap_or(BASE_EJECTION_TIME);
        Self {
            split: settings.split_local_errors,
            errors: on(Some(settings.consecutive_5xx.unwrap_or(CONSECUTIVE))),
            gateway: on(settings.consecutive_gateway),
            // Istio cannot switch it off: 0 is the default.
            local: Some(on(settings.consecutive_local).unwrap_or(CONSECUTIVE)),
            interval: settings.interval.unwrap_or(INTERVAL).max(LEAST_INTERVAL),
            base,
            max: MAX_EJECTION_TIME.max(base),
            max_ejected: on_share(settings.max_ejection),
        }
    }

    /// Whether one more of so many endpoints may be ejected. The share is never exceeded: of a few
    /// endpoints, a small one lets none be ejected (Envoy without `always_eject_one_host`).
    pub(super) fn may_eject(&self, ejected: usize, all: usize) -> bool {
        (ejected as u64 + 1) * u64::from(Millionths::ALL.0)
            <= all as u64 * u64::from(self.max_ejected.0)
    }

    /// How long an endpoint stays out.
    pub(super) fn ejection_time(&self, backoff: u32) -> Duration {
        self.base.saturating_mul(backoff).min(self.max)
    }

    /// The factor of the next ejection; it stops growing once the longest time is reached.
    pub(super) fn next_backoff(&self, backoff: u32) -> u32 {
        let grows = self.base.saturating_mul(backoff) < self.max.saturating_add(self.base);
        if grows { backoff.saturating_add(1) } else { backoff }
    }
}

/// Istio cannot tell 0 from nothing.
fn on_share(share: Option<Millionths>) -> Millionths {
    share.filter(|share| share.0 > 0).unwrap_or_else(|| Millionths::from_percent(MAX_EJECTION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_istio() {
        let rule = Rule::new(&OutlierDetection::default());
        assert_eq!((rule.errors, rule.gateway, rule.local), (Some(5), None, Some(5)));
        assert_eq!(rule.interval, Duration::from_secs(10));
        assert_eq!(rule.ejection_time(1), Duration::from_secs(30));
        assert!(rule.may_eject(0, 10) && !rule.may_eject(1, 10) && !rule.may_eject(0, 9));
    }

    #[test]
    fn zero_switches_off_what_can_be_switched_off() {
        let settings = OutlierDetection {
            consecutive_5xx: Some(0),
            consecutive_gateway: Some(0),
            consecutive_local: Some(0),
            ..OutlierDetection::default()
        };
        let rule = Rule::new(&settings);
        assert_eq!((rule.errors, rule.gateway, rule.local), (None, None, Some(5)));
    }

    #[test]
    fn ejections_grow_up_to_the_longest() {
        let rule = Rule::new(&OutlierDetection::default());
        let mut backoff = 0;
        for _ in 0..100 {
            backoff = rule.next_backoff(backoff);
        }
        assert_eq!(rule.ejection_time(backoff), MAX_EJECTION_TIME);
        // It has to shrink in as few intervals as it could have grown in.
        assert_eq!(backoff, 11);
    }

    #[test]
    fn a_base_time_beyond_the_longest_is_kept() {
        let base = Some(Duration::from_secs(3600));
        let rule = Rule::new(&OutlierDetection {
            base_ejection_time: base,
            ..OutlierDetection::default()
        });
        assert_eq!(rule.ejection_time(3), Duration::from_secs(3600));
    }

    #[test]
    fn half_of_three_is_one() {
        let max_ejection = Some(Millionths::from_percent(50.0));
        let rule = Rule::new(&OutlierDetection { max_ejection, ..OutlierDetection::default() });
        assert!(rule.may_eject(0, 3) && !rule.may_eject(1, 3));
        assert!(!rule.may_eject(0, 1) && !rule.may_eject(0, 0));
    }
}
