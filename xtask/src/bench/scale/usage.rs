//! What maps occupy, as the kernel and the agent's status page say.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use undermesh_tests::{Agent, Rig};

use crate::{bench::load::found, command};

/// What `bpftool` says about a map.
#[derive(Debug, Deserialize)]
struct Shown {
    bytes_memlock: u64,
}

/// A line for all maps together, and one for each that entries are counted of.
pub(super) fn of_maps(rig: &Rig, agent: &Agent) -> Result<Vec<String>> {
    let version = pins(rig)?;
    let mut total = 0;
    let mut lines = Vec::new();
    for row in agent.status()?.maps {
        let bytes = memory(&version.join(&row.name))?;
        lines.push(format!(
            "  {:<14}{:>8} of {:>8} entries, {:>7} KiB",
            row.name,
            row.entries,
            row.max_entries,
            bytes >> 10
        ));
    }
    for pin in version.read_dir()?.flatten() {
        total += memory(&pin.path())?;
    }
    lines.insert(0, format!("all maps together occupy {} MiB of the kernel's memory", total >> 20));
    Ok(lines)
}

/// The directory of the node's pinned maps.
fn pins(rig: &Rig) -> Result<std::path::PathBuf> {
    let entries = rig.footprint().bpffs().join("a").read_dir()?.flatten();
    let maps = entries.map(|entry| entry.path().join("maps")).find(|maps| maps.is_dir());
    maps.context("the agent has pinned no maps")
}

fn memory(pin: &std::path::Path) -> Result<u64> {
    let mut bpftool = Command::new(found("bpftool")?);
    bpftool.args(["--json", "map", "show", "pinned"]).arg(pin);
    let shown = command::stdout(&mut bpftool)?;
    let shown: Shown = serde_json::from_str(&shown)
        .with_context(|| format!("unexpected words of bpftool about {}: {shown}", pin.display()))?;
    Ok(shown.bytes_memlock)
}
