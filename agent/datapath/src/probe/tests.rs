//! The classification, which needs no kernel. What needs one is in `tests/tests/netns_doctor.rs`.

use std::collections::BTreeSet;

use super::*;

#[test]
fn not_being_allowed_to_ask_is_no_answer() {
    let of = |code| Availability::of::<()>(Err(&io::Error::from_raw_os_error(code)));
    for code in [libc::EPERM, libc::EACCES, libc::ENOMEM, libc::EMFILE] {
        assert!(matches!(of(code), Availability::Unknown(_)), "{code}");
    }
    for code in [libc::EINVAL, libc::E2BIG, libc::ENOPROTOOPT] {
        assert!(matches!(of(code), Availability::Missing(_)), "{code}");
    }
    assert_eq!(Availability::of(Ok(())), Availability::Available);
}

#[test]
fn every_feature_has_a_name_of_its_own_and_says_what_happens_without() {
    let names: BTreeSet<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
    assert_eq!(names.len(), Feature::ALL.len());
    for feature in Feature::ALL {
        assert!(!feature.used_for().is_empty() && !feature.without().is_empty(), "{feature:?}");
    }
}

#[test]
fn bind_is_required_where_sockops_cannot_ask_for_the_cookie() {
    let need = |cookie| {
        let bind = Probed::of(Feature::Bind4, Availability::Missing(String::new()));
        with_fallbacks(vec![bind, Probed::of(Feature::SockOpsNetnsCookie, cookie)])[0].need
    };
    assert_eq!(need(Availability::Available), Need::Degrades);
    assert_eq!(need(Availability::Missing(String::new())), Need::Required);
}

/// Rows of the table in the reference, as it should be.
#[test]
fn the_page_lists_every_feature_with_these_words_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/doctor.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("## Features").unwrap();
    let (table, _) = rest.split_once("## Findings").unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let expected = Feature::ALL.iter().map(|feature| {
        let need = format!("{:?}", feature.need()).to_lowercase();
        let (name, used_for, without) = (feature.name(), feature.used_for(), feature.without());
        format!("| `{name}` | {need} | {used_for} | {without} |")
    });
    assert_eq!(rows, expected.collect::<Vec<_>>());
}
