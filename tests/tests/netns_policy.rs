//! Who may connect: policies in the kernel, for pods of one node, and in the proxy, for the others.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use undermesh_tests::{
    PORT, Rig,
    pod::{Pod, protocol::Behaviour},
    wait_for,
};

/// Longer than any agent takes to notice a change.
const NOTICED: Duration = Duration::from_secs(10);

/// Writes an AuthorizationPolicy of the namespace `shop`.
fn authorize(rig: &Rig, name: &str, spec: &str) -> Result<()> {
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    );
    rig.apply(name, &yaml)
}

/// Writes a PeerAuthentication of the namespace `shop`.
fn authenticate(rig: &Rig, name: &str, spec: &str) -> Result<()> {
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    );
    rig.apply(name, &yaml)
}

/// What becomes of a connection: bytes come back, or an error says why not.
fn outcome(pod: &Pod, to: std::net::SocketAddr) -> String {
    match pod.connect(to).and_then(|conn| conn.exchange(b"hello")) {
        Ok(echo) if echo == b"hello" => "passes".to_owned(),
        Ok(other) => format!("answers {other:?}"),
        Err(failure) => failure.errno,
    }
}

/// Refused by the kernel before anything is established, or reset by the proxy.
fn denied(pod: &Pod, to: std::net::SocketAddr) -> bool {
    ["ECONNREFUSED", "ECONNRESET", "EPIPE"].contains(&outcome(pod, to).as_str())
}

#[test]
fn a_denied_service_account_is_refused_on_its_own_node_and_on_another() -> Result<()> {
    let rig = Rig::started()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    let at_near = near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let at_server = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    authorize(
        &rig,
        "no-client",
        "{action: DENY, rules: [{from: [{source: {serviceAccounts: [client]}}]}]}",
    )?;
    let detail = "denied by AuthorizationPolicy shop/no-client, rule[0] from[0] serviceAccounts";
    for to in [rig.vip("near", 80)?, rig.at("near", PORT)?, rig.at6("near", PORT)?] {
        assert_eq!(outcome(&client, to), "ECONNREFUSED", "{to}");
    }
    let log = rig.agent("a")?.access_log();
    let line = log.wait(&[("event", "denied"), ("reason", "policy_denied")])?;
    assert_eq!(line.get("source.identity"), "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!(line.get("detail"), detail);
    for to in [rig.vip("far", 80)?, rig.at("server", PORT)?, rig.at6("server", PORT)?] {
        assert!(denied(&client, to), "{to}");
        assert_eq!(outcome(&near, to), "passes", "{to}");
    }
    let log = rig.agent("b")?.access_log();
    let line = log.wait(&[("event", "denied"), ("reason", "policy_denied")])?;
    assert_eq!(line.get("detail"), detail);
    let log = rig.agent("a")?.access_log();
    log.wait(&[("event", "denied"), ("reason", "destination_denied")])?;
    assert_eq!(at_near.accepted()?, []);
    assert_eq!(at_server.accepted()?.len(), 3, "near's three, and none of client's");
    for node in ["a", "b"] {
        let agent = rig.agent(node)?;
        wait_for("three denials to be counted", NOTICED, || {
            let name = "undermesh_policy_denials_total";
            Ok((agent.metric(name, "policy=\"no-client\"")? == 3).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn only_those_that_are_allowed_pass_and_plaintext_is_nobody() -> Result<()> {
    let rig = Rig::started()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    let (outsider, stranger) = (rig.pod("outsider")?, rig.pod("stranger")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for unmeshed in [&outsider, &stranger] {
        assert_eq!(outcome(unmeshed, rig.at("near", PORT)?), "passes");
        assert_eq!(outcome(unmeshed, rig.at("server", PORT)?), "passes");
    }
    authorize(
        &rig,
        "only-client",
        "{rules: [{from: [{source: {principals: ['*/ns/shop/sa/client']}}]}]}",
    )?;
    for to in [rig.vip("near", 80)?, rig.vip("far", 80)?, rig.at6("near", PORT)?] {
        assert_eq!(outcome(&client, to), "passes", "{to}");
    }
    assert!(denied(&near, rig.vip("far", 80)?));
    for unmeshed in [&outsider, &stranger] {
        assert_eq!(outcome(unmeshed, rig.at("near", PORT)?), "ECONNREFUSED");
        assert_eq!(outcome(unmeshed, rig.at6("server", PORT)?), "ECONNREFUSED");
    }
    let log = rig.agent("b")?.access_log();
    let line = log.wait(&[("reason", "policy_denied"), ("transport", "plain")])?;
    assert_eq!(
        line.get("detail"),
        "not allowed by AuthorizationPolicy shop/only-client, rule[0] from[0] principals"
    );

    authorize(&rig, "only-client", "{}")?;
    assert_eq!(outcome(&client, rig.vip("near", 80)?), "ECONNREFUSED", "an empty ALLOW");
    assert!(denied(&client, rig.vip("far", 80)?), "an empty ALLOW");
    rig.manifests.remove("only-client")?;
    wait_for("the policy to be gone", NOTICED, || {
        let all = outcome(&client, rig.vip("near", 80)?) + &outcome(&client, rig.vip("far", 80)?);
        Ok((all == "passespasses").then_some(()))
    })
}

#[test]
fn rules_about_ports_and_addresses_hold_on_both_paths() -> Result<()> {
    let rig = Rig::started()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    let outsider = rig.pod("outsider")?;
    for pod in [&near, &server] {
        pod.listen("[::]:8080".parse()?, Behaviour::Echo)?;
        pod.listen("[::]:8081".parse()?, Behaviour::Echo)?;
    }
    authorize(&rig, "port", "{action: DENY, rules: [{to: [{operation: {ports: ['8081']}}]}]}")?;
    for pod in ["near", "server"] {
        assert_eq!(outcome(&client, rig.at(pod, PORT)?), "passes");
        assert!(denied(&client, rig.at(pod, 8081)?));
        assert_eq!(outcome(&outsider, rig.at(pod, PORT)?), "passes");
        assert_eq!(outcome(&outsider, rig.at(pod, 8081)?), "ECONNREFUSED");
    }
    let own = rig.at("client", 0)?.ip();
    authorize(
        &rig,
        "port",
        &format!("{{rules: [{{from: [{{source: {{ipBlocks: ['{own}']}}}}]}}]}}"),
    )?;
    for pod in ["near", "server"] {
        assert_eq!(outcome(&client, rig.at(pod, PORT)?), "passes");
        assert!(denied(&client, rig.at6(pod, PORT)?), "another address of the client");
        assert!(denied(&outsider, rig.at(pod, PORT)?));
    }
    assert!(denied(&near, rig.at("server", PORT)?));
    Ok(())
}

#[test]
fn a_port_can_be_strict_while_the_others_are_not() -> Result<()> {
    let rig = Rig::started()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    let outsider = rig.pod("outsider")?;
    for pod in [&near, &server] {
        pod.listen("[::]:8080".parse()?, Behaviour::Echo)?;
        pod.listen("[::]:8081".parse()?, Behaviour::Echo)?;
    }
    for pod in ["near", "server"] {
        authenticate(
            &rig,
            pod,
            &format!(
                "{{selector: {{matchLabels: {{app: {pod}}}}}, mtls: {{mode: PERMISSIVE}}, \
                 portLevelMtls: {{8081: {{mode: STRICT}}}}}}"
            ),
        )?;
        assert_eq!(outcome(&outsider, rig.at(pod, PORT)?), "passes");
        assert_eq!(outcome(&outsider, rig.at(pod, 8081)?), "ECONNREFUSED");
        for port in [PORT, 8081] {
            assert_eq!(outcome(&client, rig.at(pod, port)?), "passes");
        }
    }
    for node in ["a", "b"] {
        let log = rig.agent(node)?.access_log();
        log.wait(&[("event", "denied"), ("reason", "strict_plaintext")])?;
    }
    authenticate(&rig, "all", "{mtls: {mode: STRICT}}")?;
    assert_eq!(outcome(&outsider, rig.at("near", PORT)?), "passes", "the workload's mode wins");
    let unguarded = rig.pod("client")?;
    unguarded.listen("[::]:9000".parse()?, Behaviour::Echo)?;
    assert_eq!(outcome(&outsider, rig.at("client", 9000)?), "ECONNREFUSED");
    Ok(())
}

#[test]
fn a_workload_without_mutual_tls_is_dialled_in_plaintext() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let spec = "{selector: {matchLabels: {app: server}}, mtls: {mode: DISABLE}}";
    authenticate(&rig, "plain", spec)?;
    let capture = rig.capture()?;
    let before = rig.agent("a")?.status()?.verdict("outside_mesh");
    for (to, word) in [(rig.at("server", PORT)?, "by-address"), (rig.vip("far", 80)?, "by-name")] {
        let conn = client.connect(to)?;
        assert_eq!(conn.exchange(word.as_bytes())?, word.as_bytes());
        capture.wait_for(word.as_bytes())?;
    }
    assert_eq!(rig.agent("a")?.status()?.verdict("outside_mesh"), before + 1);
    assert_eq!(listener.accepted()?.len(), 2);
    Ok(())
}

#[test]
fn a_policy_is_in_force_within_a_second_and_closes_what_it_refuses() -> Result<()> {
    let rig = Rig::started()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let refused = client.connect(rig.vip("far", 80)?)?;
    let kept = near.connect(rig.vip("far", 80)?)?;
    refused.exchange(b"before")?;
    kept.exchange(b"before")?;
    let yaml = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
        metadata: {name: late, namespace: shop}\n\
        spec: {action: DENY, rules: [{from: [{source: {serviceAccounts: [shop/client]}}]}]}\n";
    let written = Instant::now();
    rig.manifests.write("late", yaml)?;
    let errno = refused.receive_within(1, NOTICED).unwrap_err().errno;
    let closed_after = written.elapsed();
    assert_eq!(errno, "ECONNRESET");
    wait_for("the kernel's path to refuse", NOTICED, || {
        let outcome = outcome(&client, rig.vip("near", 80)?);
        Ok((outcome == "ECONNREFUSED").then_some(()))
    })?;
    let refused_after = written.elapsed();
    println!("closed after {closed_after:?}, refused after {refused_after:?}");
    ensure!(closed_after < Duration::from_secs(1), "closed after {closed_after:?}");
    ensure!(refused_after < Duration::from_secs(1), "refused after {refused_after:?}");
    assert_eq!(kept.exchange(b"after")?, b"after", "a connection that is still allowed was cut");
    let log = rig.agent("b")?.access_log();
    let line = log.wait(&[("event", "close"), ("reason", "policy_denied_late")])?;
    assert_eq!(
        line.get("detail"),
        "denied by AuthorizationPolicy shop/late, rule[0] from[0] serviceAccounts"
    );
    Ok(())
}

#[test]
fn a_dry_run_is_counted_and_refuses_nothing() -> Result<()> {
    let rig = Rig::started()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let yaml = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
        metadata: {name: dry, namespace: shop, annotations: {istio.io/dry-run: 'true'}}\n\
        spec: {action: DENY, rules: [{}]}\n";
    rig.apply("dry", yaml)?;
    assert_eq!(outcome(&client, rig.vip("far", 80)?), "passes");
    assert_eq!(outcome(&client, rig.vip("near", 80)?), "passes");
    for node in ["a", "b"] {
        let agent = rig.agent(node)?;
        wait_for("the finding to be counted", NOTICED, || {
            let name = "undermesh_policy_findings_total";
            Ok((agent.metric(name, "finding=\"would_deny\"")? == 1).then_some(()))
        })?;
    }
    Ok(())
}
