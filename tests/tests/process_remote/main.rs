//! What is asked of agents and controllers through an API server, over port forwards with real bytes: `flows --all-nodes`,
//! `trace --all-nodes`, `dashboard --controller`, `log --controller`, `bugreport --all-nodes`.

mod agent;
mod bugreport;
mod cluster;
mod controllers;
mod flows;
mod ports;
mod running;
mod trace;

use std::time::Duration;

use anyhow::Result;

use agent::Agent;
use cluster::Cluster;

const SOON: Duration = Duration::from_secs(20);
const ADMIN: u16 = 15000;
const DASHBOARD: u16 = 15018;

#[test]
fn who_may_not_reach_into_pods_is_told_which_right_it_takes() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.agent("a", &Agent::start(&[], 0)?)?;
    cluster.pods.add(&cluster.plane.api, "controller", "controller-1", "a")?;
    cluster.pods.deny();
    for args in [
        &["flows", "--all-nodes"][..],
        &["flows", "--all-nodes", "--follow"],
        &["dashboard", "--controller"],
        &["log", "--controller"],
    ] {
        let (code, out, err) = cluster.run(args)?;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        for part in ["resources [pods/portforward], verbs [get, create]", "undermesh-system"] {
            assert!(err.contains(part), "{args:?}: {part}: {err}");
        }
    }
    Ok(())
}
