//! Between pods of one node, the kernel carries the connection and no proxy stands in between.

use std::time::Duration;

use anyhow::Result;
use undermesh_tests::{PORT, Placement, Rig, pod::protocol::Behaviour, wait_for};

const SOON: Duration = Duration::from_secs(10);
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const NEAR: &str = "spiffe://cluster.local/ns/shop/sa/near";

fn started(mtls: &str) -> Result<Rig> {
    let mut rig = Rig::standard().build()?;
    rig.node_mut("a")?.settings.set("mtls", mtls);
    rig.start()?;
    Ok(rig)
}

#[test]
fn a_pod_of_the_same_node_is_reached_without_the_proxy() -> Result<()> {
    let rig = started("PERMISSIVE")?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    let listener = near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let dialled = [
        rig.vip("near", 80)?,
        rig.vip6("near", 80)?,
        rig.at("near", PORT)?,
        rig.at6("near", PORT)?,
    ];
    let before = rig.agent("a")?.status()?;
    for to in dialled {
        let conn = client.connect(to)?;
        assert_eq!(conn.exchange(b"neighbour")?, b"neighbour", "{to}");
        assert_eq!(conn.peer_name()?, to, "the client sees the backend instead of {to}");
        let accepted = listener.accepted()?;
        let peer = accepted.last().map(|one| (one.peer.ip().to_canonical(), one.peer.port()));
        let own = conn.socket_name()?;
        assert_eq!(peer, Some((own.ip(), own.port())), "the server does not see the client");
    }
    let after = rig.agent("a")?.status()?;
    for (reason, rise) in [("local", 4), ("inbound_local", 4), ("proxied", 0)] {
        assert_eq!(after.verdict(reason), before.verdict(reason) + rise, "{reason}");
    }
    Ok(())
}

#[test]
fn a_local_connection_is_logged_with_both_identities() -> Result<()> {
    let rig = started("PERMISSIVE")?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    near.listen(rig.at("near", PORT)?, Behaviour::Echo)?;
    let conn = client.connect(rig.vip("near", 80)?)?;
    conn.exchange(b"neighbour")?;
    let line = rig.agent("a")?.access_log().wait(&[("event", "open"), ("transport", "local")])?;
    assert_eq!(line.get("source.identity"), CLIENT);
    assert_eq!(line.get("destination.identity"), NEAR);
    assert_eq!(line.get("dialled"), rig.vip("near", 80)?.to_string());
    assert_eq!(line.get("destination.address"), rig.at("near", PORT)?.to_string());
    assert_eq!(line.get("source.address"), conn.socket_name()?.to_string());
    Ok(())
}

#[test]
fn a_strict_pod_takes_its_meshed_neighbour_and_refuses_the_unmeshed_one() -> Result<()> {
    let rig = started("STRICT")?;
    let (client, outsider) = (rig.pod("client")?, rig.pod("outsider")?);
    let near = rig.pod("near")?;
    let listener = near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for to in [rig.vip("near", 80)?, rig.at("near", PORT)?, rig.at6("near", PORT)?] {
        assert_eq!(client.connect(to)?.exchange(b"neighbour")?, b"neighbour", "{to}");
    }
    let served = listener.accepted()?.len();
    for to in [rig.at("near", PORT)?, rig.at6("near", PORT)?] {
        assert_eq!(outsider.connect(to).unwrap_err().errno, "ECONNREFUSED", "{to}");
    }
    assert_eq!(listener.accepted()?.len(), served);
    let log = rig.agent("a")?.access_log();
    let denied = log.wait(&[("event", "denied"), ("reason", "strict_plaintext")])?;
    assert_eq!(denied.get("destination.identity"), NEAR);
    Ok(())
}

#[test]
fn local_connections_do_not_need_the_agent_to_be_alive() -> Result<()> {
    let mut rig = started("STRICT")?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    near.listen(rig.at("near", PORT)?, Behaviour::Echo)?;
    let held = client.connect(rig.vip("near", 80)?)?;
    held.exchange(b"before")?;
    rig.take_agent("a")?.kill()?;
    assert_eq!(held.exchange(b"after")?, b"after");
    assert_eq!(client.connect(rig.vip("near", 80)?)?.exchange(b"new")?, b"new");
    let outsider = rig.pod("outsider")?;
    let refused = outsider.connect(rig.at("near", PORT)?);
    assert_eq!(refused.unwrap_err().errno, "ECONNREFUSED");
    Ok(())
}

#[test]
fn a_strict_pod_has_no_address_that_lets_plaintext_in() -> Result<()> {
    let rig = started("STRICT")?;
    let (outsider, near) = (rig.pod("outsider")?, rig.pod("near")?);
    let place = rig.place("near")?;
    // Addresses that no manifest knows: one given later, and the link-local one that the kernel
    // has made from the interface's hardware address.
    place.netns.ip("addr add 10.1.0.200/24 dev eth0\naddr add fd00:1::200/64 dev eth0 nodad\n")?;
    let link_local = "[fe80::ff:fe00:10b%2]:8080";
    let listener = near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for to in ["10.1.0.200:8080", "[fd00:1::200]:8080", link_local] {
        let refused = outsider.connect(to.parse()?);
        assert_eq!(refused.unwrap_err().errno, "ECONNREFUSED", "{to}");
    }
    assert_eq!(listener.accepted()?, []);
    // They lead to the pod: once it has left the mesh, all of them answer.
    rig.set_placement("near", Placement::Listed)?;
    let agent = rig.agent("a")?;
    agent.wait_status("near to leave", SOON, |status| !status.is_enrolled("near"))?;
    for to in ["10.1.0.200:8080", "[fd00:1::200]:8080", link_local] {
        let to = to.parse()?;
        wait_for("plaintext to be let in", SOON, || Ok(outsider.connect(to).ok().map(drop)))?;
    }
    Ok(())
}
