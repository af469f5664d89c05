//! An agent replaced by one whose maps have another layout: two sets of programs and maps, side by
//! side for a moment, and nobody notices.
//!
//! What tells two versions apart is the name of the directory below which they pin. Renaming it under
//! a running agent leaves that agent, its programs and its maps as those of a former version would be:
//! its successor shares nothing with it but the programs' order in the kernel.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use undermesh_tests::{
    Agent, Conn, PORT, Pod, PodSpec, Rig, ServiceSpec,
    pod::protocol::{Behaviour, Burst},
    wait_for,
};

const SOON: Duration = Duration::from_secs(10);

fn rig(mtls: &str) -> Result<Rig> {
    let speaking = |name: &str, wire| PodSpec::new(name).annotated("wire", wire);
    let mut rig = Rig::builder()
        .node("a", [PodSpec::new("client"), PodSpec::new("near")])
        .node("b", [speaking("server", "native"), speaking("elder", "hbone")])
        .service(ServiceSpec::new("near", 80, PORT, &["near"]))
        .service(ServiceSpec::new("far", 80, PORT, &["server"]))
        .service(ServiceSpec::new("elder", 80, PORT, &["elder"]))
        .build()?;
    for node in ["a", "b"] {
        rig.node_mut(node)?.settings.set("mtls", mtls);
    }
    Ok(rig)
}

/// Names of the directories in which the agents of a node have pinned things.
fn versions(rig: &Rig, node: &str) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(rig.footprint().bpffs().join(node))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with('v')).collect())
}

/// Makes the agent that runs on a node one of a former version.
fn make_former(rig: &Rig, node: &str) -> Result<()> {
    let own = versions(rig, node)?;
    ensure!(own.len() == 1, "{own:?}");
    let version = own.first().context("nothing is pinned")?;
    let number: u32 = version.trim_start_matches('v').parse()?;
    let pins = rig.footprint().bpffs().join(node);
    Ok(fs::rename(pins.join(version), pins.join(format!("v{}", number - 1)))?)
}

/// Starts another agent on a node beside the one that runs, and waits until it is in charge.
fn replace(rig: &mut Rig, node: &str) -> Result<Agent> {
    let new = Agent::start(rig.node(node)?)?;
    new.wait_in_charge()?;
    let old = rig.take_agent(node)?;
    rig.node_mut(node)?.agent = Some(new);
    Ok(old)
}

/// How many of our programs are attached to a node's cgroup, and to the namespaces of its pods.
fn attached(rig: &Rig, node: &str) -> Result<(usize, usize)> {
    let output = Command::new("bpftool").args(["--json", "link", "list"]).output()?;
    let links: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let inode = |path: &Path| anyhow::Ok(fs::metadata(path)?.ino());
    let cgroup: PathBuf = rig.node(node)?.settings.get("cgroup").unwrap_or_default().into();
    let cgroup = inode(&cgroup)?;
    let pods = ["client", "near", "server", "elder"].into_iter().map(|pod| rig.place(pod));
    let pods: Vec<_> = pods.collect::<Result<_>>()?;
    let namespaces: BTreeSet<u64> = pods
        .iter()
        .filter(|place| place.node == node)
        .map(|place| inode(&place.netns.path()))
        .collect::<Result<_>>()?;
    let number = |link: &Value, field: &str| link.get(field).and_then(Value::as_u64);
    let at_cgroup = links.iter().filter(|link| number(link, "cgroup_id") == Some(cgroup));
    let at_pods = links
        .iter()
        .filter(|link| number(link, "netns_ino").is_some_and(|ino| namespaces.contains(&ino)));
    Ok((at_cgroup.count(), at_pods.count()))
}

fn talk(connections: &[Conn<'_>], word: &[u8]) -> Result<()> {
    for connection in connections {
        assert_eq!(connection.exchange(word)?, word);
    }
    Ok(())
}

fn hold<'a>(pod: &'a Pod, to: &[SocketAddr], count: usize) -> Result<Vec<Conn<'a>>> {
    to.iter().cycle().take(count).map(|to| Ok(pod.connect(*to)?)).collect()
}

/// Replaces the agents of both nodes by such with other maps, under load, and looks at everything.
fn upgrade(mut rig: Rig) -> Result<()> {
    let servers = ["near", "server", "elder"];
    let servers = servers.iter().map(|name| rig.pod(name)).collect::<Result<Vec<_>>>()?;
    for server in &servers {
        server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    }
    let to = ["near", "far", "elder"].iter().map(|service| rig.vip(service, 80));
    let mut to = to.collect::<Result<Vec<_>>>()?;
    to.push(rig.at("near", PORT)?);
    let client = rig.pod("client")?;
    let locals = hold(&client, &[to[0], to[3]], 20)?;
    let proxied = hold(&client, &to[1..3], 20)?;
    let newcomer = rig.pod("client")?;
    let before = [attached(&rig, "a")?, attached(&rig, "b")?];
    let (stop, bursts) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut replaced = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let to = to.clone();
                let burst = Burst { to, count: 40, threads: 8, payload: 64, expect: None };
                let report = newcomer.burst(burst)?;
                assert_eq!(report.ok, 40, "a new connection failed: {}", report.describe());
                bursts.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let result = ["a", "b", "a"].into_iter().try_for_each(|node| {
            make_former(&rig, node)?;
            replaced.push(replace(&mut rig, node)?);
            wait_for("the former version's pins to go", SOON, || {
                Ok((versions(&rig, node)?.len() == 1).then_some(()))
            })?;
            talk(&locals, b"local")?;
            talk(&proxied, b"proxied")
        });
        stop.store(true, Ordering::Relaxed);
        let load = load.join();
        result?;
        assert!(matches!(load, Ok(Ok(()))), "{load:?}");
        Ok(())
    })?;
    assert!(bursts.load(Ordering::Relaxed) >= 3, "there was no load to speak of");
    for (node, before) in ["a", "b"].into_iter().zip(before) {
        assert_eq!(attached(&rig, node)?, before, "node {node}: former programs are attached");
        let log = rig.agent(node)?.log();
        assert!(log.contains("removed the programs of another version"), "{log}");
        let status = rig.agent(node)?.status()?;
        assert!(status.programs.iter().all(|program| program.attached), "{:?}", status.programs);
    }
    proxied.into_iter().try_for_each(Conn::close)?;
    for mut old in replaced {
        assert!(old.wait_end(Duration::from_secs(30))?.success());
    }
    talk(&locals, b"to the end")?;
    assert_eq!(client.connect(to[0])?.exchange(b"new")?, b"new");
    Ok(())
}

#[test]
fn maps_of_another_layout_take_over_without_a_connection_that_fails() -> Result<()> {
    let mut rig = rig("PERMISSIVE")?;
    rig.start()?;
    upgrade(rig)
}

#[test]
fn maps_of_another_layout_take_over_between_strict_pods_as_well() -> Result<()> {
    let mut rig = rig("STRICT")?;
    rig.start()?;
    upgrade(rig)
}

#[test]
fn maps_of_another_layout_take_over_from_an_agent_below_its_own_attach_point() -> Result<()> {
    let mut rig = rig("STRICT")?;
    for node in ["a", "b"] {
        let node = rig.node_mut(node)?;
        let whole = node.cgroup.display().to_string();
        node.settings.set("cgroup", &whole);
    }
    rig.start()?;
    upgrade(rig)
}
