//! Tiers and shares, against Istio's rules.

use super::*;

fn locality(text: &str) -> Locality {
    let mut parts = text.split('/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    Locality { region: part(), zone: part(), subzone: part() }
}

/// Endpoints at these places, each with a weight.
fn endpoints<'a>(places: &[(&str, u32)], labels: &'a Labels) -> Vec<Found<'a>> {
    let endpoint = |(place, weight): &(&str, u32)| Found {
        address: "10.0.0.1:80".parse().unwrap(),
        workload: None,
        labels,
        locality: locality(place),
        network: "",
        identity: None,
        weight: *weight,
    };
    places.iter().map(endpoint).collect()
}

/// Tiers of endpoints at these places for a client in `r1/z1/s1`.
fn tiers(places: &[&str], balance: Option<&LocalityBalance>, failover: bool) -> Vec<u32> {
    let labels = Labels::new();
    let places: Vec<_> = places.iter().map(|place| (*place, 1)).collect();
    let endpoints = endpoints(&places, &labels);
    let from = From { locality: &locality("r1/z1/s1"), labels: &labels };
    let arranged = arrange(&endpoints, from, balance, failover);
    arranged.priorities.into_iter().map(|tier| tier.unwrap()).collect()
}

const PLACES: [&str; 5] = ["r2/z1/s1", "r1/z1/s1", "r1/z2/s1", "r1/z1/s2", "r3/z9/s9"];

#[test]
fn close_endpoints_come_first_where_failures_are_noticed() {
    assert_eq!(tiers(&PLACES, None, true), [3, 0, 2, 1, 3]);
    assert_eq!(tiers(&PLACES, None, false), [0; 5]);
}

#[test]
fn tiers_without_endpoints_are_skipped() {
    assert_eq!(tiers(&["r3/z1/s1", "r1/z2/s1"], None, true), [1, 0]);
    assert_eq!(tiers(&[], None, true), [0; 0]);
}

#[test]
fn locality_can_be_switched_off() {
    let balance = LocalityBalance { enabled: Some(false), ..LocalityBalance::default() };
    assert_eq!(tiers(&PLACES, Some(&balance), true), [0; 5]);
}

#[test]
fn the_region_that_takes_over_comes_before_the_others() {
    let failover = |from: &str, to: &str| LocalityBalance {
        failover: vec![(from.to_owned(), to.to_owned())],
        ..LocalityBalance::default()
    };
    assert_eq!(tiers(&PLACES, Some(&failover("r1", "r3")), true), [4, 0, 2, 1, 3]);
    assert_eq!(tiers(&PLACES, Some(&failover("r2", "r3")), true), [3, 0, 2, 1, 3]);
}

#[test]
fn labels_count_in_their_order_up_to_the_first_that_differs() {
    let balance = LocalityBalance {
        failover_priority: vec![
            "topology.kubernetes.io/region".into(),
            "version=v1".into(),
            "app".into(),
        ],
        ..LocalityBalance::default()
    };
    let with = |version: &str, app: &str| {
        Labels::from([("version".into(), version.into()), ("app".into(), app.into())])
    };
    let client = with("v9", "web");
    let all = [with("v1", "web"), with("v1", "api"), with("v2", "web")];
    let mut found: Vec<_> = all.iter().flat_map(|one| endpoints(&[("r1", 1)], one)).collect();
    found.extend(endpoints(&[("r2", 1)], &all[0]));
    let from = From { locality: &locality("r1/z1"), labels: &client };
    let arranged = arrange(&found, from, Some(&balance), true);
    assert_eq!(arranged.priorities, [Some(0), Some(1), Some(2), Some(3)]);
}

#[test]
fn places_decide_between_endpoints_whose_labels_are_alike() {
    let balance = LocalityBalance {
        failover_priority: vec!["app".into()],
        failover: vec![("r1".into(), "r2".into())],
        ..LocalityBalance::default()
    };
    let client = Labels::from([("app".into(), "web".into())]);
    let other = Labels::new();
    let mut found = endpoints(&[("r3", 1), ("r2", 1)], &client);
    found.extend(endpoints(&[("r1", 1)], &other));
    let from = From { locality: &locality("r1"), labels: &client };
    let arranged = arrange(&found, from, Some(&balance), true);
    assert_eq!(arranged.priorities, [Some(1), Some(0), Some(2)]);
}

#[test]
fn places_get_their_shares_and_the_others_nothing() {
    let shares = |all: &[(&str, u32)]| {
        all.iter().map(|(place, share)| ((*place).to_owned(), *share)).collect::<Vec<_>>()
    };
    let balance = LocalityBalance {
        distribute: vec![
            ("r9/*".into(), shares(&[("r1/*", 100)])),
            ("r1/z1/*".into(), shares(&[("r1/z1/*", 80), ("r1/*", 20)])),
        ],
        ..LocalityBalance::default()
    };
    let labels = Labels::new();
    let places = [("r1/z1/s1", 1), ("r1/z1/s2", 3), ("r1/z2/s1", 1), ("r2/z1/s1", 1)];
    let found = endpoints(&places, &labels);
    let from = From { locality: &locality("r1/z1/s1"), labels: &labels };
    let arranged = arrange(&found, from, Some(&balance), true);
    assert_eq!(arranged.priorities, [Some(0), Some(0), Some(0), None]);
    let expected = [("r1/z1/s1", 20), ("r1/z1/s2", 60), ("r1/z2/s1", 20)];
    assert_eq!(arranged.shares, expected.map(|(place, share)| (locality(place), share)).into());
    let elsewhere = From { locality: &locality("r2/z1"), labels: &labels };
    let arranged = arrange(&found, elsewhere, Some(&balance), true);
    assert_eq!(arranged.priorities, [Some(0); 4], "no rule for clients there, no failover either");
    assert!(arranged.shares.is_empty());
}
