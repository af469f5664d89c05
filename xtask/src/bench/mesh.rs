//! `mesh`: the same work through everything that can stand between a client and a server, interleaved
//! in one run.
//!
//! ```text
//! way         the ways: no mesh, Undermesh, Envoy as sidecars, relays
//! ground      a rig for each, with servers in it, and envoy: the sidecars
//! work        the kinds of work, and the tools that do them
//! memory, resident  what the mesh occupies: at work, and with idle connections
//! measured    samples, and ratios of them
//! targets     what is to be reached
//! outcome, plot     tables and pictures
//! profile     flame graphs instead of figures
//! ```

mod envoy;
mod ground;
mod measured;
mod memory;
mod outcome;
mod plot;
mod profile;
mod resident;
mod servers;
mod targets;
mod way;
mod work;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    ground::Ground,
    measured::{Measured, Sample},
    profile::Profiler,
    resident::Watch,
};
pub(super) use self::{outcome::Outcome, way::Way, work::Work};
use super::{
    cpu::Stretch,
    report::Findings,
    rounds::{Plan, order},
};
use crate::{
    install::{self, Need, Policy},
    workspace::Workspace,
};

/// Of so many samples, one may be taken anew because somebody else has spoilt it. A machine that is never
/// quiet must not keep a benchmark from ending; what is spoilt is counted and shown.
const RETRIES: usize = 10;
/// Before the first round.
const WARM_UP: Duration = Duration::from_secs(1);

/// What is measured, and what becomes of it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Options {
    /// For `mesh`: only these variants (several times, or separated by commas)
    #[arg(long = "variant", value_enum, value_delimiter = ',')]
    ways: Vec<Way>,
    /// For `mesh`: only these kinds of work (several times, or separated by commas)
    #[arg(long = "load", value_enum, value_delimiter = ',')]
    works: Vec<Work>,
    /// For `mesh`: also write plots into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// For `mesh`: instead of measuring, sample each variant under each load (`keep-alive-32` unless
    /// others are named) for --seconds with `perf`; writes flame graphs and folded stacks into
    /// target/bench/profiles, and prints who the processors worked for, and on what. Needs perf and
    /// inferno, which are installed unless --no-install is given
    #[arg(long)]
    profile: bool,
}

impl Options {
    /// Whether anything has been asked for that only `mesh` knows.
    pub(super) fn are_given(&self) -> bool {
        self.profile || self.svg.is_some() || !self.ways.is_empty() || !self.works.is_empty()
    }

    fn ways(&self) -> Vec<Way> {
        let chosen = |way: &Way| self.ways.is_empty() || self.ways.contains(way);
        Way::ALL.into_iter().filter(chosen).collect()
    }

    fn works(&self) -> Vec<Work> {
        let chosen = |work: &Work| match self.works.is_empty() {
            true if self.profile => *work == Work::KeepAlive32,
            true => true,
            false => self.works.contains(work),
        };
        Work::ALL.into_iter().filter(chosen).collect()
    }
}

pub(super) fn run(
    workspace: &Workspace,
    policy: Policy,
    plan: Plan,
    options: &Options,
) -> Result<Findings> {
    install::ensure(Need::Mesh, policy)?;
    let (ways, works) = (options.ways(), options.works());
    if ways.iter().any(|way| way.is_envoy()) {
        envoy::install(workspace, policy)?;
    }
    if works.contains(&Work::OpenLoop) {
        work::install(workspace, policy)?;
    }
    let profiler = options.profile.then(|| Profiler::new(workspace, policy)).transpose()?;
    raise_open_files()?;
    let grounds: Vec<Ground> = ways.into_iter().map(prepared).collect::<Result<_>>()?;
    let mut findings = Findings::new("mesh: the same work through each variant", None);
    if let Some(profiler) = profiler {
        for (work, ground) in pairs(&works, &grounds) {
            let profile = profiler
                .profile(work, ground, plan.each)
                .with_context(|| format!("cannot profile {}", context(work, ground)))?;
            let graph = workspace.relative(&profile.graph).display();
            findings.note(format!("{graph}: {}", profile.summary));
        }
        return Ok(findings);
    }
    let measured = measure(&grounds, &works, plan)?;
    // Idle connections have grounds of their own.
    let worked = |ground: &&Ground| !pairs(&works, std::slice::from_ref(*ground)).is_empty();
    for ground in grounds.iter().filter(worked) {
        ground.check()?;
    }
    let outcome = Outcome::new(&measured);
    if let Some(dir) = &options.svg {
        plot::write(&outcome, dir)?;
    }
    findings.mesh = Some(outcome);
    Ok(findings)
}

/// As far as it goes. Children inherit it: clients, servers, agents and sidecars alike.
fn raise_open_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the limit of open files")
}

fn prepared(way: Way) -> Result<Ground> {
    eprintln!("mesh: preparing {}", way.name());
    Ground::new(way, "").with_context(|| format!("cannot prepare {}", way.name()))
}

fn pairs<'a>(works: &[Work], grounds: &'a [Ground]) -> Vec<(Work, &'a Ground)> {
    let of = |work: &Work| {
        let work = *work;
        let fitting = move |ground: &&Ground| work.fits(ground.way) && work != Work::Idle;
        grounds.iter().filter(fitting).map(move |ground| (work, ground))
    };
    works.iter().flat_map(of).collect()
}

fn context(work: Work, ground: &Ground) -> String {
    format!("{} with {}", work.name(), ground.way.name())
}

/// Each round goes through all kinds of work, and each of these through all variants, forwards and
/// backwards in turn.
fn measure(grounds: &[Ground], works: &[Work], plan: Plan) -> Result<Measured> {
    for (work, ground) in pairs(works, grounds) {
        work.run(ground, WARM_UP).with_context(|| context(work, ground))?;
    }
    let mut measured = Measured::default();
    let mut retries = pairs(works, grounds).len() * plan.rounds as usize / RETRIES;
    for round in 0..plan.rounds {
        for work in works {
            let fitting = pairs(&[*work], grounds);
            for place in order(fitting.len(), round) {
                let (work, ground) = fitting[place];
                let measure =
                    || once(work, ground, plan.each).with_context(|| context(work, ground));
                let mut sample = measure()?;
                if sample.cost.is_spoilt() && retries > 0 {
                    retries -= 1;
                    sample = measure()?;
                }
                say(work, ground.way, &sample, round + 1, plan.rounds);
                measured.add(work, ground.way, sample);
            }
        }
    }
    if works.contains(&Work::Idle) {
        // Without a mesh nothing remembers them.
        for ground in grounds.iter().filter(|ground| !ground.mesh().is_empty()) {
            if !Work::Idle.fits(ground.way) {
                continue;
            }
            let memory =
                memory::run(ground.way, plan.each).with_context(|| context(Work::Idle, ground))?;
            let each = memory.per_connection();
            eprintln!("memory, {}: {each:.0} bytes for each connection", ground.way.name());
            measured.memory.push(memory);
        }
    }
    Ok(measured)
}

fn say(work: Work, way: Way, sample: &Sample, round: u32, rounds: u32) {
    let failed = match sample.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    eprintln!(
        "{}, round {round} of {rounds}: {:<14} {:>9.0} {}/s{failed}{}",
        work.name(),
        way.name(),
        sample.rate(),
        work.unit(),
        if sample.cost.is_spoilt() { ", not alone on the machine" } else { "" },
    );
}

fn once(work: Work, ground: &Ground, each: Duration) -> Result<Sample> {
    if !work.lead_in().is_zero() {
        work.run(ground, work.lead_in())?;
    }
    ground.forget_logs()?;
    let watch = Watch::begin(ground.mesh());
    let stretch = Stretch::begin(ground.cgroup())?;
    let began = Instant::now();
    let done = work.run(ground, each);
    let seconds = began.elapsed().as_secs_f64();
    let (cost, resident) = (stretch.end()?, watch.end()?);
    let work::Done { units, latency, failed } = done?;
    Ok(Sample { units, seconds, cost, latency, failed, resident })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        let all = Options::default();
        assert_eq!((all.ways().len(), all.works().len()), (Way::ALL.len(), Work::ALL.len()));
        let some = Options { ways: vec![Way::L4], works: vec![Work::Idle], ..Options::default() };
        assert_eq!((some.ways(), some.works()), (vec![Way::L4], vec![Work::Idle]));
        let profile = Options { profile: true, ..Options::default() };
        assert_eq!(profile.works(), [Work::KeepAlive32]);
    }
}
