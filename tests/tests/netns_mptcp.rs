//! Multipath TCP: an application that asks for it gets it within a node, plain TCP through the
//! proxy, and in either case the addresses, the verdicts and the policy that any client gets.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use undermesh_tests::{
    Conn, Listener, PORT, Rig,
    pod::{
        Pod,
        protocol::{Accepted, Behaviour, ConnectOptions},
    },
    wait_for,
};

const SOON: Duration = Duration::from_secs(10);

fn mptcp() -> ConnectOptions {
    ConnectOptions { mptcp: true, ..ConnectOptions::default() }
}

/// One of the kernel's counters of Multipath TCP in a pod.
fn counter(rig: &Rig, pod: &str, name: &str) -> Result<u64> {
    let text =
        rig.place(pod)?.netns.run(|| fs::read_to_string("/proc/thread-self/net/netstat"))??;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("MPTcpExt: "));
    let (names, values) = (rows.next(), rows.next());
    let (names, values) = names.zip(values).context("the kernel counts no Multipath TCP")?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|pair| pair.0 == name);
    Ok(found.with_context(|| format!("no counter {name}"))?.1.parse()?)
}

/// Waits until the server's kernel has taken so many further subflows into connections.
fn wait_joined(rig: &Rig, server: &str, count: u64) -> Result<()> {
    wait_for("a subflow to join", SOON, || {
        Ok((counter(rig, server, "MPJoinAckRx")? == count).then_some(()))
    })
}

/// Waits until the programs of node a have given a verdict so many times.
fn wait_verdict(rig: &Rig, reason: &str, count: u64) -> Result<()> {
    wait_for(&format!("{count} times {reason}"), SOON, || {
        Ok((rig.agent("a")?.status()?.verdict(reason) >= count).then_some(()))
    })
}

/// Gives a pod a second address, of which the mesh knows nothing.
fn second_address(rig: &Rig, pod: &str, address: &str) -> Result<()> {
    rig.place(pod)?.netns.ip(&format!("addr add {address}/24 dev eth0\n"))
}

/// Writes a PeerAuthentication for the namespace, and waits until it is in force.
fn be_strict(rig: &Rig) -> Result<()> {
    rig.apply(
        "strict",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {name: strict, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n",
    )
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Connects to what the server listens at, and checks what both ends see of each other.
fn both_see_each_other(
    client: &Pod,
    to: SocketAddr,
    options: &ConnectOptions,
    listener: &Listener<'_>,
) -> Result<()> {
    let near: Conn<'_> = client.connect_with(to, options.clone())?;
    let (far, accepted): (Conn<'_>, Accepted) = listener.accept()?;
    let own = canonical(near.socket_name()?);
    for _ in 0..2 {
        assert_eq!(canonical(near.peer_name()?), to, "{options:?} to {to}: whom the client sees");
        assert_eq!(canonical(far.peer_name()?), own, "{options:?} to {to}: whom the server sees");
    }
    assert_eq!(canonical(accepted.peer), own, "{options:?} to {to}: whom accept shows");
    near.send(b"there")?;
    assert_eq!(far.receive(5)?, b"there");
    far.send(b"back")?;
    assert_eq!(near.receive(4)?, b"back");
    near.close()?;
    assert_eq!(far.receive_to_end()?, b"");
    assert_eq!(canonical(far.peer_name()?), own, "after the client has closed");
    Ok(())
}

/// Debian's 5.10 for the cloud, for one, is built without it.
#[test]
fn multipath_tcp_is_had_or_refused_as_without_a_mesh_and_plain_tcp_serves_either_way() -> Result<()>
{
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    let offered = fs::exists("/proc/sys/net/mptcp")?;
    for (pod, service) in [("server", "far"), ("near", "near")] {
        let (server, at) = (rig.pod(pod)?, "[::]:8080".parse()?);
        let (to, to6) = (rig.vip(service, 80)?, rig.vip6(service, 80)?);
        let plain = ConnectOptions::default();
        let listener = if offered {
            server.listen_mptcp(at, Behaviour::Manual)?
        } else {
            let refusal = server.listen_mptcp(at, Behaviour::Manual).unwrap_err().to_string();
            assert!(refusal.contains("Protocol not supported"), "{refusal}");
            let refusal = client.connect_with(to, mptcp()).unwrap_err().to_string();
            assert!(refusal.contains("Protocol not supported"), "{refusal}");
            server.listen(at, Behaviour::Manual)?
        };
        for to in [to, to6] {
            both_see_each_other(&client, to, &plain, &listener)?;
            if offered {
                both_see_each_other(&client, to, &mptcp(), &listener)?;
            }
        }
    }
    Ok(())
}

#[test]
fn clients_and_servers_of_multipath_tcp_see_each_other_on_every_way() -> Result<()> {
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    for (pod, service, way) in [("server", "far", "proxied"), ("near", "near", "local")] {
        let server = rig.pod(pod)?;
        let own = [rig.at(pod, PORT)?, rig.at6(pod, PORT)?];
        let vips = [rig.vip(service, 80)?, rig.vip6(service, 80)?];
        for multipath_server in [true, false] {
            let at = "[::]:8080".parse()?;
            let listener = if multipath_server {
                server.listen_mptcp(at, Behaviour::Manual)?
            } else {
                server.listen(at, Behaviour::Manual)?
            };
            for to in own.into_iter().chain(vips) {
                both_see_each_other(&client, to, &mptcp(), &listener)?;
                if multipath_server {
                    both_see_each_other(&client, to, &ConnectOptions::default(), &listener)?;
                }
                if to.is_ipv4() {
                    let mapped = ConnectOptions { v4_mapped: true, ..mptcp() };
                    both_see_each_other(&client, to, &mapped, &listener)?;
                }
            }
            listener.close()?;
        }
        // Six of Multipath TCP for each of the servers, and four of plain TCP for one of them.
        assert_eq!(rig.agent("a")?.status()?.verdict(way), 16, "{way}");
    }
    // Within the node it is the real thing.
    assert_eq!(counter(&rig, "near", "MPCapableACKRX")?, 6);
    assert_eq!(counter(&rig, "server", "MPCapableACKRX")?, 0);
    Ok(())
}

#[test]
fn a_further_subflow_has_the_identity_of_its_pod_whatever_address_it_comes_from() -> Result<()> {
    let rig = Rig::started()?;
    be_strict(&rig)?;
    second_address(&rig, "client", "10.1.0.201")?;
    rig.place("client")?.netns.ip("mptcp endpoint add 10.1.0.201 dev eth0 subflow\n")?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    near.listen_mptcp("[::]:8080".parse()?, Behaviour::Echo)?;
    let conn = client.connect_with(rig.vip("near", 80)?, mptcp())?;
    assert_eq!(conn.exchange(b"hello")?, b"hello");
    wait_joined(&rig, "near", 1)?;
    assert_eq!(conn.exchange(b"joined")?, b"joined");
    assert_eq!(conn.peer_name()?, rig.vip("near", 80)?);
    let status = rig.agent("a")?.status()?;
    assert_eq!((status.verdict("local"), status.verdict("inbound_local")), (2, 2));
    assert_eq!(status.verdict("strict_plaintext"), 0);
    Ok(())
}

#[test]
fn a_further_subflow_is_no_way_round_policy() -> Result<()> {
    let rig = Rig::started()?;
    second_address(&rig, "outsider", "10.1.0.202")?;
    let (outsider, near) = (rig.pod("outsider")?, rig.pod("near")?);
    near.listen_mptcp("[::]:8080".parse()?, Behaviour::Echo)?;
    let conn = outsider.connect_with(rig.at("near", PORT)?, mptcp())?;
    assert_eq!(conn.exchange(b"plain")?, b"plain");
    assert_eq!(counter(&rig, "near", "MPCapableACKRX")?, 1);
    be_strict(&rig)?;
    // The connection may live; what it opens from now on is asked as anything new.
    rig.place("outsider")?.netns.ip("mptcp endpoint add 10.1.0.202 dev eth0 subflow\n")?;
    wait_verdict(&rig, "strict_plaintext", 1)?;
    assert_eq!(counter(&rig, "near", "MPJoinSynRx")?, 0);
    Ok(())
}

#[test]
fn an_address_that_a_server_announces_is_no_way_round_policy() -> Result<()> {
    let rig = Rig::started()?;
    be_strict(&rig)?;
    second_address(&rig, "near", "10.1.0.203")?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    rig.place("client")?.netns.ip("mptcp limits set subflow 2 add_addr_accepted 2\n")?;
    rig.place("near")?.netns.ip("mptcp endpoint add 10.1.0.203 dev eth0 signal\n")?;
    near.listen_mptcp("[::]:8080".parse()?, Behaviour::Echo)?;
    let conn = client.connect_with(rig.vip("near", 80)?, mptcp())?;
    assert_eq!(conn.exchange(b"hello")?, b"hello");
    // Outside the mesh for the client, plaintext for the server.
    wait_verdict(&rig, "strict_plaintext", 1)?;
    assert_eq!(rig.agent("a")?.status()?.verdict("outside_mesh"), 1);
    assert_eq!(counter(&rig, "near", "MPJoinSynRx")?, 0);
    assert_eq!(conn.exchange(b"goes on")?, b"goes on");
    Ok(())
}
