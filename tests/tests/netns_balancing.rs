//! Which of a service's endpoints a client is led to, by the kernel and the proxy together.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Result;
use undermesh_tests::{PORT, PodSpec, Rig, ServiceSpec, pod::protocol::Behaviour};

/// Two endpoints on the client's node and two on the other, each of which says who it is.
fn rig() -> Result<Rig> {
    let names = ["here1", "here2", "there1", "there2"];
    let mut rig = Rig::builder()
        .node("a", ["client", "client2", "here1", "here2"].map(PodSpec::new))
        .node("b", ["there1", "there2"].map(PodSpec::new))
        .service(ServiceSpec::new("all", 80, PORT, &names))
        .build()?;
    rig.start()?;
    Ok(rig)
}

/// Adds a line to the service's spec, and says on which node each endpoint runs.
fn edit(rig: &Rig, line: &str) -> Result<()> {
    let name = "service-all";
    let text = fs::read_to_string(rig.manifests.path(name))?;
    let mut text = text.replacen("spec:\n", &format!("spec:\n  {line}\n"), 1);
    for (pod, node) in [("here1", "a"), ("here2", "a"), ("there1", "b"), ("there2", "b")] {
        for address in [rig.at(pod, 0)?.ip(), rig.at6(pod, 0)?.ip()] {
            let endpoint = format!("- addresses:\n  - \"{address}\"\n");
            assert!(text.contains(&endpoint), "{text}");
            text = text.replace(&endpoint, &format!("{endpoint}  nodeName: {node}\n"));
        }
    }
    rig.manifests.write(name, &text)?;
    for node in ["a", "b"] {
        rig.agent(node)?.wait_status("the edit", Duration::from_secs(10), |status| {
            status.agent.generation == 2
        })?;
    }
    Ok(())
}

/// How many of a client's connections each endpoint has answered.
fn answers(rig: &Rig, client: &str, count: usize) -> Result<BTreeMap<String, usize>> {
    let mut pods = BTreeMap::new();
    for name in ["here1", "here2", "there1", "there2"] {
        let pod = rig.pod(name)?;
        let at = rig.at(name, PORT)?;
        pods.insert(name, (pod, at));
    }
    let mut counts = BTreeMap::new();
    let mut listeners = Vec::new();
    for (name, (pod, at)) in &pods {
        listeners.push((*name, pod.listen(*at, Behaviour::Echo)?));
    }
    let client = rig.pod(client)?;
    for _ in 0..count {
        let conn = client.connect(rig.vip("all", 80)?)?;
        assert_eq!(conn.exchange(b"x")?, b"x");
        conn.close()?;
    }
    for (name, listener) in &listeners {
        let served = listener.accepted()?.len();
        if served > 0 {
            counts.insert((*name).to_owned(), served);
        }
    }
    Ok(counts)
}

#[test]
fn a_local_policy_keeps_connections_on_their_node() -> Result<()> {
    let rig = rig()?;
    edit(&rig, "internalTrafficPolicy: Local")?;
    let counts = answers(&rig, "client", 60)?;
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["here1", "here2"], "{counts:?}");
    Ok(())
}

#[test]
fn the_same_node_is_preferred_and_others_are_used_when_it_has_none() -> Result<()> {
    let rig = rig()?;
    edit(&rig, "trafficDistribution: PreferSameNode")?;
    let counts = answers(&rig, "client", 60)?;
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["here1", "here2"], "{counts:?}");
    let name = "service-all";
    let text = fs::read_to_string(rig.manifests.path(name))?;
    let here = "nodeName: a\n  conditions:\n    ready: true";
    assert!(text.contains(here), "{text}");
    rig.manifests
        .write(name, &text.replace(here, "nodeName: a\n  conditions:\n    ready: false"))?;
    rig.agent("a")?
        .wait_status("the edit", Duration::from_secs(10), |status| status.agent.generation == 3)?;
    let counts = answers(&rig, "client", 60)?;
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["there1", "there2"], "{counts:?}");
    Ok(())
}

#[test]
fn a_heavier_endpoint_gets_more_on_its_own_node_and_on_another() -> Result<()> {
    let rig = rig()?;
    for pod in ["here1", "there1"] {
        let name = format!("pod-{pod}");
        let text = fs::read_to_string(rig.manifests.path(&name))?;
        let annotation = "  annotations:\n    undermesh.io/weight: '9'";
        rig.manifests.write(&name, &text.replace("  annotations:", annotation))?;
    }
    for node in ["a", "b"] {
        rig.agent(node)?.wait_status("the weights", Duration::from_secs(10), |status| {
            status.entries("BACKENDS") == 40
        })?;
    }
    let counts = answers(&rig, "client", 400)?;
    let of = |pod: &str| counts.get(pod).copied().unwrap_or_default();
    // Of 400, 180 each are expected for the heavy and 20 for the light.
    for (heavy, light) in [("here1", "here2"), ("there1", "there2")] {
        assert!(of(heavy) > 130 && of(light) < 60 && of(light) > 0, "{counts:?}");
    }
    Ok(())
}

#[test]
fn with_affinity_a_client_keeps_its_endpoint_wherever_that_is() -> Result<()> {
    let rig = rig()?;
    let spread = answers(&rig, "client", 80)?;
    assert_eq!(spread.len(), 4, "{spread:?}");
    edit(&rig, "sessionAffinity: ClientIP")?;
    for client in ["client", "client2", "there1"] {
        let counts = answers(&rig, client, 20)?;
        assert_eq!(counts.len(), 1, "{client} was sent to {counts:?}");
    }
    Ok(())
}
