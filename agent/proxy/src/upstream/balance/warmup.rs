//! New endpoints get their share step by step.
//!
//! Source: Envoy, slow start mode.

use std::time::Duration;

use undermesh_model::traffic::Warmup;

/// The part of its weight that an endpoint of this age gets, above 0 and at most 1.
pub(super) fn factor(warmup: &Warmup, age: Duration) -> f64 {
    if age >= warmup.duration {
        return 1.0;
    }
    let least = f64::from(warmup.minimum_percent) / 100.0;
    let time = age.as_secs_f64().max(1.0) / warmup.duration.as_secs_f64();
    // An aggression of nothing would divide by zero.
    let aggression = f64::from(warmup.aggression.max(1)) / 1000.0;
    time.powf(aggression.recip()).max(least).clamp(1e-3, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, minimum_percent: u32, aggression: u32) -> f64 {
        let warmup = Warmup { duration: Duration::from_secs(100), minimum_percent, aggression };
        factor(&warmup, Duration::from_secs(seconds))
    }

    #[test]
    fn a_linear_warmup_grows_with_age_from_its_least() {
        assert_eq!(at(0, 10, 1000), 0.1);
        assert_eq!(at(50, 10, 1000), 0.5);
        assert_eq!(at(100, 10, 1000), 1.0);
        assert_eq!(at(5000, 10, 1000), 1.0);
    }

    #[test]
    fn aggression_bends_the_line() {
        assert!((at(25, 0, 2000) - 0.5).abs() < 1e-9);
        assert!((at(50, 0, 500) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn odd_settings_give_a_usable_factor() {
        for (percent, aggression) in [(0, 0), (100, 0), (5000, u32::MAX)] {
            let factor = at(0, percent, aggression);
            assert!(factor > 0.0 && factor <= 1.0, "{factor}");
        }
    }
}
