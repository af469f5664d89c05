//! The kernel's tables: as large as the settings say, watched, and never full in silence.

use std::time::Duration;

use anyhow::{Context, Result};
use undermesh_tests::{Agent, PodSpec, Rig};

const WITHIN: Duration = Duration::from_secs(20);

fn rig(pods: usize) -> Result<Rig> {
    let names: Vec<String> = (0..pods).map(|n| format!("pod-{n}")).collect();
    Rig::builder().node("a", names.iter().map(|name| PodSpec::new(name))).build()
}

#[test]
fn sizes_are_settings_and_four_fifths_of_one_are_worth_a_warning() -> Result<()> {
    let mut rig = rig(4)?;
    rig.node_mut("a")?.settings.set("maxPods", "5");
    rig.start()?;
    let agent = rig.agent("a")?;
    let what = "a map that fills";
    let status = agent.wait_status(what, WITHIN, |status| status.entries("PODS") == 4)?;
    let warning = status.warnings.iter().find(|warning| warning.contains("PODS"));
    let warning = warning.with_context(|| format!("no warning: {:?}", status.warnings))?;
    assert!(warning.contains("80%") && warning.contains("maxPods"), "{warning}");
    assert_eq!(agent.metric("undermesh_map_entries", "map=\"PODS\"")?, 4);
    assert_eq!(agent.metric("undermesh_map_max_entries", "map=\"PODS\"")?, 5);
    assert!(!status.warnings.iter().any(|warning| warning.contains("WORKLOADS")));
    Ok(())
}

#[test]
fn a_table_that_is_full_names_what_does_not_fit_and_the_setting() -> Result<()> {
    let mut rig = rig(3)?;
    // Two addresses for each of three pods.
    rig.node_mut("a")?.settings.set("maxWorkloads", "4");
    rig.init_ca()?;
    let agent = Agent::start(rig.node("a")?)?;
    let full = |warning: &String| warning.contains("WORKLOADS is full");
    let status =
        agent.wait_status("a full map", WITHIN, |status| status.warnings.iter().any(full))?;
    let warning = status.warnings.iter().find(|warning| full(warning)).context("no warning")?;
    for part in ["4 entries", "maxWorkloads"] {
        assert!(warning.contains(part), "{part} in {warning}");
    }
    let mut own = Vec::new();
    for pod in ["pod-0", "pod-1", "pod-2"] {
        own.push(rig.at(pod, 0)?.ip().to_string());
        own.push(rig.at6(pod, 0)?.ip().to_string());
    }
    assert!(own.iter().any(|address| warning.contains(address)), "{warning}");
    rig.node_mut("a")?.agent = Some(agent);
    Ok(())
}
