//! The order of measurements: every variant once a round, forwards and backwards in turn, so that
//! neither drift nor a neighbour's cache favours one of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{
    compare::Comparison,
    cpu::{Cost, Stretch},
    ground::Variant,
    load::Load,
};

/// How often a sample is taken anew that somebody else has spoilt. A machine that is never quiet
/// must not keep a benchmark from ending; what is spoilt is counted and shown.
const TRIES: usize = 3;
/// Before the first round: caches fill, and servers open what they need.
const WARM_UP: Duration = Duration::from_secs(1);

/// How much is measured.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Plan {
    /// Rounds.
    pub(super) rounds: u32,
    /// Length of a measurement.
    pub(super) each: Duration,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Pieces of work: requests, or mebibytes.
    pub(super) units: f64,
    /// In what time.
    pub(super) seconds: f64,
    /// At what cost.
    pub(super) cost: Cost,
}

impl Sample {
    /// Work per second.
    pub(super) fn rate(&self) -> f64 {
        self.units / self.seconds
    }

    /// The whole machine's processor seconds per piece of work.
    pub(super) fn cpu_per_unit(&self) -> f64 {
        self.cost.busy / self.units
    }

    /// The rig's processor seconds per piece of work.
    pub(super) fn own_cpu_per_unit(&self) -> f64 {
        self.cost.own / self.units
    }
}

/// Measures all variants at one kind of work; compares each with the first.
pub(super) fn run(load: Load, variants: &[Variant<'_>], plan: Plan) -> Result<Vec<Comparison>> {
    warm_up(load, variants)?;
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); variants.len()];
    for round in 0..plan.rounds {
        for (all, sample) in samples.iter_mut().zip(one(load, variants, plan, round)?) {
            all.push(sample);
        }
    }
    let (baseline, others) = samples.split_first().context("nothing to measure")?;
    let compare = |(variant, of_it): (&Variant<'_>, &Vec<Sample>)| {
        let pairs: Vec<_> = baseline.iter().copied().zip(of_it.iter().copied()).collect();
        Comparison::new(load.name(), [variants[0].name, variant.name], &pairs)
    };
    Ok(variants[1..].iter().zip(others).map(compare).collect())
}

/// One round: a sample of each variant.
pub(super) fn one(
    load: Load,
    variants: &[Variant<'_>],
    plan: Plan,
    round: u32,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for place in order(variants.len(), round) {
        let variant = &variants[place];
        let sample = sample(load, variant, plan.each).with_context(|| context(load, variant))?;
        eprintln!(
            "{}, round {} of {}: {:<18} {:>9.0} {}/s{}",
            load.name(),
            round + 1,
            plan.rounds,
            variant.name,
            sample.rate(),
            load.unit(),
            if sample.cost.is_spoilt() { ", not alone on the machine" } else { "" },
        );
        samples.push((place, sample));
    }
    samples.sort_by_key(|(place, _)| *place);
    Ok(samples.into_iter().map(|(_, sample)| sample).collect())
}

/// Does the work for a while that counts for nothing.
pub(super) fn warm_up(load: Load, variants: &[Variant<'_>]) -> Result<()> {
    for variant in variants {
        load.run(variant, WARM_UP).with_context(|| context(load, variant))?;
    }
    Ok(())
}

/// What an error happened in.
pub(super) fn context(load: Load, variant: &Variant<'_>) -> String {
    format!("{} with {}", load.name(), variant.name)
}

/// Forwards in even rounds, backwards in odd ones.
pub(super) fn order(count: usize, round: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

fn sample(load: Load, variant: &Variant<'_>, each: Duration) -> Result<Sample> {
    let mut last = once(load, variant, each)?;
    for _ in 1..TRIES {
        if !last.cost.is_spoilt() {
            break;
        }
        last = once(load, variant, each)?;
    }
    Ok(last)
}

fn once(load: Load, variant: &Variant<'_>, each: Duration) -> Result<Sample> {
    variant.ground.forget_logs()?;
    let stretch = Stretch::begin(variant.ground.cgroup())?;
    let began = Instant::now();
    let units = load.run(variant, each)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Sample { units, seconds, cost: stretch.end()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_round_goes_backwards() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [2, 1, 0]);
    }
}
