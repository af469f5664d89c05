//! Pods that have their pages at other ports than most: commands ask there, unless somebody names a port.

use anyhow::Result;
use serde_json::json;
use undermesh_tests::apiserver::Door;

use super::{ADMIN, Agent, Cluster, running::Running};

#[test]
fn agents_are_asked_at_the_port_that_their_pods_say_unless_somebody_names_one() -> Result<()> {
    let cluster = Cluster::new()?;
    let a = Agent::start(&[("01.000", "one")], 0)?;
    let filter = json!({"filter": "debug", "configured": "info", "resetInSeconds": null});
    a.answers("/logging", &filter.to_string());
    a.answers("/dashboard/", "the page");
    let container =
        json!({"name": "agent", "args": ["agent", "--admin-address", "127.0.0.1:25000"]});
    cluster.pods.with(&cluster.plane.api, "agent", ("agent-a", "a"), &container)?;
    cluster.pods.open("agent-a", 25000, Door::here(a.address));

    for which in [&["--all-nodes"][..], &["--node", "a"]] {
        let (code, out, err) = cluster.run(&[&["flows", "-o", "compact"], which].concat())?;
        assert_eq!(code, Some(0), "{which:?}: {err}");
        assert_eq!(out, "03:04:01.000 a + shop/one -> 10.0.0.2:80\n", "{which:?}");
    }
    let (code, out, err) = cluster.run(&["log", "--node", "a"])?;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "agent-a on node a\nin force    debug\nconfigured  info\n");
    let mut running = Running::start(cluster.command(&["dashboard", "--node", "a"])?)?;
    running.says("/dashboard/")?;
    assert_eq!(running.interrupt()?, Some(0));

    // Nothing listens at the port of the default.
    let default = format!("127.0.0.1:{ADMIN}");
    for command in ["flows", "log", "dashboard"] {
        let (code, _, err) = cluster.run(&[command, "--node", "a", "--admin", &default])?;
        assert_eq!(code, Some(1), "{command}: {err}");
        assert!(err.contains("does not answer at port 15000 of its loopback"), "{command}: {err}");
    }
    Ok(())
}

#[test]
fn so_are_controllers() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut controller = cluster.plane.controller("one", &[])?;
    controller.wait_ready()?;
    let container = json!({"name": "controller", "env": [
        {"name": "UNDERMESH_DASHBOARD_ADDRESS", "value": "127.0.0.1:25018"}]});
    cluster.pods.with(&cluster.plane.api, "controller", ("controller-1", "a"), &container)?;
    cluster.pods.open("controller-1", 25018, Door::here(controller.address("dashboardAddress")?));

    let (code, out, err) = cluster.run(&["log", "--controller"])?;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("controller-1 on node a\nin force    info\n"), "{out}");
    let mut running = Running::start(cluster.command(&["dashboard", "--controller"])?)?;
    running.says("/dashboard/")?;
    running.complains("leads to pod controller-1 on node a")?;
    assert_eq!(running.interrupt()?, Some(0));

    for command in ["log", "dashboard"] {
        let args = [command, "--controller", "--controller-port", "15018"];
        let (code, _, err) = cluster.run(&args)?;
        assert_eq!(code, Some(1), "{command}: {err}");
        assert!(err.contains("does not answer at port 15018 of its loopback"), "{command}: {err}");
    }
    // The port of agents is none of a controller's.
    let (code, _, err) = cluster.run(&["log", "--controller", "--admin", "127.0.0.1:1"])?;
    assert_eq!(code, Some(0), "{err}");
    Ok(())
}
