//! `undermesh verify`: what the kernel makes of every program, asked without touching anything.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use undermesh_tests::{Agent, Rig, undermesh};

/// Programs in the kernel, by what would change if they were replaced.
fn programs(agent: &Agent) -> Result<Vec<(String, u32, bool)>> {
    let rows = agent.status()?.programs.into_iter();
    Ok(rows.map(|it| (it.name, it.program_id, it.attached)).collect())
}

#[test]
fn every_program_is_measured_and_a_running_agent_is_not_touched() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let agent = rig.agent("a")?;
    let before = programs(agent)?;
    let pins = rig.node("a")?.settings.get("pinDir").context("no pinDir")?;

    let said = undermesh(["verify", "-o", "json", "--pin-dir", pins])?;

    let measured: Vec<serde_json::Value> = serde_json::from_str(&said)?;
    for (name, ..) in &before {
        let program = measured.iter().find(|it| it["name"] == name.as_str());
        let program = program.with_context(|| format!("{name} was not measured"))?;
        assert!(program["refused"].is_null(), "{program}");
        for number in ["instructions", "processed", "totalStates"] {
            assert!(program[number].as_u64() > Some(0), "{number} of {program}");
        }
    }
    assert_eq!(programs(agent)?, before);
    let beside = Path::new(pins).parent().context("pins at the root")?;
    let names: Vec<_> = fs::read_dir(beside)?.flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("verify")), "{names:?}");
    Ok(())
}
