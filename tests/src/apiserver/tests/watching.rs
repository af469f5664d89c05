//! Watches.

use super::*;

fn watch_from(bench: &Bench, revision: u64, more: &str) -> Watched {
    bench.client.watch(&format!("/api/v1/pods?watch=1&resourceVersion={revision}{more}"))
}

#[test]
fn a_watch_tells_what_has_changed_since_a_revision_and_goes_on() {
    let bench = Bench::new();
    bench.put_pod("old", "n1");
    let revision = bench.server.revision();
    bench.put_pod("a", "n1");
    let mut watched = watch_from(&bench, revision, "");
    assert_eq!(watched.change(), ("ADDED".into(), "a".into()));
    bench.put_pod("a", "n2");
    assert_eq!(watched.change(), ("MODIFIED".into(), "a".into()));
    bench.server.delete("v1", "Pod", "shop", "old");
    assert_eq!(watched.change(), ("DELETED".into(), "old".into()));
}

#[test]
fn what_ceases_to_be_selected_is_deleted_for_the_watch() {
    let bench = Bench::new();
    let more = "&fieldSelector=spec.nodeName%3Dn1";
    let mut watched = watch_from(&bench, bench.server.revision(), more);
    bench.put_pod("a", "");
    bench.put_pod("a", "n1");
    assert_eq!(watched.change(), ("ADDED".into(), "a".into()));
    bench.put_pod("a", "n2");
    assert_eq!(watched.change(), ("DELETED".into(), "a".into()));
}

#[test]
fn without_a_revision_a_watch_begins_with_what_there_is() {
    let bench = Bench::new();
    bench.put_pod("a", "n1");
    let mut watched = bench.client.watch("/api/v1/pods?watch=true");
    assert_eq!(watched.change(), ("ADDED".into(), "a".into()));
}

#[test]
fn streaming_lists_end_with_a_bookmark_that_says_so_or_are_refused() {
    let more = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let bench = Bench::new();
    bench.put_pod("a", "n1");
    let mut watched = bench.client.watch(&format!("/api/v1/pods?watch=1{more}"));
    assert_eq!(watched.change(), ("ADDED".into(), "a".into()));
    let end = watched.next();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let bench = Bench::with(Options { streaming_lists: false, ..Options::default() });
    let (code, refused) = bench.client.get(&format!("/api/v1/pods?watch=1{more}"));
    assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")));
}

#[test]
fn a_revision_that_is_compacted_is_gone() {
    let bench = Bench::new();
    let revision = bench.server.revision();
    bench.put_pod("a", "n1");
    bench.server.compact();
    let gone = watch_from(&bench, revision, "").next();
    assert_eq!((&gone["type"], &gone["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[test]
fn bookmarks_come_by_themselves_and_timeouts_end_well() {
    let bookmarks = Duration::from_millis(20);
    let bench = Bench::with(Options { bookmarks, ..Options::default() });
    bench.put_pod("a", "n1");
    let more = "&allowWatchBookmarks=true&timeoutSeconds=1";
    let lines = watch_from(&bench, bench.server.revision(), more).lines();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("BOOKMARK")), "{lines:?}");
    assert!(lines[0].contains(&format!("{:?}", bench.server.revision().to_string())));
}

#[test]
fn watches_fall_silent_are_cut_or_end_and_only_those_under_way() {
    let bench = Bench::new();
    let revision = bench.server.revision();
    let mut silent = watch_from(&bench, revision, "");
    bench.server.disturb_watches(WatchFault::Pause);
    bench.put_pod("a", "n1");
    let mut other = watch_from(&bench, revision, "");
    assert_eq!(other.change(), ("ADDED".into(), "a".into()));
    bench.server.heal();
    assert_eq!(silent.change(), ("ADDED".into(), "a".into()));
    bench.server.disturb_watches(WatchFault::Cut);
    assert_eq!(silent.lines().last().map(String::as_str), Some("{\"type\":\"MODIF"));
    let ends = watch_from(&bench, bench.server.revision(), "");
    bench.server.disturb_watches(WatchFault::End);
    assert_eq!(ends.lines(), [""; 0]);
}
