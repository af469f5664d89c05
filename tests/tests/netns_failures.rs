//! What cannot work fails soon, as an application expects it to, and the log says why.

use anyhow::Result;
use undermesh_tests::{PORT, Rig, ServiceSpec, pod::protocol::Behaviour};

const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

#[test]
fn where_nothing_listens_the_client_is_reset_and_both_logs_say_why() -> Result<()> {
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    for to in [rig.vip("far", 80)?, rig.at6("server", PORT)?] {
        let error = client.connect(to).and_then(|conn| conn.receive(1)).unwrap_err().errno;
        assert_eq!(error, "ECONNRESET", "{to}");
    }
    let source = rig.agent("a")?.access_log();
    let denied = source.wait(&[("event", "denied"), ("reason", "destination_unreachable")])?;
    assert_eq!(denied.get("destination.identity"), SERVER);
    assert_eq!(denied.get("dialled"), rig.vip("far", 80)?.to_string());
    let destination = rig.agent("b")?.access_log();
    let denied = destination.wait(&[("event", "denied"), ("reason", "connection_refused")])?;
    assert_eq!(denied.get("destination.address"), rig.at("server", PORT)?.to_string());
    Ok(())
}

#[test]
fn a_neighbour_that_does_not_listen_refuses_as_ever() -> Result<()> {
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    for to in [rig.vip("near", 80)?, rig.at6("near", PORT)?] {
        assert_eq!(client.connect(to).unwrap_err().errno, "ECONNREFUSED", "{to}");
    }
    Ok(())
}

#[test]
fn a_service_without_endpoints_refuses_and_the_log_says_so() -> Result<()> {
    let mut rig = Rig::standard().service(ServiceSpec::new("empty", 80, PORT, &[])).build()?;
    rig.start()?;
    let client = rig.pod("client")?;
    for to in [rig.vip("empty", 80)?, rig.vip6("empty", 80)?] {
        assert_eq!(client.connect(to).unwrap_err().errno, "ECONNREFUSED", "{to}");
        let log = rig.agent("a")?.access_log();
        let denied = log.wait(&[("event", "denied"), ("dialled", &to.to_string())])?;
        assert_eq!(denied.get("reason"), "no_endpoint");
        assert_eq!(denied.get("source.pod"), "client");
    }
    Ok(())
}

#[test]
fn a_server_that_starts_late_is_reached_at_once() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let to = rig.vip("far", 80)?;
    for round in 0..3 {
        assert!(client.connect(to).and_then(|conn| conn.receive(1)).is_err(), "round {round}");
        let listener = server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
        assert_eq!(client.connect(to)?.exchange(b"there")?, b"there", "round {round}");
        listener.close()?;
    }
    Ok(())
}

#[test]
fn a_node_that_cannot_be_reached_costs_a_time_out_and_not_the_client() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.node_mut("a")?.settings.set("connectTimeout", "1s");
    rig.start()?;
    let client = rig.pod("client")?;
    rig.node("b")?.netns.ip("link set wire0 down\n")?;
    let error = client.connect(rig.vip("far", 80)?).and_then(|conn| conn.receive(1));
    assert_eq!(error.unwrap_err().errno, "ECONNRESET");
    let log = rig.agent("a")?.access_log();
    let reason = log.wait(&[("event", "denied")])?.get("reason");
    assert!(["connect_timeout", "unreachable"].contains(&reason.as_str()), "{reason}");
    Ok(())
}

#[test]
fn dialling_the_agents_own_ports_leads_nowhere() -> Result<()> {
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    for to in ["127.0.0.1:15001".parse()?, "[::1]:15001".parse()?, rig.at("server", 15008)?] {
        let answer = client.connect(to).and_then(|conn| {
            conn.send(b"hello")?;
            conn.receive(1)
        });
        let error = answer.unwrap_err().errno;
        assert!(["ECONNRESET", "EPIPE", "EOF"].contains(&error.as_str()), "{to}: {error}");
    }
    let log = rig.agent("a")?.access_log();
    log.wait(&[("event", "denied"), ("reason", "original_dst_unknown")])?;
    let log = rig.agent("b")?.access_log();
    log.wait(&[("event", "denied"), ("reason", "wrong_destination")])?;
    Ok(())
}
