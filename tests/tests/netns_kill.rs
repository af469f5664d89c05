//! An agent that is killed while it carries load: what fails, how, and for how long.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use undermesh_tests::{
    PORT, PodSpec, Rig, ServiceSpec,
    pod::protocol::{Behaviour, Burst, BurstReport},
};

/// How long a new agent may take to serve again. The figure is printed; the bound is for hangs.
const RECOVERED: Duration = Duration::from_secs(5);

/// On node a: a client that fails closed, one that fails open, and a server; on node b a server that
/// is STRICT and one that is not.
fn rig() -> Result<Rig> {
    let mut rig = Rig::builder()
        .node(
            "a",
            [
                PodSpec::new("client"),
                PodSpec::new("opener").annotated("outbound-failure", "open"),
                PodSpec::new("near"),
                PodSpec::new("outsider").listed(),
            ],
        )
        .node("b", [PodSpec::new("server"), PodSpec::new("lax")])
        .service(ServiceSpec::new("near", 80, PORT, &["near"]))
        .service(ServiceSpec::new("far", 80, PORT, &["server"]))
        .build()?;
    rig.start()?;
    rig.apply(
        "strict",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {name: server, namespace: shop}\n\
         spec: {selector: {matchLabels: {app: server}}, mtls: {mode: STRICT}}\n",
    )?;
    Ok(rig)
}

/// Runs connections to both servers from the pod `client` until `act` is over.
fn under_load<T>(
    rig: &mut Rig,
    act: impl FnOnce(&mut Rig) -> Result<T>,
) -> Result<(T, Vec<BurstReport>)> {
    let pod = rig.pod("client")?;
    let to = vec![rig.vip("near", 80)?, rig.vip("far", 80)?];
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<Vec<BurstReport>> {
            let mut reports = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let to = to.clone();
                let burst = Burst { to, count: 40, threads: 4, payload: 64, expect: None };
                reports.push(pod.burst(burst)?);
            }
            Ok(reports)
        });
        let result = act(rig);
        stop.store(true, Ordering::Relaxed);
        let reports = load.join().map_err(|_| anyhow::anyhow!("the load has panicked"))??;
        Ok((result?, reports))
    })
}

/// Restarts the agent of a node; the time from its start until it says that it is ready.
fn restart(rig: &mut Rig) -> Result<Duration> {
    let started = Instant::now();
    rig.start_agents()?;
    Ok(started.elapsed())
}

#[test]
fn without_the_sources_agent_closed_pods_are_refused_open_ones_go_on_and_neighbours_do_not_notice()
-> Result<()> {
    let mut rig = rig()?;
    let (near, server, lax) = (rig.pod("near")?, rig.pod("server")?, rig.pod("lax")?);
    for pod in [&near, &server, &lax] {
        pod.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    }
    let (client, opener) = (rig.pod("client")?, rig.pod("opener")?);
    let held = client.connect(rig.vip("near", 80)?)?;
    held.exchange(b"before")?;
    let ((), reports) = under_load(&mut rig, |rig| {
        rig.take_agent("a")?.kill()?;
        assert_eq!(client.connect(rig.vip("far", 80)?).unwrap_err().errno, "ECONNREFUSED");
        assert_eq!(opener.connect(rig.at("lax", PORT)?)?.exchange(b"in clear")?, b"in clear");
        let strict = opener.connect(rig.at("server", PORT)?).and_then(|conn| conn.exchange(b"x"));
        assert!(strict.is_err(), "a STRICT pod took plaintext");
        assert_eq!(client.connect(rig.vip("near", 80)?)?.exchange(b"local")?, b"local");
        assert_eq!(held.exchange(b"during")?, b"during");
        Ok(())
    })?;
    for report in &reports {
        assert_eq!(report.wrong, 0, "{}", report.describe());
        assert!(report.ok >= 20, "neighbours have noticed: {}", report.describe());
    }
    let took = restart(&mut rig)?;
    println!("ready {took:?} after the start of the new agent");
    assert!(took < RECOVERED, "{took:?}");
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"after")?, b"after");
    assert_eq!(held.exchange(b"to the end")?, b"to the end");
    Ok(())
}

#[test]
fn without_the_destinations_agent_its_pods_are_reset_and_nothing_reaches_the_application()
-> Result<()> {
    let mut rig = rig()?;
    let (near, server, lax) = (rig.pod("near")?, rig.pod("server")?, rig.pod("lax")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let guarded = [
        server.listen("[::]:8080".parse()?, Behaviour::Echo)?,
        lax.listen("[::]:8080".parse()?, Behaviour::Echo)?,
    ];
    let (client, outsider) = (rig.pod("client")?, rig.pod("outsider")?);
    let held = client.connect(rig.vip("far", 80)?)?;
    held.exchange(b"before")?;
    client.connect(rig.at("lax", PORT)?)?.exchange(b"before")?;
    let (served, reports) = under_load(&mut rig, |rig| {
        rig.take_agent("b")?.kill()?;
        assert_eq!(held.receive(1).unwrap_err().errno, "ECONNRESET");
        let served = guarded[0].accepted()?.len() + guarded[1].accepted()?.len();
        for to in [rig.vip("far", 80)?, rig.at("lax", PORT)?] {
            let answer = client.connect(to).and_then(|conn| conn.exchange(b"hello"));
            let error = answer.unwrap_err().errno;
            assert!(["ECONNRESET", "EPIPE"].contains(&error.as_str()), "{to}: {error}");
        }
        let refused = outsider.connect(rig.at("server", PORT)?).unwrap_err().errno;
        assert_eq!(refused, "ECONNREFUSED");
        Ok(served)
    })?;
    let now = guarded[0].accepted()?.len() + guarded[1].accepted()?.len();
    assert_eq!(now, served, "an application was reached while nobody could read TLS");
    assert!(reports.iter().all(|report| report.wrong == 0), "{reports:?}");
    let took = restart(&mut rig)?;
    println!("ready {took:?} after the start of the new agent");
    assert!(took < RECOVERED, "{took:?}");
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"after")?, b"after");
    Ok(())
}
