//! What the leader writes into the status of objects, and what it says has changed in them.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use undermesh_tests::{
    Controller, Plane,
    apiserver::{Refusal, Trouble},
    wait_for,
};

const SOON: Duration = Duration::from_secs(20);
const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const SECURITY: &str = "security.istio.io/v1";

fn started() -> Result<(Plane, Controller)> {
    let plane = Plane::new()?;
    plane.api.put(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]},
    }))?;
    let mut controller = plane.controller("one", &[("statusInterval", "200ms")])?;
    controller.wait_ready()?;
    Ok((plane, controller))
}

fn route(backend: &str, parents: &[&str]) -> Value {
    let parent = |name: &&str| json!({"group": "", "kind": "Service", "name": name, "port": 80});
    let parents: Vec<Value> = parents.iter().map(parent).collect();
    json!({
        "apiVersion": GATEWAY, "kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "shop"},
        "spec": {"parentRefs": parents, "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]},
    })
}

fn policy(action: &str) -> Value {
    json!({
        "apiVersion": SECURITY, "kind": "AuthorizationPolicy",
        "metadata": {"name": "guard", "namespace": "shop"},
        "spec": {"action": action, "rules": [{}]},
    })
}

/// The conditions of a route's parent, as `type=status/reason`.
fn conditions(route: &Value, parent: usize) -> Vec<String> {
    let list = route["status"]["parents"][parent]["conditions"].as_array();
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    list.into_iter()
        .flatten()
        .map(|it| format!("{}={}/{}", text(it, "type"), text(it, "status"), text(it, "reason")))
        .collect()
}

fn get(plane: &Plane, version: &str, kind: &str, name: &str) -> Result<Value> {
    plane.api.get(version, kind, "shop", name).with_context(|| format!("no {kind} {name}"))
}

#[test]
fn routes_say_for_each_parent_whether_they_are_accepted_and_lead_anywhere() -> Result<()> {
    let (plane, _controller) = started()?;
    plane.api.put(&route("nowhere", &["cart", "absent"]))?;
    let written = wait_for("a status", SOON, || {
        let route = get(&plane, GATEWAY, "HTTPRoute", "r")?;
        Ok((!conditions(&route, 1).is_empty()).then_some(route))
    })?;
    let lost = "ResolvedRefs=False/BackendNotFound";
    assert_eq!(conditions(&written, 0), ["Accepted=True/Accepted", lost]);
    assert_eq!(conditions(&written, 1), ["Accepted=False/NoMatchingParent", lost]);
    let parent = &written["status"]["parents"][0];
    assert_eq!(parent["controllerName"], "undermesh.io/controller");
    let first = &parent["conditions"][0];
    assert_eq!(first["observedGeneration"], written["metadata"]["generation"]);
    // Corrected, it says so, of its new generation.
    let mut object = route("cart", &["cart"]);
    object["status"] = written["status"].clone();
    plane.api.put(&object)?;
    wait_for("the corrected route's status", SOON, || {
        let route = get(&plane, GATEWAY, "HTTPRoute", "r")?;
        let parents = route["status"]["parents"].as_array().context("no parents")?;
        let good = ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"];
        let seen = &parents[0]["conditions"][1]["observedGeneration"];
        let done = parents.len() == 1
            && conditions(&route, 0) == good
            && *seen == route["metadata"]["generation"];
        Ok(done.then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_status_that_says_it_already_is_not_written_again() -> Result<()> {
    let (plane, controller) = started()?;
    plane.api.put(&policy("DENY"))?;
    plane.api.put(&route("cart", &["cart"]))?;
    let accepted = |object: &Value| object["status"]["conditions"][0]["status"] == "True";
    wait_for("statuses", SOON, || {
        let done = accepted(&get(&plane, SECURITY, "AuthorizationPolicy", "guard")?)
            && !conditions(&get(&plane, GATEWAY, "HTTPRoute", "r")?, 0).is_empty();
        Ok(done.then_some(()))
    })?;
    let revision = |kind: &str, version: &str, name: &str| {
        anyhow::Ok(get(&plane, version, kind, name)?["metadata"]["resourceVersion"].clone())
    };
    let before =
        (revision("AuthorizationPolicy", SECURITY, "guard")?, revision("HTTPRoute", GATEWAY, "r")?);
    plane.api.calls();
    thread::sleep(Duration::from_secs(2));
    let writes: Vec<_> =
        plane.api.calls().into_iter().filter(|call| call.subresource == "status").collect();
    ensure!(writes.is_empty(), "{writes:?}");
    let after =
        (revision("AuthorizationPolicy", SECURITY, "guard")?, revision("HTTPRoute", GATEWAY, "r")?);
    assert_eq!(before, after);
    let (_, metrics) = controller.page("metricsAddress", "/metrics")?;
    let line = "undermesh_controller_status_writes_total{result=\"written\"} 2";
    ensure!(metrics.contains(line), "{metrics}");
    Ok(())
}

#[test]
fn an_object_that_cannot_be_used_says_why_and_others_are_not_held_up() -> Result<()> {
    let (plane, controller) = started()?;
    plane.api.put(&policy("MAYBE"))?;
    plane.api.put(&route("cart", &["cart"]))?;
    let refused = wait_for("a status", SOON, || {
        let policy = get(&plane, SECURITY, "AuthorizationPolicy", "guard")?;
        let condition = policy["status"]["conditions"][0].clone();
        Ok(condition.is_object().then_some(condition))
    })?;
    assert_eq!(refused["type"], "undermesh.io/Accepted");
    assert_eq!((&refused["status"], &refused["reason"]), (&json!("False"), &json!("Invalid")));
    ensure!(refused["message"].as_str().is_some_and(|it| it.contains("MAYBE")), "{refused}");
    wait_for("the route's status", SOON, || {
        let route = get(&plane, GATEWAY, "HTTPRoute", "r")?;
        Ok((!conditions(&route, 0).is_empty()).then_some(()))
    })?;
    // What has come since it leads, and what changes, is in the audit log.
    let mut changed = policy("DENY");
    changed["metadata"]["managedFields"] =
        json!([{"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z"}]);
    plane.api.put(&changed)?;
    plane.api.delete(GATEWAY, "HTTPRoute", "shop", "r");
    let lines = wait_for("the changes in the audit log", SOON, || {
        let lines = controller.audit("configuration_changed");
        let of = |change: &str| lines.iter().find(|line| line["change"] == change).cloned();
        Ok(of("changed").zip(of("deleted")))
    })?;
    assert_eq!(
        (&lines.0["kind"], &lines.0["name"]),
        (&json!("AuthorizationPolicy"), &json!("guard"))
    );
    assert_eq!(lines.0["fields"], json!(["spec.action"]));
    assert_eq!(lines.0["by"], "kubectl at 2026-01-01T00:00:00Z");
    assert_eq!(lines.1["name"], "r");
    Ok(())
}

#[test]
fn a_conflict_is_tried_again_and_only_the_leader_writes() -> Result<()> {
    let (plane, _controller) = started()?;
    let mut other = plane.controller("two", &[("statusInterval", "200ms")])?;
    other.wait_ready()?;
    let conflict = Refusal::new(409, "Conflict", "the object has been modified");
    let resource = "authorizationpolicies.security.istio.io";
    plane.api.trouble(Trouble::new(&["update"], resource, conflict).times(2));
    plane.api.put(&policy("DENY"))?;
    wait_for("a status", SOON, || {
        let policy = get(&plane, SECURITY, "AuthorizationPolicy", "guard")?;
        Ok(policy["status"]["conditions"][0].is_object().then_some(()))
    })?;
    let (_, metrics) = other.page("metricsAddress", "/metrics")?;
    ensure!(!metrics.contains("undermesh_controller_status_writes_total{"), "{metrics}");
    Ok(())
}
