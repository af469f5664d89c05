//! Of several controllers one writes: which one, for how long, and what becomes of it when it dies, or cannot
//! reach the API server any more.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use undermesh_tests::{
    Controller, Plane,
    apiserver::{Refusal, Trouble},
    wait_for,
};

const SOON: Duration = Duration::from_secs(20);
/// What the controllers of these tests are set to (`leaseDuration`, `leaseRenewDeadline`).
const LEASE: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(2);

fn three(plane: &Plane) -> Result<Vec<Controller>> {
    let names = ["one", "two", "three"];
    let started: Result<Vec<_>> = names.iter().map(|name| plane.controller(name, &[])).collect();
    let mut replicas = started?;
    for replica in &mut replicas {
        replica.wait_ready()?;
    }
    Ok(replicas)
}

fn leaders(replicas: &[Controller]) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for (index, replica) in replicas.iter().enumerate() {
        if replica.leads()? {
            found.push(index);
        }
    }
    Ok(found)
}

fn one_leader(replicas: &[Controller]) -> Result<usize> {
    wait_for("one leader", SOON, || {
        let found = leaders(replicas)?;
        ensure!(found.len() <= 1, "{found:?} lead");
        Ok(found.first().copied())
    })
}

#[test]
fn one_of_three_leads_and_another_takes_over_in_time_when_it_is_killed() -> Result<()> {
    let plane = Plane::new()?;
    let mut replicas = three(&plane)?;
    let first = one_leader(&replicas)?;
    assert_eq!(plane.leader(), ["one", "two", "three"][first]);
    let killed = Instant::now();
    replicas.remove(first).kill()?;
    let _ = one_leader(&replicas)?;
    let took = killed.elapsed();
    println!("another one led after {took:?}");
    // Not before the lease was over, of which at most a renewal's time had passed; and soon after.
    ensure!(took >= LEASE - Duration::from_millis(700), "{took:?}");
    ensure!(took < LEASE + Duration::from_secs(3), "{took:?}");
    let transitions = plane
        .api
        .get("coordination.k8s.io/v1", "Lease", "undermesh-system", "undermesh-controller")
        .and_then(|lease| lease["spec"]["leaseTransitions"].as_i64());
    assert_eq!(transitions, Some(1));
    Ok(())
}

#[test]
fn a_leader_that_stops_gives_the_lease_back_and_nobody_waits_for_its_end() -> Result<()> {
    let plane = Plane::new()?;
    let mut replicas = three(&plane)?;
    let first = one_leader(&replicas)?;
    let stopped = Instant::now();
    replicas.remove(first).stop()?;
    let _ = one_leader(&replicas)?;
    let took = stopped.elapsed();
    ensure!(took < LEASE - Duration::from_millis(500), "{took:?}");
    Ok(())
}

/// The server is away for everybody, so that nobody can take over; whoever led has to stop all the same.
#[test]
fn a_leader_that_reaches_nobody_ceases_to_lead_before_its_lease_is_over() -> Result<()> {
    let plane = Plane::new()?;
    let replicas = three(&plane)?;
    let first = one_leader(&replicas)?;
    plane.api.stop();
    let cut = Instant::now();
    replicas[first].wait_leads(false, SOON)?;
    let took = cut.elapsed();
    println!("it ceased to lead after {took:?}");
    ensure!(took < DEADLINE + Duration::from_millis(500), "{took:?}");
    ensure!(took < LEASE, "{took:?}");
    let log = replicas[first].log();
    ensure!(log.contains("cannot look after the lease"), "{log}");
    thread::sleep(LEASE);
    assert!(leaders(&replicas)?.is_empty());
    plane.api.resume()?;
    one_leader(&replicas)?;
    Ok(())
}

/// The server takes requests and never answers.
#[test]
fn a_leader_that_gets_no_answers_ceases_to_lead_in_time() -> Result<()> {
    let plane = Plane::new()?;
    let replicas = three(&plane)?;
    let first = one_leader(&replicas)?;
    plane.api.slow_answers(Duration::from_secs(60));
    let cut = Instant::now();
    replicas[first].wait_leads(false, SOON)?;
    ensure!(cut.elapsed() < LEASE, "{:?}", cut.elapsed());
    plane.api.heal();
    one_leader(&replicas)?;
    Ok(())
}

#[test]
fn a_conflict_makes_nobody_a_leader_and_is_no_end() -> Result<()> {
    let plane = Plane::new()?;
    let conflict = Refusal::new(409, "Conflict", "the object has been modified");
    let trouble = Trouble::new(&["create", "update"], "leases.coordination.k8s.io", conflict);
    plane.api.trouble(trouble);
    let mut replica = plane.controller("one", &[])?;
    replica.address("grpcAddress")?;
    thread::sleep(Duration::from_secs(1));
    assert!(!replica.leads()?);
    // Without a leader there is no authority, and nobody is told otherwise.
    let (code, text) = replica.page("readinessAddress", "/healthz/ready")?;
    assert_eq!(code, 503);
    ensure!(text.contains("no root and no intermediate yet"), "{text}");
    assert!(plane.secret().is_none());
    plane.api.heal();
    replica.wait_ready()?;
    replica.wait_leads(true, SOON)?;
    Ok(())
}

/// A process that is stopped cannot know how long; when it goes on, it must not write on.
#[test]
fn a_leader_that_was_frozen_does_not_lead_when_it_wakes() -> Result<()> {
    let plane = Plane::new()?;
    let mut replicas = three(&plane)?;
    let first = one_leader(&replicas)?;
    let frozen = replicas.remove(first);
    frozen.signal(Signal::STOP)?;
    let second = one_leader(&replicas)?;
    let revision = plane.secret().context("no Secret")?["metadata"]["resourceVersion"].clone();
    frozen.signal(Signal::CONT)?;
    for _ in 0..20 {
        assert!(!frozen.leads()?);
        assert!(replicas[second].leads()?);
        thread::sleep(Duration::from_millis(20));
    }
    let now = plane.secret().context("no Secret")?["metadata"]["resourceVersion"].clone();
    assert_eq!(now, revision);
    Ok(())
}
