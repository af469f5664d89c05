//! What a stretch of time has cost: the whole machine's processor time, interrupts and all, of which
//! the mesh's part could not be told from the kernel's.
//!
//! A machine is rarely ours alone. What the hypervisor has taken (`steal`) and what others have used
//! is measured beside it, and spoils a sample from a certain share on.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};

/// The kernel counts in hundredths of a second, whatever its own clock (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Shares of the machine's time above which a sample is spoilt.
const MAX_STEAL: f64 = 0.02;
const MAX_FOREIGN: f64 = 0.10;

/// A stretch of time that has begun.
pub(super) struct Stretch {
    cgroup: PathBuf,
    began: Instant,
    machine: Ticks,
    own: f64,
}

/// What it came to.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cost {
    /// Processor seconds of the whole machine.
    pub(super) busy: f64,
    /// Those of the cgroup.
    pub(super) own: f64,
    /// The share of the machine's time that the hypervisor has taken.
    pub(super) steal: f64,
    /// The share that others have used.
    pub(super) foreign: f64,
}

impl Cost {
    /// Whether somebody else has been in the way.
    pub(super) fn is_spoilt(&self) -> bool {
        self.steal > MAX_STEAL || self.foreign > MAX_FOREIGN
    }
}

impl Stretch {
    /// Begins; everything that is ours runs below `cgroup`.
    pub(super) fn begin(cgroup: &Path) -> Result<Self> {
        let own = own_seconds(cgroup)?;
        Ok(Self { cgroup: cgroup.to_owned(), began: Instant::now(), machine: Ticks::read()?, own })
    }

    /// Ends, and says what it has cost.
    pub(super) fn end(self) -> Result<Cost> {
        let machine = Ticks::read()?;
        let own = own_seconds(&self.cgroup)? - self.own;
        let busy = machine.busy - self.machine.busy;
        let processors = std::thread::available_parallelism()?.get() as f64;
        let capacity = self.began.elapsed().as_secs_f64() * processors;
        Ok(Cost {
            busy,
            own,
            steal: (machine.steal - self.machine.steal) / capacity,
            foreign: (busy - own).max(0.0) / capacity,
        })
    }
}

/// Processor time since boot, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    busy: f64,
    steal: f64,
}

impl Ticks {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line of all processors")
    }

    /// The line is `cpu user nice system idle iowait irq softirq steal guest guest_nice`; guests
    /// count as user already.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let fields: Option<Vec<f64>> =
            line.split_whitespace().map(|field| field.parse().ok()).collect();
        match fields?.as_slice() {
            [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] => Some(Self {
                busy: (user + nice + system + irq + softirq) / TICKS_PER_SECOND,
                steal: steal / TICKS_PER_SECOND,
            }),
            _ => None,
        }
    }
}

/// Every cgroup counts its time, whether or not the `cpu` controller is enabled for it.
fn own_seconds(cgroup: &Path) -> Result<f64> {
    let path = cgroup.join("cpu.stat");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let microseconds = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let microseconds: Option<f64> = microseconds.and_then(|number| number.parse().ok());
    Ok(microseconds.with_context(|| format!("no usage_usec in {}", path.display()))? / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_everything_but_idle_waiting_and_stolen_time() {
        let stat = "cpu  100 200 300 5000 60 7 8 90 11 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let ticks = Ticks::parse(stat).unwrap();
        assert_eq!(ticks, Ticks { busy: 6.15, steal: 0.9 });
        assert_eq!(Ticks::parse("cpu0 1 2 3 4\n"), None);
    }

    #[test]
    fn a_sample_is_spoilt_by_stolen_time_and_by_others() {
        let clean = Cost { busy: 9.0, own: 8.8, steal: 0.0, foreign: 0.02 };
        assert!(!clean.is_spoilt());
        assert!(Cost { steal: 0.03, ..clean }.is_spoilt());
        assert!(Cost { foreign: 0.2, ..clean }.is_spoilt());
    }
}
