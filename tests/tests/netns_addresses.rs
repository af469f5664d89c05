//! Whatever an application dials, and however, it gets there, and sees the addresses it expects.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Result;
use undermesh_tests::{
    PORT, Rig, ServiceSpec,
    pod::protocol::{Behaviour, Burst, ConnectOptions},
};

#[test]
fn an_application_sees_the_address_that_it_dialled_and_its_own() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let cases = [
        (rig.vip("far", 80)?, rig.at("client", 0)?),
        (rig.vip6("far", 80)?, rig.at6("client", 0)?),
        (rig.at("server", PORT)?, rig.at("client", 0)?),
        (rig.at6("server", PORT)?, rig.at6("client", 0)?),
    ];
    let before = rig.agent("a")?.status()?.verdict("proxied");
    for (to, own) in cases {
        let conn = client.connect(to)?;
        assert_eq!(conn.exchange(b"hello")?, b"hello", "{to}");
        assert_eq!(conn.peer_name()?, to);
        assert_eq!(conn.socket_name()?.ip(), own.ip(), "{to}");
    }
    assert_eq!(rig.agent("a")?.status()?.verdict("proxied"), before + 4);
    Ok(())
}

#[test]
fn an_ipv4_destination_may_be_dialled_from_an_ipv6_socket() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let near = rig.pod("near")?;
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    near.listen(rig.at("near", PORT)?, Behaviour::Echo)?;
    let before = rig.agent("a")?.status()?;
    for to in [rig.vip("far", 80)?, rig.at("server", PORT)?, rig.vip("near", 80)?] {
        let options = ConnectOptions { v4_mapped: true, ..ConnectOptions::default() };
        let conn = client.connect_with(to, options)?;
        assert_eq!(conn.exchange(b"mapped")?, b"mapped", "{to}");
        let peer = conn.peer_name()?;
        assert!(peer.is_ipv6(), "{peer}");
        assert_eq!((peer.ip().to_canonical(), peer.port()), (to.ip(), to.port()));
        let own = conn.socket_name()?.ip().to_canonical();
        assert_eq!(own, rig.at("client", 0)?.ip(), "{to}");
    }
    let after = rig.agent("a")?.status()?;
    assert_eq!(after.verdict("proxied"), before.verdict("proxied") + 2);
    assert_eq!(after.verdict("local"), before.verdict("local") + 1);
    Ok(())
}

#[test]
fn a_socket_may_be_bound_before_it_connects() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let near = rig.pod("near")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let cases = [
        (rig.vip("far", 80)?, rig.at("client", 40_001)?),
        (rig.vip6("far", 80)?, rig.at6("client", 40_002)?),
        (rig.vip("near", 80)?, rig.at("client", 40_003)?),
        (rig.vip6("near", 80)?, rig.at6("client", 40_004)?),
    ];
    for (to, bind) in cases {
        let options = ConnectOptions { bind: Some(bind), ..ConnectOptions::default() };
        let conn = client.connect_with(to, options)?;
        assert_eq!(conn.exchange(b"bound")?, b"bound", "{to}");
        assert_eq!(conn.socket_name()?, bind);
    }
    Ok(())
}

#[test]
fn a_socket_may_be_held_to_a_device() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let near = rig.pod("near")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for service in ["far", "near"] {
        for to in [rig.vip(service, 80)?, rig.vip6(service, 80)?] {
            let device = Some("eth0".to_owned());
            let options = ConnectOptions { device, ..ConnectOptions::default() };
            let conn = client.connect_with(to, options)?;
            assert_eq!(conn.exchange(b"held")?, b"held", "{to}");
        }
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() -> Result<()> {
    let rig = Rig::started()?;
    for pod in ["server", "near"] {
        let server = rig.pod(pod)?;
        let service = if pod == "server" { "far" } else { "near" };
        server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
        let own = [rig.at(pod, PORT)?, rig.at6(pod, PORT)?];
        for to in [rig.vip(service, 80)?, rig.vip6(service, 80)?].into_iter().chain(own) {
            let conn = server.connect(to)?;
            assert_eq!(conn.exchange(b"myself")?, b"myself", "{to}");
            assert_eq!(conn.peer_name()?, to);
        }
    }
    Ok(())
}

#[test]
fn loopback_inside_a_pod_is_left_alone() -> Result<()> {
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    let before = rig.agent("a")?.status()?;
    for at in ["127.0.0.1:9000", "[::1]:9000"] {
        let at: SocketAddr = at.parse()?;
        client.listen(at, Behaviour::Echo)?;
        assert_eq!(client.connect(at)?.exchange(b"home")?, b"home");
    }
    let after = rig.agent("a")?.status()?;
    assert_eq!(after.verdict("never_meshed"), before.verdict("never_meshed") + 2);
    assert_eq!(after.verdict("proxied"), before.verdict("proxied"));
    Ok(())
}

#[test]
fn datagrams_are_left_alone() -> Result<()> {
    let rig = Rig::started()?;
    let capture = rig.capture()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    for (far, near) in [
        (rig.at("server", 5353)?, rig.at("client", 0)?),
        (rig.at6("server", 5353)?, rig.at6("client", 0)?),
    ] {
        let (far, near) = (server.udp(far)?, client.udp(near)?);
        near.send(far.address(), b"datagram-query")?;
        let query = far.receive()?;
        assert_eq!((query.from, &query.data[..]), (near.address(), &b"datagram-query"[..]));
        far.send(query.from, b"datagram-answer")?;
        assert_eq!(near.receive()?.from, far.address());
    }
    capture.wait_for(b"datagram-answer")?;
    assert_eq!(rig.agent("a")?.status()?.verdicts, BTreeMap::new());
    Ok(())
}

#[test]
fn a_headless_services_pods_are_meshed_by_their_own_addresses() -> Result<()> {
    let mut rig = Rig::standard()
        .service(ServiceSpec::new("peers", PORT, PORT, &["server", "near"]).headless())
        .build()?;
    rig.start()?;
    assert_eq!(rig.agent("a")?.status()?.warnings, Vec::<String>::new());
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for to in [rig.at("server", PORT)?, rig.at6("server", PORT)?] {
        assert_eq!(client.connect(to)?.exchange(b"peer")?, b"peer");
        rig.agent("b")?.access_log().wait(&[
            ("event", "open"),
            ("source.identity", "spiffe://cluster.local/ns/shop/sa/client"),
            ("destination.address", &to.to_string()),
        ])?;
    }
    Ok(())
}

#[test]
fn a_service_with_backends_on_both_nodes_uses_both() -> Result<()> {
    let mut rig =
        Rig::standard().service(ServiceSpec::new("both", 80, PORT, &["server", "near"])).build()?;
    rig.start()?;
    let client = rig.pod("client")?;
    let (server, near) = (rig.pod("server")?, rig.pod("near")?);
    let far = server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let near = near.listen(rig.at("near", PORT)?, Behaviour::Echo)?;
    let burst = Burst {
        to: vec![rig.vip("both", 80)?],
        count: 200,
        threads: 4,
        payload: 10,
        ..Burst::default()
    };
    let report = client.burst(burst)?;
    assert_eq!(report.ok, 200, "{}", report.describe());
    // 200 fair coins show the same side 200 times once in 10^60.
    for served in [far.accepted()?.len(), near.accepted()?.len()] {
        assert!((1..200).contains(&served), "one backend served {served} of 200");
    }
    Ok(())
}

/// Destinations of [`every_one_of_three_thousand_connects_arrives_where_it_was_meant_to`]: half of
/// them ports of the pod's own address, half of them ports of 30 services.
const SERVICES: u16 = 30;
const PORTS: u16 = 50;
const FIRST: u16 = 20_000;

#[test]
fn every_one_of_three_thousand_connects_arrives_where_it_was_meant_to() -> Result<()> {
    let half = SERVICES * PORTS;
    let target = |service: u16, port: u16| FIRST + half + service * PORTS + port;
    let mut builder = Rig::standard();
    for service in 0..SERVICES {
        let ports = (0..PORTS).map(|port| (100 + port, target(service, port)));
        let spec = ServiceSpec::new(&format!("s{service}"), 80, 80, &["server"]).ports(ports);
        builder = builder.service(spec);
    }
    let mut rig = builder.build()?;
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen_many(rig.at("server", FIRST)?, 2 * half, Behaviour::Address)?;

    let mut meant: BTreeMap<SocketAddr, SocketAddr> = BTreeMap::new();
    for offset in 0..half {
        let (service, port) = (offset / PORTS, offset % PORTS);
        let own = rig.at("server", FIRST + offset)?;
        meant.insert(own, own);
        let vip = rig.vip(&format!("s{service}"), 100 + port)?;
        meant.insert(vip, rig.at("server", target(service, port))?);
    }
    assert_eq!(meant.len(), 3000);
    let report = client.burst(Burst {
        to: meant.keys().copied().collect(),
        count: 3000,
        threads: 8,
        expect: Some(meant.values().map(ToString::to_string).collect()),
        payload: 0,
    })?;
    assert_eq!((report.ok, report.wrong), (3000, 0), "{}", report.describe());

    let log = rig.agent("a")?.access_log();
    let opened =
        undermesh_tests::wait_for("3000 log lines", std::time::Duration::from_secs(10), || {
            let lines = log.matching(&[("event", "open"), ("reporter", "source")])?;
            Ok((lines.len() >= 3000).then_some(lines))
        })?;
    let logged: BTreeMap<SocketAddr, SocketAddr> = opened
        .iter()
        .map(|line| Ok((line.get("dialled").parse()?, line.get("destination.address").parse()?)))
        .collect::<Result<_>>()?;
    assert_eq!(logged, meant);
    Ok(())
}
