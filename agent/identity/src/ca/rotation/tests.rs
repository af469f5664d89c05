//! An authority over the years: no certificate is ever shown to somebody who does not trust it.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::*;
use crate::testing::{id, signed, trusted_by};

const DAY: u64 = 24 * 3600;

fn rotation() -> Rotation {
    let options = CaOptions {
        root_lifetime: Duration::from_secs(100 * DAY),
        intermediate_lifetime: Duration::from_secs(20 * DAY),
        ..CaOptions::default()
    };
    Rotation { options, longest: Duration::from_secs(DAY), settle: Duration::from_secs(3600) }
}

#[test]
fn a_year_passes_and_everybody_trusts_everybody_all_the_time() {
    let rotation = rotation();
    let mut authority = CaMaterial::make(&rotation.options).unwrap();
    let start = OffsetDateTime::now_utc();
    let hour = time::Duration::hours(1);
    // What is out there: certificates of the last day, and the bundle as somebody has read it who
    // takes his time.
    let mut living: Vec<(OffsetDateTime, String)> = Vec::new();
    let mut bundles = vec![authority.bundle().to_owned()];
    let (mut roots, mut intermediates) = (0, 0);
    for step in 0..(365 * 24 / 6) {
        let now = start + hour * (6 * step);
        while let Some(next) = authority.advance(&rotation, now).unwrap() {
            roots += usize::from(next.prune_from.is_some() && authority.next.is_some());
            intermediates += 1;
            authority = next;
        }
        let issued = signed(&authority, &id("web"), rotation.longest, now);
        living.push((issued.not_after, issued.chain[..2].concat()));
        living.retain(|(not_after, _)| *not_after > now);
        for (_, chain) in &living {
            for bundle in bundles.iter().chain([&authority.bundle().to_owned()]) {
                trusted_by(chain, bundle, now).unwrap_or_else(|error| {
                    panic!("day {}: {error}", 6 * step / 24);
                });
            }
        }
        bundles = vec![authority.bundle().to_owned()];
        assert!(authority.root_count() <= 2, "{authority:?}");
    }
    assert!(roots >= 4 && intermediates > 30, "{roots} roots, {intermediates} steps");
    assert_eq!(authority.root_count(), 1);
}

#[test]
fn a_root_that_is_staged_signs_after_a_while_and_is_kept_in_the_entries() {
    let rotation = rotation();
    let authority = CaMaterial::make(&rotation.options).unwrap();
    let now = OffsetDateTime::now_utc();
    let staged = authority.stage(&rotation, now).unwrap();
    assert_eq!((staged.root_count(), authority.root_count()), (2, 1));
    let refused = staged.stage(&rotation, now).unwrap_err();
    assert!(refused.to_string().contains("already"), "{refused}");
    let read = CaMaterial::from_entries(&staged.entries()).unwrap();
    assert_eq!(read, staged);
    assert!(read.advance(&rotation, now + time::Duration::minutes(59)).unwrap().is_none());
    let later = now + time::Duration::minutes(63);
    let signing = read.advance(&rotation, later).unwrap().unwrap();
    assert_ne!(signing.describe_issuer().unwrap(), staged.describe_issuer().unwrap());
    let read = CaMaterial::from_entries(&signing.entries()).unwrap();
    assert!(read.advance(&rotation, later + time::Duration::hours(24)).unwrap().is_none());
    let pruned = read.advance(&rotation, later + time::Duration::hours(25)).unwrap().unwrap();
    assert_eq!((pruned.root_count(), &pruned.prune_from, pruned.next.is_none()), (1, &None, true));
}

#[test]
fn without_the_roots_key_nothing_is_replaced() {
    let rotation = rotation();
    let mut entries: BTreeMap<String, Zeroizing<Vec<u8>>> =
        CaMaterial::make(&rotation.options).unwrap().entries();
    entries.remove("root.key");
    let authority = CaMaterial::from_entries(&entries).unwrap();
    let now = OffsetDateTime::now_utc();
    assert!(authority.advance(&rotation, now + time::Duration::days(15)).unwrap().is_none());
    let refused = authority.stage(&rotation, now).unwrap_err();
    assert!(refused.to_string().contains("the root's key is not here"), "{refused}");
}
