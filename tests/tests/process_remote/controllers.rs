//! A controller's dashboard and log.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{Controller, apiserver::Door, wait_for};

use super::{Cluster, DASHBOARD, SOON, running::Running};

/// One request over its own connection: code, head and body.
fn ask(address: SocketAddr, host: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let code = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((code, body.to_owned()))
}

#[test]
fn a_port_of_this_machine_leads_to_the_controllers_dashboard() -> Result<()> {
    let cluster = Cluster::new()?;
    let api = &cluster.plane.api;
    let (code, _, err) = cluster.run(&["dashboard", "--controller"])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("no controller runs in namespace undermesh-system"), "{err}");
    cluster.pods.put(api, "controller", ("controller-0", "a"), "False")?;
    let (_, _, err) = cluster.run(&["dashboard", "--controller"])?;
    assert!(err.contains("pod controller-0 is not ready"), "{err}");

    let mut controller = cluster.plane.controller("one", &[])?;
    controller.wait_ready()?;
    let there = controller.address("dashboardAddress")?;
    cluster.pods.add(api, "controller", "controller-1", "b")?;
    cluster.pods.open("controller-1", DASHBOARD, Door::here(there));
    let mut running = Running::start(cluster.command(&["dashboard", "--controller"])?)?;
    let url = running.says("/dashboard/")?;
    let here: SocketAddr = url
        .strip_prefix("http://")
        .and_then(|it| it.split('/').next())
        .context("no address")?
        .parse()?;
    assert!(here.ip().is_loopback());
    running.complains("leads to pod controller-1 on node b")?;

    // The same bytes as at the pod, many at once.
    let expected = ask(there, "127.0.0.1", "/dashboard/reference.json")?;
    assert!(expected.0 == 200 && expected.1.len() > 10_000, "{}", expected.1.len());
    thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let host = format!("localhost:{}", here.port());
                scope.spawn(move || ask(here, &host, "/dashboard/reference.json"))
            })
            .collect();
        for one in asked {
            let got = one.join().map_err(|_| anyhow::anyhow!("it has panicked"))??;
            ensure!(got == expected, "other bytes: {} and {}", got.0, got.1.len());
        }
        Ok(())
    })?;
    let (code, status) = ask(here, &here.to_string(), "/status")?;
    assert!(code == 200 && status.contains("\"controller\""), "{status}");
    // A name that somebody has pointed at loopback gets no further than it does there.
    let (code, text) = ask(here, "evil.example", "/status")?;
    assert_eq!((code, text.contains("not served under that name")), (403, true), "{text}");

    let port = here.port().to_string();
    let (code, _, err) = cluster.run(&["dashboard", "--controller", "--port", &port])?;
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("cannot listen at 127.0.0.1:{port}; --port says")), "{err}");
    assert_eq!(running.interrupt()?, Some(0));
    assert!(TcpStream::connect(here).is_err(), "somebody still listens");
    Ok(())
}

#[test]
fn the_controllers_log_level_changes_while_they_run_and_goes_back() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut replicas = Vec::new();
    for name in ["one", "two"] {
        let mut controller = cluster.plane.controller(name, &[("statusInterval", "200ms")])?;
        controller.wait_ready()?;
        cluster.pods.add(&cluster.plane.api, "controller", name, name)?;
        let address = controller.address("dashboardAddress")?;
        cluster.pods.open(name, DASHBOARD, Door::here(address));
        replicas.push(controller);
    }
    let (code, out, err) = cluster.run(&["log", "--controller"])?;
    assert_eq!(code, Some(0), "{err}");
    let shown = |pod: &str, filter: &str| {
        format!("{pod} on node {pod}\nin force    {filter}\nconfigured  info\n")
    };
    assert_eq!(out, shown("one", "info") + &shown("two", "info"));
    // Its agent has no address, and whoever looks at the dashboard has it asked.
    cluster.pods.add(&cluster.plane.api, "agent", "agent-a", "a")?;
    let looks = |controller: &Controller| {
        let (code, _) = controller.page("dashboardAddress", "/edges")?;
        ensure!(code == 200, "the dashboard answers {code}");
        Ok(controller.log().contains("no counters"))
    };
    let filter = "warn,undermesh::controller::dashboard::agents=debug";
    let (code, out, err) = cluster.run(&["log", "--controller", filter, "--for", "5m"])?;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.matches("dashboard::agents=debug").count(), 2, "{out}");
    assert_eq!(out.matches("goes back in 4m").count(), 2, "{out}");
    for controller in &replicas {
        wait_for("a line of that module", SOON, || Ok(looks(controller)?.then_some(())))?;
    }
    let (code, out, _) = cluster.run(&["log", "--controller", "--recent"])?;
    assert!(code == Some(0) && out.contains("starting the controller"), "{out}");
    let (code, _, err) = cluster.run(&["log", "--controller", "nonsense=louder"])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("one on node one") && err.contains("answered 400"), "{err}");
    let (code, out, _) = cluster.run(&["log", "--controller", "--reset"])?;
    assert_eq!((code, out), (Some(0), shown("one", "info") + &shown("two", "info")));

    // It is asked directly as well; other sites are not let in.
    let there = replicas[0].address("dashboardAddress")?.to_string();
    let (code, out, err) = cluster.run(&["log", "debug", "--for", "1s", "--admin", &there])?;
    assert!(code == Some(0) && out.contains("in force    debug"), "{out}{err}");
    wait_for("the filter to go back", SOON, || {
        let (_, out, _) = cluster.run(&["log", "--admin", &there])?;
        Ok(out.contains("in force    info").then_some(()))
    })?;
    Ok(())
}

#[test]
fn whoever_has_the_dashboard_at_another_address_cannot_change_the_log() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut controller = cluster.plane.controller("one", &[("dashboardAddress", "[::]:0")])?;
    controller.wait_ready()?;
    let there = controller.address("dashboardAddress")?;
    let there = SocketAddr::from(([127, 0, 0, 1], there.port()));
    let (code, _, err) = cluster.run(&["log", "debug", "--admin", &there.to_string()])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("404: the log is served only where dashboardAddress is"), "{err}");
    Ok(())
}
