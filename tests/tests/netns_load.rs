//! Many connections, and nothing of them left behind.

use std::time::Duration;

use anyhow::Result;
use undermesh_tests::{
    Rig, Status,
    pod::protocol::{Behaviour, Burst},
};

/// Connections that fill caches, pools and thread stacks.
const WARM: u64 = 2_000;
const CONNECTIONS: u64 = 100_000;
/// Sockets that the pool may have opened and kept; far from one per connection.
const POOLED: usize = 32;
const GROWTH: u64 = 64 << 20;
/// What an agent needs that serves nobody yet, and not what its start has taken: the types of the
/// kernel alone, read to load the programs, were 25 MiB.
const AT_REST: u64 = 20 << 20;

/// What an agent holds.
#[derive(Debug)]
struct Holdings {
    open_files: usize,
    resident: u64,
    maps: Vec<(String, u64)>,
}

fn is_idle(status: &Status) -> bool {
    status.agent.connections == 0
        && status.entries("ORIGINAL_DST") == 0
        && status.entries("LOCAL_TUPLES") == 0
}

fn holdings(rig: &Rig, node: &str) -> Result<Holdings> {
    let agent = rig.agent(node)?;
    let status = agent.wait_status("no connection", Duration::from_secs(30), is_idle)?;
    Ok(Holdings {
        open_files: agent.open_files()?,
        resident: agent.resident_bytes()?,
        maps: status.maps.into_iter().map(|map| (map.name, map.entries)).collect(),
    })
}

#[test]
fn an_agent_that_is_ready_has_given_back_what_its_start_took() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let occupied = rig.agent("b")?.anonymous_bytes()?;
    println!("{occupied} bytes");
    assert!(occupied < AT_REST, "{occupied} bytes");
    Ok(())
}

#[test]
fn a_hundred_thousand_connections_leave_nothing_behind() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let burst = |count| Burst {
        to: vec![rig.vip("far", 80).unwrap(), rig.vip6("far", 80).unwrap()],
        count,
        threads: 16,
        payload: 32,
        expect: None,
    };
    let warm = client.burst(burst(WARM))?;
    assert_eq!(warm.ok, WARM, "{}", warm.describe());
    let before = [holdings(&rig, "a")?, holdings(&rig, "b")?];
    let report = client.burst(burst(CONNECTIONS))?;
    println!("{}", report.describe());
    assert_eq!((report.ok, report.wrong), (CONNECTIONS, 0), "{}", report.describe());

    for (node, before) in ["a", "b"].into_iter().zip(before) {
        let after = holdings(&rig, node)?;
        assert_eq!(after.maps, before.maps, "node {node}");
        let text = format!("node {node}: {after:?}, before: {before:?}");
        assert!(after.open_files <= before.open_files + POOLED, "{text}");
        assert!(after.resident <= before.resident + GROWTH, "{text}");
        for metric in ["opened", "closed"] {
            let name = format!("istio_tcp_connections_{metric}_total");
            assert_eq!(rig.agent(node)?.metric(&name, "mutual_tls")?, WARM + CONNECTIONS, "{node}");
        }
    }
    let proxied = rig.agent("a")?.status()?.verdict("proxied");
    assert_eq!(proxied, CONNECTIONS + WARM);
    Ok(())
}

#[test]
fn connections_that_fail_leave_nothing_behind_either() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let client = rig.pod("client")?;
    let burst = |count| Burst {
        to: vec![rig.vip("far", 80).unwrap(), rig.vip("near", 80).unwrap()],
        count,
        threads: 8,
        payload: 32,
        expect: None,
    };
    client.burst(burst(200))?;
    let before = [holdings(&rig, "a")?, holdings(&rig, "b")?];
    let report = client.burst(burst(10_000))?;
    assert_eq!((report.ok, report.wrong), (0, 0), "{}", report.describe());
    for (node, before) in ["a", "b"].into_iter().zip(before) {
        let after = holdings(&rig, node)?;
        assert_eq!(after.maps, before.maps, "node {node}");
        assert!(after.open_files <= before.open_files + POOLED, "{after:?}, {before:?}");
    }
    Ok(())
}

#[test]
fn local_connections_leave_no_entry_behind() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let before = holdings(&rig, "a")?;
    let report = client.burst(Burst {
        to: vec![rig.vip("near", 80)?, rig.vip6("near", 80)?],
        count: 10_000,
        threads: 8,
        payload: 32,
        expect: None,
    })?;
    assert_eq!(report.ok, 10_000, "{}", report.describe());
    assert_eq!(holdings(&rig, "a")?.maps, before.maps);
    Ok(())
}
