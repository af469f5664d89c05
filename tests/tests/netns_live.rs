//! Live connections that a changed policy refuses, and those that it leaves alone.

use std::time::Duration;

use anyhow::Result;
use undermesh_tests::{PORT, Rig, pod::protocol::Behaviour, wait_for};

/// Longer than any agent takes to notice a change.
const NOTICED: Duration = Duration::from_secs(10);

fn deny_client(port: u16) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: late, namespace: shop}}\n\
         spec: {{action: DENY, rules: [{{from: [{{source: {{serviceAccounts: [client]}}}}], \
         to: [{{operation: {{ports: ['{port}']}}}}]}}]}}\n"
    )
}

#[test]
fn local_connections_that_a_policy_refuses_now_are_reset_and_others_go_on() -> Result<()> {
    let rig = Rig::started()?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    near.listen("[::]:8081".parse()?, Behaviour::Echo)?;
    let refused = [
        client.connect(rig.vip("near", 80)?)?,
        client.connect(rig.at("near", PORT)?)?,
        client.connect(rig.at6("near", PORT)?)?,
    ];
    let kept = client.connect(rig.at("near", 8081)?)?;
    for conn in refused.iter().chain([&kept]) {
        conn.exchange(b"before")?;
    }
    rig.apply("late", &deny_client(PORT))?;
    for conn in &refused {
        assert_eq!(conn.receive_within(1, NOTICED).unwrap_err().errno, "ECONNRESET");
    }
    assert_eq!(kept.exchange(b"after")?, b"after");
    let log = rig.agent("a")?.access_log();
    let wanted = [("event", "close"), ("reason", "policy_denied_late"), ("transport", "local")];
    let line = log.wait(&wanted)?;
    assert_eq!(
        line.get("detail"),
        "denied by AuthorizationPolicy shop/late, rule[0] from[0] serviceAccounts, to[0] ports"
    );
    assert_eq!(line.get("response_flags"), "UAEX");
    let agent = rig.agent("a")?;
    wait_for("the denials to be counted", NOTICED, || {
        let name = "undermesh_policy_denials_total";
        Ok((agent.metric(name, "policy=\"late\"")? >= 3).then_some(()))
    })
}

#[test]
fn plaintext_ends_when_its_port_becomes_strict_and_not_before() -> Result<()> {
    let rig = Rig::started()?;
    let (outsider, client, near) = (rig.pod("outsider")?, rig.pod("client")?, rig.pod("near")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let plain = outsider.connect(rig.at("near", PORT)?)?;
    let meshed = client.connect(rig.at("near", PORT)?)?;
    plain.exchange(b"before")?;
    meshed.exchange(b"before")?;
    rig.apply("late", &deny_client(9999))?;
    assert_eq!(plain.exchange(b"still")?, b"still", "a policy that refuses nobody closes nothing");
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: all, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    rig.apply("all", strict)?;
    assert_eq!(plain.receive_within(1, NOTICED).unwrap_err().errno, "ECONNRESET");
    assert_eq!(meshed.exchange(b"after")?, b"after", "a connection of the mesh was cut");
    let log = rig.agent("a")?.access_log();
    let line = log.wait(&[("event", "denied"), ("reason", "policy_denied_late")])?;
    assert_eq!(line.get("detail"), "the port takes no plaintext");
    Ok(())
}

#[test]
fn what_a_pod_has_opened_is_not_judged_by_its_own_policy() -> Result<()> {
    let rig = Rig::started()?;
    let (near, outsider, client) = (rig.pod("near")?, rig.pod("outsider")?, rig.pod("client")?);
    outsider.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    client.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let out = near.connect(rig.at("outsider", PORT)?)?;
    let local = near.connect(rig.at("client", PORT)?)?;
    out.exchange(b"before")?;
    local.exchange(b"before")?;
    let nobody = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: nobody, namespace: shop}\n\
                  spec: {selector: {matchLabels: {app: near}}}\n";
    rig.apply("nobody", nobody)?;
    wait_for("the policy to be in force", NOTICED, || {
        Ok(client.connect(rig.at("near", PORT)?).is_err().then_some(()))
    })?;
    for conn in [&out, &local] {
        assert_eq!(conn.exchange(b"after")?, b"after");
    }
    Ok(())
}
