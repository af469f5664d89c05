//! Which tier of endpoints gets how much, by how many of them are healthy.
//!
//! Source: Envoy, priority levels and panic threshold.

/// A tier counts as whole while this share of it, in percent, is the inverse of what is healthy: 72 %
/// of the endpoints are enough.
pub(super) const OVERPROVISIONING: u64 = 140;

/// The endpoints of one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) healthy: u64,
    pub(super) all: u64,
}

/// What a tier gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Its share of requests, in percent.
    pub(super) percent: u64,
    /// So few are healthy that all are used.
    pub(super) panic: bool,
}

impl Census {
    /// How much of its load it can carry, in percent.
    pub(super) fn availability(self) -> u64 {
        (OVERPROVISIONING * self.healthy).checked_div(self.all).unwrap_or(0).min(100)
    }

    fn is_below(self, millionths: u32) -> bool {
        self.healthy * 1_000_000 < self.all * u64::from(millionths) || self.all == 0
    }
}

/// What each tier gets. Nothing for all of them: no endpoint may be used. `threshold` is the share, in
/// millionths, of healthy endpoints under which all are used; 0 for never.
pub(super) fn loads(tiers: &[Census], threshold: u32) -> Vec<Load> {
    let mut loads = vec![Load::default(); tiers.len()];
    let available: u64 = tiers.iter().map(|tier| tier.availability()).sum::<u64>().min(100);
    if available == 0 {
        if let Some(first) = loads.first_mut().filter(|_| threshold > 0) {
            *first = Load { percent: 100, panic: true };
        }
        return loads;
    }
    spread(&mut loads, tiers, available);
    if available == 100 {
        return loads;
    }
    for (load, tier) in loads.iter_mut().zip(tiers) {
        load.panic = threshold > 0 && tier.is_below(threshold);
    }
    if loads.iter().all(|load| load.panic) {
        spread_by_size(&mut loads, tiers);
    }
    loads
}

/// Each tier takes what it can carry, and leaves the rest to the next.
fn spread(loads: &mut [Load], tiers: &[Census], available: u64) {
    let mut left = 100;
    for (load, tier) in loads.iter_mut().zip(tiers) {
        load.percent = left.min(tier.availability() * 100 / available);
        left -= load.percent;
    }
    give_rest(loads, left);
}

/// All tiers are in panic: which endpoints are healthy no longer says anything.
fn spread_by_size(loads: &mut [Load], tiers: &[Census]) {
    let all: u64 = tiers.iter().map(|tier| tier.all).sum();
    let mut left = 100;
    for (load, tier) in loads.iter_mut().zip(tiers) {
        load.percent = (100 * tier.all).checked_div(all).unwrap_or(0);
        left -= load.percent;
    }
    give_rest(loads, left);
}

/// What rounding left over goes to the first that has anything.
fn give_rest(loads: &mut [Load], left: u64) {
    if let Some(first) = loads.iter_mut().find(|load| load.percent > 0) {
        first.percent += left;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percents(tiers: &[(u64, u64)], threshold: u32) -> Vec<(u64, bool)> {
        let tiers: Vec<_> =
            tiers.iter().map(|(healthy, all)| Census { healthy: *healthy, all: *all }).collect();
        loads(&tiers, threshold).iter().map(|load| (load.percent, load.panic)).collect()
    }

    #[test]
    fn the_first_tier_carries_everything_while_72_percent_of_it_are_healthy() {
        assert_eq!(percents(&[(100, 100), (100, 100)], 0), [(100, false), (0, false)]);
        assert_eq!(percents(&[(72, 100), (100, 100)], 0), [(100, false), (0, false)]);
        assert_eq!(percents(&[(71, 100), (100, 100)], 0), [(99, false), (1, false)]);
        assert_eq!(percents(&[(50, 100), (100, 100)], 0), [(70, false), (30, false)]);
        assert_eq!(percents(&[(0, 100), (100, 100)], 0), [(0, false), (100, false)]);
    }

    #[test]
    fn tiers_that_cannot_carry_everything_share_it() {
        assert_eq!(percents(&[(25, 100), (25, 100)], 0), [(50, false), (50, false)]);
        assert_eq!(percents(&[(25, 100), (0, 100)], 0), [(100, false), (0, false)]);
    }

    #[test]
    fn without_a_threshold_nothing_is_used_once_nothing_is_healthy() {
        assert_eq!(percents(&[(0, 3)], 0), [(0, false)]);
        assert_eq!(percents(&[(0, 3), (0, 1)], 0), [(0, false), (0, false)]);
    }

    #[test]
    fn below_the_threshold_all_endpoints_are_used() {
        assert_eq!(percents(&[(0, 3)], 500_000), [(100, true)]);
        assert_eq!(percents(&[(1, 3)], 500_000), [(100, true)]);
        assert_eq!(percents(&[(2, 3)], 500_000), [(100, false)]);
        // Half is not below half.
        assert_eq!(percents(&[(1, 2)], 500_000), [(100, false)]);
    }

    #[test]
    fn there_is_no_panic_while_other_tiers_carry_the_load() {
        assert_eq!(percents(&[(1, 10), (10, 10)], 500_000), [(14, false), (86, false)]);
    }

    #[test]
    fn in_total_panic_tiers_share_by_their_size() {
        assert_eq!(percents(&[(1, 10), (3, 30)], 500_000), [(25, true), (75, true)]);
    }

    proptest! {
        #[test]
        fn loads_are_all_or_nothing(
            tiers in prop::collection::vec((0_u64..20, 0_u64..20), 0..6),
            threshold in prop::sample::select(vec![0, 300_000, 500_000, 1_000_000]),
        ) {
            let tiers: Vec<_> =
                tiers.iter().map(|(a, b)| Census { healthy: *a.min(b), all: *b }).collect();
            let loads = loads(&tiers, threshold);
            let sum: u64 = loads.iter().map(|load| load.percent).sum();
            prop_assert!(sum == 100 || sum == 0);
            let healthy: u64 = tiers.iter().map(|tier| tier.healthy).sum();
            prop_assert_eq!(sum == 100, !tiers.is_empty() && (healthy > 0 || threshold > 0));
            for (load, tier) in loads.iter().zip(&tiers) {
                // A share without a panic is for healthy endpoints.
                prop_assert!(load.percent == 0 || load.panic || tier.healthy > 0);
            }
        }
    }
}
