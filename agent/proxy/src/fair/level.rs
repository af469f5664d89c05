//! What a share is: as much for everybody as there is when those who want less have what they want (max-min
//! fairness). What somebody wants is not known, only what they got: who was not held back is taken to want half as
//! much again, so that a pod which waits behind another one's work gets room to grow.

/// What a pod uses, in nanoseconds of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of late.
    pub(super) usual: u64,
    /// It was held back, and would have used more.
    pub(super) wants_more: bool,
}

/// The most that one may use of `capacity`.
pub(super) fn level(usages: &mut [Usage], capacity: u64) -> u64 {
    let wanted = |usage: &Usage| match usage.wants_more {
        true => u64::MAX,
        false => usage.usual.saturating_add(usage.usual / 2),
    };
    usages.sort_unstable_by_key(wanted);
    let mut left = capacity;
    for (index, usage) in usages.iter().enumerate() {
        let share = left / (usages.len() - index) as u64;
        if wanted(usage) >= share {
            return share;
        }
        left -= wanted(usage);
    }
    // All want less than there is. Nobody should be held back, and nobody may take it all by surprise.
    capacity
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(list: &[(u64, bool)]) -> u64 {
        let mut usages: Vec<_> =
            list.iter().map(|&(usual, wants_more)| Usage { usual, wants_more }).collect();
        level(&mut usages, 1000)
    }

    #[test]
    fn who_wants_little_has_it_and_the_others_share_the_rest() {
        for (usages, expected) in [
            (&[(900, true), (900, true)][..], 500),
            (&[(100, false), (900, true)], 850),
            (&[(100, false), (100, false), (700, true), (100, true)], 350),
            (&[(1000, false)], 1000),
            (&[(10, false), (20, false)], 1000),
            (&[], 1000),
        ] {
            assert_eq!(of(usages), expected, "{usages:?}");
        }
    }

    proptest! {
        #[test]
        fn a_level_gives_everybody_at_least_an_equal_share(
            list in prop::collection::vec((0u64..2000, any::<bool>()), 1..20),
        ) {
            prop_assert!(of(&list) >= 1000 / list.len() as u64);
        }

        #[test]
        fn together_no_more_is_given_than_there_is(list in prop::collection::vec((0u64..2000, any::<bool>()), 1..20)) {
            let level = of(&list);
            let given: u64 = list
                .iter()
                .map(|&(usual, more)| if more { level } else { usual.min(level) })
                .sum();
            prop_assert!(given <= 1000);
        }
    }
}
