//! Settings that change where a connection goes.

use std::{fs, time::Duration};

use anyhow::Result;
use undermesh_tests::{PORT, Rig, pod::protocol::Behaviour};

#[test]
fn neighbours_are_encrypted_where_the_node_says_so() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.node_mut("a")?.settings.set("sameNode", "encrypt");
    rig.node_mut("a")?.settings.set("mtls", "STRICT");
    rig.start()?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for to in [rig.vip("near", 80)?, rig.at("near", PORT)?, rig.at6("near", PORT)?] {
        assert_eq!(client.connect(to)?.exchange(b"hello")?, b"hello", "{to}");
    }
    let agent = rig.agent("a")?;
    for reporter in ["source", "destination"] {
        let wanted = [("event", "open"), ("transport", "native"), ("reporter", reporter)];
        let line = agent.access_log().wait(&wanted)?;
        assert_eq!(line.get("security"), "mutual_tls");
        assert_eq!(line.get("destination.pod"), "near");
    }
    let verdicts = agent.status()?.verdicts;
    assert_eq!(verdicts.get("local"), None, "{verdicts:?}");
    assert_eq!(verdicts.get("proxied"), Some(&3), "{verdicts:?}");
    Ok(())
}

#[test]
fn one_pod_may_fail_open_where_the_others_fail_closed() -> Result<()> {
    let mut rig = Rig::started()?;
    let name = "pod-client";
    let text = fs::read_to_string(rig.manifests.path(name))?;
    let annotation = "  annotations:\n    undermesh.io/outbound-failure: open";
    rig.manifests.write(name, &text.replace("  annotations:", annotation))?;
    let agent = rig.agent("a")?;
    agent.wait_status("the pod to be enrolled anew", Duration::from_secs(10), |status| {
        status.agent.generation == 2 && status.is_enrolled("client")
    })?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let to = rig.at("server", PORT)?;
    assert_eq!(client.connect(to)?.exchange(b"through")?, b"through");
    rig.take_agent("a")?.kill()?;
    assert_eq!(client.connect(to)?.exchange(b"direct!")?, b"direct!");
    assert_eq!(near.connect(to).unwrap_err().errno, "ECONNREFUSED");
    Ok(())
}
