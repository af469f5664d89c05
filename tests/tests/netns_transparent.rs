//! `sourceAddress: transparent`: delivered connections come from their clients' own addresses, and
//! everything inside the pod sees that, not only `getpeername`.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{
    Agent, Conn, Listener, PORT, Rig,
    pod::protocol::{Accepted, Behaviour, ConnectOptions},
    undermesh, wait_for,
};

const SOON: Duration = Duration::from_secs(10);

/// A rig whose node b delivers from clients' own addresses.
fn transparent() -> Result<Rig> {
    let mut rig = Rig::standard().build()?;
    rig.node_mut("b")?.settings.set("sourceAddress", "transparent");
    rig.start()?;
    Ok(rig)
}

/// The TCP connections of a pod, as the kernel's own tables have them: pairs of own address and peer.
fn connections(rig: &Rig, pod: &str) -> Result<Vec<(String, String)>> {
    let output = rig.command_in(pod)?.args(["ss", "-Htn", "state", "established"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?.replace("[::ffff:", "").replace(']', "");
    let rows = text.replace('[', "");
    let rows = rows.lines().map(|row| row.split_whitespace().skip(2).map(str::to_owned));
    let pairs = rows.map(|mut row| row.next().zip(row.next()).context("a row of ss"));
    pairs.collect()
}

fn shown(address: SocketAddr) -> String {
    address.to_string().replace(['[', ']'], "")
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Rules and routes of a pod that are not the kernel's own, and the settings that they need.
fn traces(rig: &Rig, pod: &str) -> Result<String> {
    let script = "for f in -4 -6; do ip $f rule; ip $f route show table 30061 2>/dev/null; done; \
                  cat /proc/sys/net/ipv4/tcp_fwmark_accept /proc/sys/net/ipv4/fwmark_reflect \
                  /proc/sys/net/ipv6/fwmark_reflect";
    let output = rig.command_in(pod)?.args(["sh", "-c", script]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Connects, and checks what the server's end and the kernel's table have as the client.
fn seen<'a>(
    rig: &Rig,
    near: Conn<'a>,
    listener: &Listener<'a>,
    server: SocketAddr,
) -> Result<(Conn<'a>, Conn<'a>)> {
    let (far, accepted): (Conn<'_>, Accepted) = listener.accept()?;
    let own = canonical(near.socket_name()?);
    assert_eq!(canonical(accepted.peer), own);
    assert_eq!(canonical(far.peer_name()?), own);
    let table = connections(rig, "server")?;
    for pair in [(shown(server), shown(own)), (shown(own), shown(server))] {
        assert!(table.contains(&pair), "{pair:?} is not among {table:?}");
    }
    near.send(b"there")?;
    assert_eq!(far.receive(5)?, b"there");
    far.send(b"back")?;
    assert_eq!(near.receive(4)?, b"back");
    Ok((near, far))
}

#[test]
fn the_kernels_own_tables_show_the_client_in_both_families() -> Result<()> {
    let rig = transparent()?;
    rig.place("server")?.netns.sysctls(&[
        ("net/ipv4/conf/all/rp_filter", "1"),
        ("net/ipv4/conf/eth0/rp_filter", "1"),
        ("net/ipv4/conf/lo/rp_filter", "1"),
    ])?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let (v4, v6) = (rig.at("server", PORT)?, rig.at6("server", PORT)?);
    for (to, at, listen) in [
        (v4, v4, v4.to_string()),
        (v4, v4, "0.0.0.0:8080".to_owned()),
        (rig.vip("far", 80)?, v4, "[::]:8080".to_owned()),
        (v6, v6, v6.to_string()),
        (rig.vip6("far", 80)?, v6, "[::]:8080".to_owned()),
    ] {
        let listener = server.listen(listen.parse()?, Behaviour::Manual)?;
        let (near, far) = seen(&rig, client.connect(to)?, &listener, at)?;
        near.close()?;
        assert_eq!(far.receive_to_end()?, b"");
        far.close()?;
        listener.close()?;
    }
    let status = rig.agent("b")?.status()?;
    assert_eq!(status.verdict("inbound_transparent"), 5);
    assert_eq!(status.verdict("inbound_self"), 0);
    wait_for("nothing to be let through any more", SOON, || {
        Ok((rig.agent("b")?.status()?.entries("DELIVERIES") == 0).then_some(()))
    })
}

#[test]
fn streams_are_carried_whole_and_resets_arrive() -> Result<()> {
    let rig = transparent()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Manual)?;
    for to in [rig.at("server", PORT)?, rig.at6("server", PORT)?] {
        let near = client.connect(to)?;
        let (far, _) = listener.accept()?;
        let length = 3 << 20;
        let (sent, intact) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| near.send_pattern(0, length, SOON));
            (far.receive_pattern(0, length), sending.join().unwrap())
        });
        assert_eq!((sent?, intact?), (true, length));
        far.reset()?;
        assert_eq!(near.receive_to_end().unwrap_err().errno, "ECONNRESET");
    }
    Ok(())
}

#[test]
fn plaintext_that_the_agent_judges_is_delivered_and_shown() -> Result<()> {
    let rig = transparent()?;
    let (server, stranger) = (rig.pod("server")?, rig.pod("stranger")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Manual)?;
    let address = rig.at("stranger", 0)?.ip();
    rig.apply(
        "by-address",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: by-address, namespace: shop}}\n\
             spec: {{rules: [{{from: [{{source: {{ipBlocks: [{address}]}}}}]}}]}}\n"
        ),
    )?;
    let near = stranger.connect(rig.at("server", PORT)?)?;
    let (far, accepted) = listener.accept()?;
    assert_eq!(canonical(accepted.peer), near.socket_name()?);
    near.send(b"judged")?;
    assert_eq!(far.receive(6)?, b"judged");
    let status = rig.agent("b")?.status()?;
    assert_eq!((status.verdict("inbound_captured"), status.verdict("inbound_self")), (1, 1));
    Ok(())
}

#[test]
fn servers_of_multipath_tcp_and_pods_that_call_themselves_see_their_clients() -> Result<()> {
    let rig = transparent()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen_mptcp("[::]:8080".parse()?, Behaviour::Manual)?;
    let at = rig.at("server", PORT)?;
    let mptcp = ConnectOptions { mptcp: true, ..ConnectOptions::default() };
    let (near, _far) = seen(&rig, client.connect_with(at, mptcp)?, &listener, at)?;
    near.close()?;
    for to in [rig.vip("far", 80)?, rig.at("server", PORT)?] {
        let near = server.connect(to)?;
        let (_far, accepted) = listener.accept()?;
        assert_eq!(canonical(accepted.peer), near.socket_name()?, "{to}");
    }
    Ok(())
}

#[test]
fn a_port_where_nobody_listens_is_refused_at_once() -> Result<()> {
    let rig = transparent()?;
    let client = rig.pod("client")?;
    for to in [rig.at("server", 8099)?, rig.at6("server", 8099)?] {
        // The proxy has accepted, and resets: before or after `connect` returns.
        let failure = client.connect(to).and_then(|conn| conn.receive_to_end()).unwrap_err();
        assert_eq!(failure.errno, "ECONNRESET");
    }
    let log = rig.agent("b")?.access_log();
    log.wait(&[("event", "denied"), ("reason", "connection_refused")])?;
    Ok(())
}

#[test]
fn a_strict_pod_lets_through_what_the_agent_delivers_and_nobody_else() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    let settings = &mut rig.node_mut("b")?.settings;
    settings.set("sourceAddress", "transparent");
    settings.set("mtls", "STRICT");
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let (outsider, stranger) = (rig.pod("outsider")?, rig.pod("stranger")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Manual)?;
    let to = rig.at("server", PORT)?;
    let (near, far) = seen(&rig, client.connect(to)?, &listener, to)?;
    for unmeshed in [&outsider, &stranger] {
        assert_eq!(unmeshed.connect(to).unwrap_err().errno, "ECONNREFUSED");
    }
    assert_eq!(rig.agent("b")?.status()?.verdict("strict_plaintext"), 2);
    // Neither the mark nor the address of a client lets anybody pass, not even inside the pod.
    let guarded = server.listen(rig.at("server", 8081)?, Behaviour::Echo)?;
    let forge = format!(
        "import socket\n\
         s=socket.socket()\n\
         s.setsockopt(0,19,1)\n\
         s.setsockopt(1,36,0x756d0001)\n\
         s.bind(('{}',0))\n\
         s.settimeout(5)\n\
         try:\n \
           s.connect(('{}',8081))\n \
           s.send(b'forged')\n \
           print('answer:', s.recv(100))\n\
         except (ConnectionError, TimeoutError) as error:\n \
           print('refused:', error)\n",
        rig.at("client", 0)?.ip(),
        to.ip()
    );
    let output = rig.command_in("server")?.args(["python3", "-c", &forge]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("refused") || said == "answer: b''\n", "{said:?} {output:?}");
    assert_eq!(guarded.accepted()?, []);
    near.close()?;
    assert_eq!(far.receive_to_end()?, b"");
    Ok(())
}

#[test]
fn a_client_keeps_its_address_where_its_port_is_in_use_inside_the_pod() -> Result<()> {
    let rig = transparent()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Manual)?;
    let to = rig.at("server", PORT)?;
    let from = |port| -> Result<ConnectOptions> {
        Ok(ConnectOptions { bind: Some(rig.at("client", port)?), ..ConnectOptions::default() })
    };
    let free = client.connect_with(to, from(40_001)?)?;
    let (_far, accepted) = listener.accept()?;
    assert_eq!(canonical(accepted.peer), free.socket_name()?);
    server.listen("0.0.0.0:40002".parse()?, Behaviour::Manual)?;
    let taken = client.connect_with(to, from(40_002)?)?;
    let (far, accepted) = listener.accept()?;
    assert_eq!(canonical(accepted.peer).ip(), taken.socket_name()?.ip());
    assert_ne!(accepted.peer.port(), 40_002);
    taken.send(b"all the same")?;
    assert_eq!(far.receive(12)?, b"all the same");
    Ok(())
}

#[test]
fn pods_of_one_node_see_each_other_when_the_tunnel_is_between_them() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    let settings = &mut rig.node_mut("a")?.settings;
    settings.set("sourceAddress", "transparent");
    settings.set("sameNode", "encrypt");
    rig.start()?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    let listener = near.listen("[::]:8080".parse()?, Behaviour::Manual)?;
    for to in [rig.vip("near", 80)?, rig.at6("near", PORT)?] {
        let conn = client.connect(to)?;
        let (far, accepted) = listener.accept()?;
        assert_eq!(canonical(accepted.peer), canonical(conn.socket_name()?));
        conn.send(b"x")?;
        assert_eq!(far.receive(1)?, b"x");
        let table = connections(&rig, "near")?;
        let peer = shown(canonical(conn.socket_name()?));
        assert!(table.iter().any(|pair| pair.1 == peer), "{peer} is not among {table:?}");
    }
    assert_eq!(rig.agent("a")?.status()?.verdict("inbound_transparent"), 2);
    Ok(())
}

#[test]
fn an_annotation_chooses_for_one_pod_and_the_pod_is_left_as_it_was() -> Result<()> {
    let rig = Rig::started()?;
    let before = traces(&rig, "server")?;
    let manifest = std::fs::read_to_string(rig.manifests.path("pod-server"))?;
    let annotation = "  annotations:\n    undermesh.io/source-address: transparent";
    rig.manifests.write("pod-server", &manifest.replace("  annotations:", annotation))?;
    enrolled(&rig, 2)?;
    assert!(traces(&rig, "server")?.contains("local default dev lo"));
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Manual)?;
    let to = rig.at("server", PORT)?;
    let (near, far) = seen(&rig, client.connect(to)?, &listener, to)?;
    // Back again: a connection that is open needs the routes to its end.
    rig.manifests.write("pod-server", &manifest)?;
    enrolled(&rig, 3)?;
    let translated = client.connect(to)?;
    let (second, accepted) = listener.accept()?;
    assert_eq!(canonical(accepted.peer), translated.socket_name()?);
    let table = connections(&rig, "server")?;
    assert!(table.iter().any(|pair| pair.1.starts_with("127.0.0.6:")), "{table:?}");
    near.send(b"still")?;
    assert_eq!(far.receive(5)?, b"still");
    assert_ne!(traces(&rig, "server")?, before);
    near.close()?;
    assert_eq!(far.receive_to_end()?, b"");
    far.close()?;
    wait_for("the pod to be as it was", SOON, || {
        Ok((traces(&rig, "server")? == before).then_some(()))
    })?;
    translated.send(b"goes on")?;
    assert_eq!(second.receive(7)?, b"goes on");
    Ok(())
}

/// Waits until node b has enrolled its pod so many times.
fn enrolled(rig: &Rig, times: usize) -> Result<()> {
    wait_for(&format!("the pod to be enrolled {times} times"), SOON, || {
        let log = rig.agent("b")?.log();
        Ok((log.matches(" enrolled pod=shop/server").count() == times).then_some(()))
    })
}

#[test]
fn cleanup_and_a_new_agent_remove_what_a_killed_agent_has_left() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    let before = traces(&rig, "server")?;
    rig.node_mut("b")?.settings.set("sourceAddress", "transparent");
    rig.start()?;
    assert_ne!(traces(&rig, "server")?, before);
    rig.take_agent("b")?.kill()?;
    assert_ne!(traces(&rig, "server")?, before);
    rig.node_mut("b")?.settings.set("sourceAddress", "translated");
    rig.start_agents()?;
    wait_for("the new agent to tidy up", SOON, || {
        Ok((traces(&rig, "server")? == before).then_some(()))
    })?;
    rig.take_agent("b")?.kill()?;
    rig.node_mut("b")?.settings.set("sourceAddress", "transparent");
    rig.start_agents()?;
    assert_ne!(traces(&rig, "server")?, before);
    rig.take_agent("b")?.kill()?;
    let pins = rig.node("b")?.settings.get("pinDir").context("no pinDir")?.to_owned();
    undermesh(["cleanup", "--pin-dir", &pins])?;
    assert_eq!(traces(&rig, "server")?, before);
    Ok(())
}

#[test]
fn what_is_in_the_way_is_named_and_traffic_goes_on_translated() -> Result<()> {
    for (conflict, named) in [
        ("rule add fwmark 0x756d0001 table 77 priority 300", "rule of priority 300"),
        ("rule add from all table 30061 priority 301", "rule of priority 301"),
        ("route add blackhole default table 30061", "routing table 30061 is in use"),
        ("-6 route add blackhole default table 30061", "IPv6 routing table 30061 is in use"),
    ] {
        let mut rig = Rig::standard().build()?;
        let command = rig.command_in("server")?.arg("ip").args(conflict.split(' ')).status()?;
        ensure!(command.success(), "ip {conflict}");
        let before = traces(&rig, "server")?;
        rig.node_mut("b")?.settings.set("sourceAddress", "transparent");
        rig.start()?;
        let status = rig.agent("b")?.status()?;
        let row = status.pods.iter().find(|row| row.name == "server").context("no such pod")?;
        assert!(row.detail.contains(named), "{conflict}: {}", row.detail);
        assert!(rig.agent("b")?.log().contains("pod=shop/server"), "{}", rig.agent("b")?.log());
        assert_eq!(traces(&rig, "server")?, before, "{conflict}");
        let (client, server) = (rig.pod("client")?, rig.pod("server")?);
        let listener = server.listen("[::]:8080".parse()?, Behaviour::Manual)?;
        let near = client.connect(rig.at("server", PORT)?)?;
        let (far, accepted) = listener.accept()?;
        assert_eq!(canonical(accepted.peer), near.socket_name()?);
        near.send(b"x")?;
        assert_eq!(far.receive(1)?, b"x");
    }
    Ok(())
}

#[test]
fn a_new_agent_leaves_connections_their_way_back_that_the_old_one_still_carries() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    let before = traces(&rig, "server")?;
    rig.node_mut("b")?.settings.set("sourceAddress", "transparent");
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Manual)?;
    let to = rig.at("server", PORT)?;
    let (first, first_far) = seen(&rig, client.connect(to)?, &listener, to)?;
    let mut old = Vec::new();
    for setting in ["transparent", "translated"] {
        rig.node_mut("b")?.settings.set("sourceAddress", setting);
        let new = Agent::start(rig.node("b")?)?;
        new.wait_in_charge()?;
        old.push(rig.take_agent("b")?);
        rig.node_mut("b")?.agent = Some(new);
        first.send(b"still")?;
        assert_eq!(first_far.receive(5)?, b"still");
        // The client's node may use its tunnel to the old agent a moment longer.
        wait_for("the new agent to deliver", SOON, || {
            let near = client.connect(to)?;
            let (far, accepted) = listener.accept()?;
            assert_eq!(canonical(accepted.peer), near.socket_name()?);
            let own = shown(near.socket_name()?);
            let in_table = connections(&rig, "server")?.iter().any(|pair| pair.1 == own);
            near.close()?;
            assert_eq!(far.receive_to_end()?, b"");
            far.close()?;
            Ok((in_table == (setting == "transparent")).then_some(()))
        })?;
    }
    assert_ne!(traces(&rig, "server")?, before);
    first_far.send(b"to the end")?;
    assert_eq!(first.receive(10)?, b"to the end");
    first.close()?;
    assert_eq!(first_far.receive_to_end()?, b"");
    first_far.close()?;
    wait_for("the pod to be as it was", SOON, || {
        Ok((traces(&rig, "server")? == before).then_some(()))
    })
}
