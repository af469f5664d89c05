//! Which traces are recorded, where nobody has decided yet.

use undermesh_telemetry::TraceId;

/// Numbers that 56 random bits can be.
const RANGE: u64 = 1 << 56;

/// A share of all traces. The same ones on every node: the name of the trace decides, as in OpenTelemetry's
/// consistent sampling (the last seven bytes, compared with a threshold).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Traces with a lower number are not recorded.
    threshold: u64,
}

impl Sampling {
    /// So many per cent; `None` where that is no number from 0 to 100.
    pub fn percent(percent: f64) -> Option<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        Some(Self::of(percent))
    }

    fn of(percent: f64) -> Self {
        let rejected = (100.0 - percent) / 100.0;
        Self { threshold: (RANGE as f64 * rejected) as u64 }
    }

    /// Whether this trace is one of them.
    pub fn takes(self, trace_id: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g] = *trace_id.bytes();
        u64::from_be_bytes([0, a, b, c, d, e, f, g]) >= self.threshold
    }
}

/// One per cent, as in Istio.
impl Default for Sampling {
    fn default() -> Self {
        Self::of(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::new_trace_id;

    fn taken(percent: f64) -> usize {
        let sampling = Sampling::percent(percent).unwrap();
        (0..4000).filter(|_| sampling.takes(new_trace_id())).count()
    }

    #[test]
    fn a_share_is_a_share() {
        assert_eq!((taken(0.0), taken(100.0)), (0, 4000));
        // Six standard deviations.
        assert!((286..=514).contains(&taken(10.0)));
        for bad in [-1.0, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Sampling::percent(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_name_is_always_judged_alike_and_a_greater_share_holds_the_smaller() {
        let percent = |percent| Sampling::percent(percent).unwrap();
        for _ in 0..1000 {
            let id = new_trace_id();
            assert_eq!(percent(30.0).takes(id), percent(30.0).takes(id));
            assert!(!percent(30.0).takes(id) || percent(60.0).takes(id));
        }
    }
}
