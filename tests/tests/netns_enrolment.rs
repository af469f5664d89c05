//! How the agent finds pods, and what it says of those that it cannot enrol.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use undermesh_tests::{PORT, Rig, pod::protocol::Behaviour};

/// Makes the manifest of a pod say that it runs in a cgroup.
fn locate_by_cgroup(rig: &Rig, pod: &str, cgroup: &Path) -> Result<()> {
    let name = format!("pod-{pod}");
    let text = fs::read_to_string(rig.manifests.path(&name))?;
    let netns = format!("undermesh.io/netns: {}", rig.place(pod)?.netns.path().display());
    assert!(text.contains(&netns), "{text}");
    let cgroup = format!("undermesh.io/cgroup: {}", cgroup.display());
    rig.manifests.write(&name, &text.replace(&netns, &cgroup))
}

#[test]
fn a_pod_is_found_by_the_processes_of_its_cgroup() -> Result<()> {
    let rig = Rig::started()?;
    let cgroup = rig.place("server")?.cgroup.clone();
    locate_by_cgroup(&rig, "server", &cgroup)?;
    let agent = rig.agent("b")?;
    let pending =
        agent.wait_status("the pod to be pending", Duration::from_secs(10), |status| {
            status.pods.iter().any(|pod| pod.name == "server" && pod.state == "pending")
        })?;
    let server = pending.pods.iter().find(|pod| pod.name == "server");
    let detail = server.map(|pod| pod.detail.clone()).unwrap_or_default();
    assert!(detail.contains("has no process yet"), "{detail}");
    assert_eq!(agent.readiness()?.0, 503);

    let server = rig.pod("server")?;
    agent.wait_enrolled("server")?;
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let client = rig.pod("client")?;
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"hello")?, b"hello");
    let log = agent.access_log();
    log.wait(&[("event", "open"), ("transport", "native"), ("destination.pod", "server")])?;
    Ok(())
}

#[test]
fn a_cgroup_in_the_hosts_own_namespace_cannot_be_enrolled_and_is_named() -> Result<()> {
    let rig = Rig::started()?;
    let host = rig.node("b")?.cgroup.join("agent");
    locate_by_cgroup(&rig, "server", &host)?;
    let status = rig.agent("b")?.wait_status(
        "the pod to be pending",
        Duration::from_secs(10),
        |status| status.pods.iter().any(|pod| pod.name == "server" && pod.state == "pending"),
    )?;
    let details: Vec<&str> = status.pods.iter().map(|pod| pod.detail.as_str()).collect();
    assert!(details[0].contains("hostNetwork pods cannot be enrolled"), "{details:?}");
    Ok(())
}

#[test]
fn a_namespace_that_is_not_there_is_named_and_taken_when_it_is() -> Result<()> {
    let rig = Rig::started()?;
    let place = rig.place("server")?;
    let real = place.netns.path().display().to_string();
    let name = "pod-server";
    let text = fs::read_to_string(rig.manifests.path(name))?;
    rig.manifests.write(name, &text.replace(&real, "/run/netns/um-no-such-place"))?;
    let agent = rig.agent("b")?;
    let status = agent.wait_status("the pod to be pending", Duration::from_secs(10), |status| {
        status.pods.iter().any(|pod| pod.detail.contains("um-no-such-place"))
    })?;
    assert!(!status.agent.ready);
    assert!(status.agent.not_ready[0].contains("shop/server"), "{:?}", status.agent.not_ready);
    rig.manifests.write(name, &text)?;
    agent.wait_enrolled("server")
}

#[test]
fn the_programs_write_into_the_agents_log_when_they_are_asked_to() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    for (key, value) in [("kernelLog", "true"), ("logLevel", "info,undermesh_ebpf=debug")] {
        rig.node_mut("a")?.settings.set(key, value);
    }
    rig.start()?;
    let client = rig.pod("client")?;
    // Nobody listens; what counts is that the kernel reports the connection.
    let error = client.connect(rig.vip("near", 80)?).unwrap_err();
    assert_eq!(error.errno, "ECONNREFUSED");
    let agent = rig.agent("a")?;
    undermesh_tests::wait_for("a line of the programs", Duration::from_secs(10), || {
        Ok(agent.log().contains("undermesh_ebpf").then_some(()))
    })
}
