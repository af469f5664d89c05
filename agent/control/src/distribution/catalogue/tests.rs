//! What is kept of changes, and for how long.

use serde_json::json;

use super::*;

fn slice(name: &str, ready: u32) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name}, "ready": ready})
}

fn since(catalogue: &Catalogue, seq: u64) -> Vec<String> {
    let text = |change: Change<'_>| match change {
        Change::There(record) => format!("+{}", record.name),
        Change::Gone(_, name, _) => format!("-{name}"),
    };
    catalogue.since(seq).map(text).collect()
}

#[test]
fn of_an_object_that_changes_often_the_last_change_counts() {
    let mut catalogue = Catalogue::default();
    for name in ["a", "b", "c"] {
        assert!(catalogue.put("EndpointSlice", &slice(name, 0)));
    }
    let then = catalogue.seq();
    assert!(since(&catalogue, then).is_empty());
    for ready in 1..=100 {
        catalogue.put("EndpointSlice", &slice("a", ready));
    }
    assert!(!catalogue.put("EndpointSlice", &slice("a", 100)));
    catalogue.remove("EndpointSlice", "shop", "b");
    assert!(!catalogue.remove("EndpointSlice", "shop", "b"));
    assert_eq!(since(&catalogue, then), ["+a", "-b"]);
    assert_eq!(since(&catalogue, 0), ["+c", "+a", "-b"]);
    catalogue.put("EndpointSlice", &slice("b", 1));
    assert_eq!(since(&catalogue, then), ["+a", "+b"]);
    assert_eq!(catalogue.len(), 3);
}

#[test]
fn versions_follow_from_what_is_in_an_object() {
    let (mut one, mut other) = (Catalogue::default(), Catalogue::default());
    other.put("EndpointSlice", &slice("z", 9));
    one.put("EndpointSlice", &slice("a", 1));
    other.put("EndpointSlice", &slice("a", 1));
    let version = |catalogue: &Catalogue| {
        let mut groups = catalogue.groups();
        groups.find_map(|(_, group)| Some(group.records.get("a")?.version.clone()))
    };
    assert_eq!(version(&one), version(&other));
    assert_eq!(version(&one).unwrap().len(), 2 * VERSION_BYTES);
    one.put("EndpointSlice", &slice("a", 2));
    assert_ne!(version(&one), version(&other));
}

#[test]
fn what_is_gone_is_forgotten_at_last_and_that_is_known() {
    let mut catalogue = Catalogue::default();
    catalogue.put("EndpointSlice", &slice("stays", 0));
    let then = catalogue.seq();
    for number in 0..=MAX_GONE {
        catalogue.put("EndpointSlice", &slice(&number.to_string(), 0));
        catalogue.remove("EndpointSlice", "shop", &number.to_string());
    }
    assert!(!catalogue.remembers(then));
    assert!(catalogue.remembers(catalogue.seq()));
    assert!(catalogue.gone.len() <= MAX_GONE && catalogue.journal.len() <= MAX_GONE + 1);
    assert_eq!(since(&catalogue, then).len(), catalogue.gone.len());
}

#[test]
fn groups_are_packed_once_until_they_change() {
    let mut catalogue = Catalogue::default();
    for number in 0..50 {
        catalogue.put("EndpointSlice", &slice(&format!("slice-{number}"), number));
    }
    let whole = |catalogue: &Catalogue| catalogue.groups().next().unwrap().1.whole();
    let (first, again) = (whole(&catalogue), whole(&catalogue));
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!((first.len(), first.blocks().len()), (50, 1));
    let block = &first.blocks()[0];
    assert!(block.packed.len() * 4 < block.size, "{block:?}");
    catalogue.put("EndpointSlice", &slice("slice-0", 99));
    assert!(!Arc::ptr_eq(&first, &whole(&catalogue)));
}
