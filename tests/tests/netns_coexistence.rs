//! Other programs at the same cgroups.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use undermesh_tests::{Agent, PORT, Rig, pod::protocol::Behaviour};

fn bpftool(args: &[&str]) -> Result<()> {
    let output = Command::new("bpftool").args(args).output().context("cannot run bpftool")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bpftool {args:?}: {complaint}");
    Ok(())
}

/// The id of a loaded connect4 program, to be attached elsewhere as if it were somebody else's.
fn foreign_program(rig: &Rig) -> Result<String> {
    let programs = rig.agent("a")?.status()?.programs;
    let connect = programs.iter().find(|program| program.hook == "cgroup/connect4");
    Ok(connect.context("no connect4 program")?.program_id.to_string())
}

#[test]
fn a_program_that_tolerates_no_other_is_named_with_its_cgroup() -> Result<()> {
    let mut rig = Rig::started()?;
    let id = foreign_program(&rig)?;
    rig.take_agent("b")?.kill()?;
    let node = rig.node("b")?.cgroup.clone();
    let pins = rig.node("b")?.settings.get("pinDir").context("no pinDir")?.to_owned();
    undermesh_tests::undermesh(["cleanup", "--pin-dir", &pins])?;
    let parent = node.display().to_string();
    bpftool(&["cgroup", "attach", &parent, "connect4", "id", &id])?;

    let mut agent = Agent::start(rig.node("b")?)?;
    let ended = agent.wait_end(std::time::Duration::from_secs(20))?;
    assert!(!ended.success());
    let log = agent.log();
    for part in [
        "cannot attach undermesh_connect4",
        &format!("program {id} (undermesh_conne"),
        &format!("is attached to cgroup {parent} without BPF_F_ALLOW_MULTI"),
    ] {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
    bpftool(&["cgroup", "detach", &parent, "connect4", "id", &id])?;
    rig.start_agents()
}

#[test]
fn programs_that_tolerate_others_are_no_obstacle_above_nor_beside() -> Result<()> {
    let mut rig = Rig::started()?;
    let id = foreign_program(&rig)?;
    rig.take_agent("b")?.kill()?;
    let node = rig.node("b")?.cgroup.clone();
    for cgroup in [node.clone(), node.join("pods")] {
        let cgroup = cgroup.display().to_string();
        bpftool(&["cgroup", "attach", &cgroup, "connect4", "id", &id, "multi"])?;
    }
    rig.start_agents()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"hello")?, b"hello");
    for cgroup in [node.clone(), node.join("pods")] {
        let cgroup = cgroup.display().to_string();
        bpftool(&["cgroup", "detach", &cgroup, "connect4", "id", &id])?;
    }
    Ok(())
}
