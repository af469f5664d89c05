//! Two variants at the same time, on one processor. What disturbs one of them disturbs the other, so that a difference
//! of one per cent can be seen where samples that are taken one after the other spread by ten. It cannot show what work in the
//! background would take of processors that are idle.

use std::{fs, io, path::Path, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    io::Errno,
    thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity},
};

use super::{
    cpu::{Cost, Stretch},
    ground::Variant,
    load::Load,
    rounds::{Plan, Sample, context},
};

/// One round: samples of both, on the same processor. Each has two rounds in a row.
pub(super) fn one(
    load: Load,
    variants: &[Variant<'_>; 2],
    plan: Plan,
    round: u32,
) -> Result<(Sample, Sample)> {
    let all = sched_getaffinity(None).context("cannot ask for this thread's processors")?;
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|at| all.is_set(*at)).collect();
    let mut one = CpuSet::new();
    one.set(processors[round as usize / 2 % processors.len()]);
    for variant in variants {
        bind(variant.ground.cgroup(), &one)?;
        variant.ground.forget_logs()?;
    }
    let measured = thread::scope(|scope| {
        let measured = variants.each_ref().map(|it| scope.spawn(|| sample(load, it, &one, plan)));
        measured.map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a thread has panicked"))))
    });
    for variant in variants {
        bind(variant.ground.cgroup(), &all)?;
    }
    let [base, other] = measured;
    let (base, other) = (base?, other?);
    eprintln!(
        "{}, round {} of {}: {} {:.0}, {} {:.0} {} per second of a processor",
        load.name(),
        round + 1,
        plan.rounds,
        variants[0].name,
        base.rate(),
        variants[1].name,
        other.rate(),
        load.unit(),
    );
    Ok((base, other))
}

/// What is done in a second of the variant's own time on the processor.
fn sample(load: Load, variant: &Variant<'_>, processor: &CpuSet, plan: Plan) -> Result<Sample> {
    // What this thread starts is bound as it is.
    sched_setaffinity(None, processor).context("cannot bind this thread to a processor")?;
    let stretch = Stretch::begin(variant.ground.cgroup())?;
    let units = load.run(variant, plan.each).with_context(|| context(load, variant))?;
    let Cost { own, steal, .. } = stretch.end()?;
    // The other variant's time is nobody else's.
    Ok(Sample { units, seconds: own, cost: Cost { busy: own, own, steal, foreign: 0.0 } })
}

/// Binds all threads below a cgroup.
fn bind(cgroup: &Path, processors: &CpuSet) -> Result<()> {
    let threads = fs::read_to_string(cgroup.join("cgroup.threads"));
    // A cgroup of another kind has none of its own.
    for thread in threads.unwrap_or_default().lines() {
        let thread = thread.parse().ok().and_then(Pid::from_raw).context("no thread's number")?;
        match sched_setaffinity(Some(thread), processors) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot bind thread {thread:?}"));
            }
        }
    }
    let below = fs::read_dir(cgroup).with_context(|| format!("no {}", cgroup.display()))?;
    for entry in below.collect::<io::Result<Vec<_>>>()? {
        if entry.file_type()?.is_dir() {
            bind(&entry.path(), processors)?;
        }
    }
    Ok(())
}
