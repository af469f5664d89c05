//! Ten thousand pods and five thousand policies in one node's agent.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use undermesh_tests::{Rig, wait_for};

use super::Figure;

const PODS: u32 = 10_000;
const POLICIES: u32 = 5_000;
const WITHIN: Duration = Duration::from_secs(120);

pub(super) fn run() -> Result<Vec<Figure>> {
    let mut rig = Rig::standard().build()?;
    rig.node_mut("a")?.settings.set("maxPolicyEntries", "262144");
    rig.init_ca()?;
    rig.start_agents()?;
    let empty = rig.agent("a")?.resident_bytes()?;
    let mut figures = Vec::new();
    let mut add = |what: &str, value: String| {
        figures.push(Figure { bench: "scale", what: what.to_owned(), value });
    };
    rig.manifests.write("many-pods", &pods(0))?;
    let first = timed(&rig, || rig.manifests.write("many-policies", &policies(0)))?;
    add("all of it, from the file to the maps", seconds(first));
    let one = timed(&rig, || rig.manifests.write("one-pod", &pod(PODS, 0)))?;
    add("one more pod", seconds(one));
    let one = timed(&rig, || rig.manifests.write("one-policy", &policy(POLICIES, 0)))?;
    add("one more policy", seconds(one));
    let one = timed(&rig, || rig.manifests.write("one-policy", &policy(POLICIES, 1)))?;
    add("a policy changed", seconds(one));
    let resident = rig.agent("a")?.resident_bytes()?;
    add("memory of the agent", format!("{} MiB, {} MiB without", resident >> 20, empty >> 20));
    for map in rig.agent("a")?.status()?.maps {
        if map.entries > 0 {
            add(&format!("map {}", map.name), format!("{} of {}", map.entries, map.max_entries));
        }
    }
    Ok(figures)
}

/// How long it takes until agent a says that what `write` has written is in force, reading and
/// compiling all of it included.
fn timed(rig: &Rig, write: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let agent = rig.agent("a")?;
    let generation = || -> Result<u64> { Ok(agent.status()?.agent.generation) };
    let before = agent.log().matches("configuration in force").count();
    let started = Instant::now();
    write()?;
    wait_for("the configuration to be in force", WITHIN, || {
        let now = agent.log().matches("configuration in force").count();
        Ok((now > before).then_some(()))
    })?;
    let took = started.elapsed();
    // A second state may follow, where the first was read while files were being written.
    let mut last = generation()?;
    wait_for("the configuration to be at rest", WITHIN, || {
        std::thread::sleep(Duration::from_secs(2));
        let now = generation()?;
        Ok((std::mem::replace(&mut last, now) == now).then_some(()))
    })?;
    Ok(took)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn pods(version: u32) -> String {
    let mut yaml = String::new();
    for index in 0..PODS {
        yaml.push_str(&pod(index, version));
    }
    yaml
}

fn pod(index: u32, version: u32) -> String {
    let [_, high, middle, low] = index.to_be_bytes();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: many-{index}\n  namespace: shop\n  \
         labels: {{app: many-{group}, version: v{version}, istio.io/dataplane-mode: ambient}}\n\
         spec:\n  nodeName: c\n  containers: []\nstatus:\n  phase: Running\n  \
         podIP: 10.{second}.{middle}.{low}\n",
        group = index % 500,
        second = 100 + high,
    )
}

fn policies(version: u32) -> String {
    (0..POLICIES).fold(String::new(), |mut yaml, index| {
        yaml.push_str(&policy(index, version));
        yaml
    })
}

/// One in fifty is about the pods of the node that is measured.
fn policy(index: u32, version: u32) -> String {
    let app =
        if index.is_multiple_of(50) { "near".to_owned() } else { format!("many-{}", index % 500) };
    let mut yaml = format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: many-{index}, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: {app}}}}}\n  action: DENY\n  rules:\n"
    );
    let port = 20_000 + index % 400 + version;
    // Writing to a string cannot fail.
    let _ = writeln!(
        yaml,
        "  - from: [{{source: {{serviceAccounts: [bad-{index}]}}}}]\n    \
         to: [{{operation: {{ports: ['{port}']}}}}]"
    );
    yaml
}
