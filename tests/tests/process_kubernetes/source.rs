//! An API server as a source, with everything that goes wrong with one.

use std::{fs, thread, time::Duration};

use crate::bench::{self, Dir, Followed, NODE, peers, pod, route, server, shop, timing};
use anyhow::{Result, ensure};
use serde_json::json;
use undermesh_control::Timing;
use undermesh_model::{MtlsMode, PodLocation};
use undermesh_tests::{
    apiserver::{Options, Refusal, Resource, Trouble, WatchFault},
    wait_for,
};

/// Long enough for anything that should not happen.
const A_WHILE: Duration = Duration::from_millis(600);

#[test]
fn nothing_is_published_before_every_list_is_complete() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    server.put(&pod("cart", NODE, "10.1.0.1"))?;
    let down = Refusal::new(503, "ServiceUnavailable", "not yet");
    let policies = "authorizationpolicies.security.istio.io";
    server.trouble(Trouble::new(&["list", "watch"], policies, down));
    let mut source = Followed::new(&dir, kubeconfig)?;
    wait_for("the other lists", bench::WITHIN, || {
        let lists = source.health.report().lists;
        let complete = lists.iter().filter(|list| list.complete).count();
        Ok((lists.len() > 20 && complete + 1 == lists.len()).then_some(()))
    })?;
    thread::sleep(A_WHILE);
    source.look()?;
    assert_eq!(source.count, 0);
    let report = source.health.report();
    let list = report.lists.iter().find(|list| list.name == "authorizationpolicy").unwrap();
    assert_eq!(list.problem.as_deref(), Some("not yet (503)"));
    server.heal();
    let cluster = source.until_complete()?;
    assert!(cluster.workloads.contains_key(&shop("cart")));
    Ok(())
}

#[test]
fn what_changes_is_in_force_in_a_moment_and_bursts_are_one_state() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    let here = server.put(&pod("cart", NODE, "10.1.0.1"))?;
    server.put(&pod("far", "node-b", "10.2.0.1"))?;
    let mut source = Followed::new(&dir, kubeconfig)?;
    let cluster = source.until_complete()?;
    let uid = here["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(cluster.workloads[&shop("cart")].location, Some(PodLocation::Uid(uid)));
    assert_eq!(cluster.workloads[&shop("far")].location, None);

    // A pod that is scheduled goes from one list to the other.
    server.put(&pod("new", "", "10.1.0.2"))?;
    source.until("the pod", |cluster| cluster.workloads.contains_key(&shop("new")))?;
    server.put(&pod("new", NODE, "10.1.0.2"))?;
    source.until("its place", |cluster| {
        cluster.workloads.get(&shop("new")).is_some_and(|pod| pod.location.is_some())
    })?;
    server.delete("v1", "Pod", "shop", "cart");
    source.until("its end", |cluster| !cluster.workloads.contains_key(&shop("cart")))?;

    let before = source.count;
    for number in 0..200 {
        server.put(&pod(&format!("burst-{number}"), "node-b", &format!("10.3.0.{number}")))?;
    }
    let is_there = |number: usize| {
        move |cluster: &undermesh_model::Cluster| {
            cluster.workloads.contains_key(&shop(&format!("burst-{number}")))
        }
    };
    source.until("the burst", is_there(199))?;
    ensure!(source.count - before < 50, "{} states for a burst", source.count - before);
    Ok(())
}

#[test]
fn long_lists_come_in_pages_where_the_server_does_not_stream_them() -> Result<()> {
    for streaming_lists in [false, true] {
        let dir = Dir::new();
        let (server, kubeconfig) = server(&dir, Options { streaming_lists, ..Options::default() })?;
        for number in 0..1203 {
            let address = format!("10.{}.{}.7", number / 250, number % 250);
            server.put(&pod(&format!("pod-{number}"), "node-b", &address))?;
        }
        let mut source = Followed::new(&dir, kubeconfig)?;
        assert_eq!(source.until_complete()?.workloads.len(), 1203);
        let calls = server.calls();
        let pages = calls.iter().filter(|call| !call.param("continue").is_empty()).count();
        assert_eq!(pages, if streaming_lists { 0 } else { 2 });
        let metadata = calls.iter().filter(|call| call.plural == "namespaces");
        assert!(metadata.into_iter().all(|call| call.accept.contains("PartialObjectMetadata")));
        server.put(&pod("one-more", NODE, "10.9.0.1"))?;
        source.until("one more", |cluster| cluster.workloads.len() == 1204)?;
    }
    Ok(())
}

#[test]
fn a_list_whose_history_is_gone_is_read_again() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    server.put(&pod("old", "node-b", "10.2.0.1"))?;
    let mut source = Followed::new(&dir, kubeconfig)?;
    source.until_complete()?;
    server.disturb_watches(WatchFault::Pause);
    server.put(&pod("unseen", "node-b", "10.2.0.2"))?;
    server.delete("v1", "Pod", "shop", "old");
    server.compact();
    thread::sleep(A_WHILE);
    source.look()?;
    assert!(source.cluster.as_ref().unwrap().workloads.contains_key(&shop("old")));
    server.disturb_watches(WatchFault::Cut);
    source.until("what was missed", |cluster| {
        cluster.workloads.contains_key(&shop("unseen"))
            && !cluster.workloads.contains_key(&shop("old"))
    })?;
    let lists = source.health.report().lists;
    let list = lists.iter().find(|list| list.name == "pod/elsewhere").unwrap();
    assert!(list.relists >= 1, "{list:?}");
    Ok(())
}

#[test]
fn watches_that_are_cut_or_fall_silent_are_replaced_and_nothing_is_missed() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    server.put(&pod("first", NODE, "10.1.0.1"))?;
    let quick = Timing { silence: Duration::from_millis(900), ..timing() };
    let mut source = Followed::with(&dir, kubeconfig, quick)?;
    source.until_complete()?;
    let faults = [WatchFault::Cut, WatchFault::End, WatchFault::Pause, WatchFault::Cut];
    for (number, fault) in faults.into_iter().enumerate() {
        server.disturb_watches(fault);
        let name = format!("after-{number}");
        server.put(&pod(&name, NODE, &format!("10.1.1.{number}")))?;
        source.until(&name, |cluster| cluster.workloads.contains_key(&shop(&name)))?;
    }
    let restarts: u64 = source.health.report().lists.iter().map(|list| list.restarts).sum();
    assert!(restarts >= 4, "{restarts}");
    server.slow_watches(Duration::from_millis(5));
    for number in 0..50 {
        server.put(&pod("first", NODE, &format!("10.1.2.{number}")))?;
    }
    source.until("the last address", |cluster| {
        cluster.workloads[&shop("first")].addresses
            == ["10.1.2.49".parse::<std::net::IpAddr>().unwrap()]
    })?;
    Ok(())
}

#[test]
fn kinds_come_and_go() -> Result<()> {
    let dir = Dir::new();
    let resources = Resource::core();
    let (server, kubeconfig) = server(&dir, Options { resources, ..Options::default() })?;
    let mut source = Followed::new(&dir, kubeconfig)?;
    assert!(source.until_complete()?.routes.is_empty());
    let find = |kind: &str| Resource::istio().into_iter().find(|one| one.kind == kind).unwrap();
    // An older server has older versions.
    let old = Resource { versions: vec!["v1alpha3".to_owned()], ..find("VirtualService") };
    server.install(&old)?;
    let mut object = route("cart");
    object["apiVersion"] = json!("networking.istio.io/v1alpha3");
    server.put(&object)?;
    source.until("the route", |cluster| cluster.routes.len() == 1)?;
    server.uninstall(&old);
    source.until("its end", |cluster| cluster.routes.is_empty())?;
    wait_for("the list to go", bench::WITHIN, || {
        let lists = source.health.report().lists;
        Ok(lists.iter().all(|list| list.name != "virtualservice").then_some(()))
    })?;
    server.install(&find("VirtualService"))?;
    server.put(&route("cart"))?;
    source.until("the route again", |cluster| cluster.routes.len() == 1)?;
    Ok(())
}

#[test]
fn one_bad_object_stops_nothing_and_its_last_good_version_stays() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    server.put(&peers("DISABLE"))?;
    let mut source = Followed::new(&dir, kubeconfig)?;
    source.until_complete()?;
    server.put(&peers("NONSENSE"))?;
    server.put(&pod("cart", NODE, "10.1.0.1"))?;
    let cluster =
        source.until("the pod", |cluster| cluster.workloads.contains_key(&shop("cart")))?;
    assert_eq!(cluster.peer_authentications[&shop("peers")].mode, Some(MtlsMode::Disable));
    assert!(source.codes("PeerAuthentication").contains(&"object-with-mistakes"));
    // Created again, it is another object, which was never good.
    server.delete("security.istio.io/v1", "PeerAuthentication", "shop", "peers");
    source.until("its end", |cluster| cluster.peer_authentications.is_empty())?;
    server.put(&peers("NONSENSE"))?;
    source.until("the strictest reading", |cluster| {
        cluster
            .peer_authentications
            .get(&shop("peers"))
            .is_some_and(|it| it.mode == Some(MtlsMode::Strict))
    })?;
    server.put(&peers("PERMISSIVE"))?;
    source.until("what is written", |cluster| {
        cluster.peer_authentications[&shop("peers")].mode == Some(MtlsMode::Permissive)
    })?;
    assert_eq!(source.codes("PeerAuthentication"), [""; 0]);
    Ok(())
}

#[test]
fn secrets_are_asked_for_by_name_and_who_may_not_have_them_goes_without() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    let secret = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"},
            "data": {"cacert": "cm9vdA==", "password": "c2VjcmV0"},
        })
    };
    server.put(&secret("roots"))?;
    server.put(&secret("others"))?;
    server.put(&json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {
            "host": "out.example",
            "trafficPolicy": {"tls": {"mode": "SIMPLE", "credentialName": "roots"}},
        },
    }))?;
    server.trouble(Trouble::forbidden(&["list", "watch"], "secrets"));
    let mut source = Followed::new(&dir, kubeconfig)?;
    assert!(source.until_complete()?.tls_secrets.is_empty());
    assert!(source.says("unknown-secret"));
    server.heal();
    let cluster = source.until("the secret", |cluster| !cluster.tls_secrets.is_empty())?;
    assert_eq!(cluster.tls_secrets.keys().collect::<Vec<_>>(), [&shop("roots")]);
    let calls = server.calls();
    let about_secrets = calls.iter().filter(|call| call.plural == "secrets");
    assert!(
        about_secrets
            .into_iter()
            .all(|call| call.param("fieldSelector").starts_with("metadata.name=roots"))
    );
    server.delete("networking.istio.io/v1", "DestinationRule", "shop", "r");
    wait_for("nobody to ask for secrets", bench::WITHIN, || {
        source.look()?;
        let lists = source.health.report().lists;
        Ok(lists.iter().all(|list| !list.name.starts_with("secret/")).then_some(()))
    })?;
    Ok(())
}

#[test]
fn while_the_server_is_away_the_last_state_is_in_force_even_for_who_starts_then() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    server.put(&pod("cart", NODE, "10.1.0.1"))?;
    server.put(&peers("STRICT"))?;
    let mut first = Followed::new(&dir, kubeconfig.clone())?;
    let before = first.until_complete()?;
    let cache = dir.0.join("cache/kubernetes.cache");
    wait_for("the cache", bench::WITHIN, || Ok(fs::exists(&cache)?.then_some(())))?;
    server.stop();
    let is_failing =
        |source: &Followed| source.health.report().lists.iter().all(|list| list.problem.is_some());
    wait_for("it to be noticed", bench::WITHIN, || Ok(is_failing(&first).then_some(())))?;
    let count = first.count;
    first.look()?;
    assert_eq!(first.count, count, "nothing is said while nothing is known");

    let mut second = Followed::new(&dir, kubeconfig)?;
    let cached = second.until("the cached state", |_| true)?;
    assert_eq!(cached, before);
    assert!(second.says("configuration-from-cache"));
    let report = second.health.report();
    assert!(!report.complete && report.cached.is_some());

    server.resume()?;
    server.put(&pod("later", NODE, "10.1.0.2"))?;
    for source in [&mut first, &mut second] {
        source
            .until("what came later", |cluster| cluster.workloads.contains_key(&shop("later")))?;
    }
    second.until_complete()?;
    assert!(!second.says("configuration-from-cache"));
    Ok(())
}

#[test]
fn a_server_that_wants_to_be_asked_later_is_asked_later() -> Result<()> {
    let dir = Dir::new();
    let (server, kubeconfig) = server(&dir, Options::default())?;
    server.put(&pod("cart", NODE, "10.1.0.1"))?;
    let busy = Refusal::new(429, "TooManyRequests", "too many requests");
    server.trouble(Trouble::new(&["list", "watch"], "services", busy));
    let patient = Timing { longest_retry: Duration::from_secs(5), ..timing() };
    let mut source = Followed::with(&dir, kubeconfig, patient)?;
    thread::sleep(Duration::from_millis(1500));
    let calls = server.calls();
    let asked = calls.iter().filter(|call| call.plural == "services").count();
    // Retry-After is a second.
    assert!((1..=3).contains(&asked), "{asked}");
    server.heal();
    source.until_complete()?;
    Ok(())
}
