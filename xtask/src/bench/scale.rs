//! `scale`: a cluster of ten thousand pods and five thousand policies, as one node sees it: how long
//! its first configuration takes, how long a single change, and what it occupies.

mod population;
mod usage;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use undermesh_tests::{Agent, PodSpec, Rig, wait_for};

pub(super) use self::population::Population;
use super::{TAG, report::Findings, rounds::Plan};

/// Pods of the node that is looked at; their namespaces are real.
const LOCAL: usize = 20;
/// A change is in force long before; the bound is for hangs.
const WITHIN: Duration = Duration::from_secs(120);
/// How often a change is looked for.
const LOOK: Duration = Duration::from_millis(1);

pub(super) fn run(plan: Plan) -> Result<Findings> {
    let population = Population { pods: 10_000, policies: 5_000, local: LOCAL };
    let mut rig = Rig::builder()
        .tag(&format!("{TAG}{}s", std::process::id()))
        .node("a", (0..LOCAL).map(|number| PodSpec::new(&format!("local{number}"))))
        .build()?;
    population.write(&rig.manifests)?;
    rig.init_ca()?;
    let mut findings =
        Findings::new("scale: 10,000 pods and 5,000 policies, seen from one node", None);
    findings.note(first(&mut rig)?);
    let agent = rig.agent("a")?;
    for (what, changed) in [
        ("one pod's address", Change::Address),
        ("one policy of a pod of this node", Change::Policy),
    ] {
        let took: Result<Vec<Took>> =
            (0..plan.rounds).map(|round| change(&rig, &population, changed, round)).collect();
        findings.note(Took::describe(what, &took?)?);
    }
    let resident = agent.resident_bytes()? >> 20;
    findings.note(format!("the agent occupies {resident} MiB"));
    for line in maps(&rig, agent)? {
        findings.note(line);
    }
    Ok(findings)
}

/// What maps occupy, the sum first.
pub(super) fn maps(rig: &Rig, agent: &Agent) -> Result<Vec<String>> {
    usage::of_maps(rig, agent)
}

/// A single thing that changes.
#[derive(Clone, Copy)]
enum Change {
    Address,
    Policy,
}

/// Starts the agent; the time until its pods are enrolled.
fn first(rig: &mut Rig) -> Result<String> {
    let started = Instant::now();
    rig.start_agents()?;
    let took = started.elapsed();
    let inner = Took::read(took, rig.agent("a")?)?;
    Ok(format!(
        "first configuration: {LOCAL} pods enrolled {:.2} s after the agent's start; of that, compiling {:.0} ms, \
         {} map entries {:.0} ms",
        took.as_secs_f64(),
        inner.compile,
        inner.entries,
        inner.apply
    ))
}

/// Writes one change and waits until it is in force.
fn change(rig: &Rig, population: &Population, change: Change, round: u32) -> Result<Took> {
    let agent = rig.agent("a")?;
    let before = in_force(agent);
    let written = Instant::now();
    match change {
        Change::Address => population.move_a_pod(&rig.manifests, round)?,
        Change::Policy => population.change_a_policy(&rig.manifests, round)?,
    }
    wait_for("the change to be in force", WITHIN, || {
        std::thread::sleep(LOOK);
        Ok((in_force(agent) > before).then_some(()))
    })?;
    let took = Took::read(written.elapsed(), agent)?;
    eprintln!("scale, round {}: in force after {:.0} ms", round + 1, took.whole);
    Ok(took)
}

fn in_force(agent: &Agent) -> usize {
    agent.log().matches(Took::LINE).count()
}

/// What a change took, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Took {
    /// From the file's change until the maps have it.
    whole: f64,
    /// Compiling.
    compile: f64,
    /// Writing maps.
    apply: f64,
    /// Entries that were written.
    entries: u64,
}

impl Took {
    /// What the agent says when it is done.
    const LINE: &str = "configuration in force";

    /// Reads the rest from the agent's log.
    fn read(whole: Duration, agent: &Agent) -> Result<Self> {
        let log = agent.log();
        let line = log.lines().rfind(|line| line.contains(Self::LINE));
        let line = line.context("the agent has not said that a configuration is in force")?;
        let field = |name: &str| -> Result<f64> {
            let text = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            let value = text.and_then(|text| text.parse().ok());
            value.with_context(|| format!("no {name} in {line:?}"))
        };
        Ok(Self {
            whole: whole.as_secs_f64() * 1e3,
            compile: field("compile_ms=")?,
            apply: field("apply_ms=")?,
            entries: field("entries=")? as u64,
        })
    }

    fn describe(what: &str, took: &[Self]) -> Result<String> {
        let median = |of: fn(&Self) -> f64| {
            let mut values: Vec<f64> = took.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().context("nothing was measured")
        };
        Ok(format!(
            "{what}: in force {:.0} ms after the file has changed; of that, compiling {:.0} ms, {} map entries {:.1} ms",
            median(|one| one.whole)?,
            median(|one| one.compile)?,
            took.last().map_or(0, |one| one.entries),
            median(|one| one.apply)?,
        ))
    }
}
