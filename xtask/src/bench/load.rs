//! Load from wrk, and what it cost the whole machine.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

/// Ticks of /proc/stat in a second.
const TICKS: f64 = 100.0;

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Requests in a second.
    pub(super) rate: f64,
    /// Bytes in a second.
    pub(super) bytes: f64,
    /// Processor time of the whole machine for a request, in microseconds.
    pub(super) cpu: f64,
    /// Share of processor time that another machine took.
    pub(super) steal: f64,
}

/// Runs wrk, whose command line lacks only its options, and measures.
pub(super) fn wrk(mut command: Command, seconds: u32, options: &[&str]) -> Result<Sample> {
    let before = Ticks::now()?;
    command.args(["-t1", &format!("-d{seconds}s")]).args(options);
    let output = command.output().context("cannot run wrk")?;
    let after = Ticks::now()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).and_then(number).with_context(|| format!("no {name} in: {text}"))
    };
    let rate = figure("Requests/sec:")?;
    anyhow::ensure!(!text.contains("Non-2xx"), "the server answered with errors: {text}");
    let busy = after.busy - before.busy;
    let all = after.all - before.all;
    Ok(Sample {
        rate,
        bytes: figure("Transfer/sec:")?,
        cpu: busy / TICKS * 1e6 / (rate * f64::from(seconds)),
        steal: (after.steal - before.steal) / all.max(1.0),
    })
}

/// A number as wrk writes it: `12.3`, `1.5GB`.
fn number(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "KB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

/// Processor time since boot, of all processors.
struct Ticks {
    busy: f64,
    steal: f64,
    all: f64,
}

impl Ticks {
    fn now() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat")?).context("no cpu line in /proc/stat")
    }

    /// user, nice, system, idle, iowait, irq, softirq, steal (proc(5)).
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = line.split_whitespace().filter_map(|one| one.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, steal, all: busy + idle + iowait + steal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_wrk_have_units() {
        assert_eq!(number("51234.5"), Some(51234.5));
        assert_eq!(number("1.50GB"), Some(1.5 * 1024.0 * 1024.0 * 1024.0));
        assert_eq!(number("none"), None);
    }

    #[test]
    fn idle_time_is_not_busy() {
        let ticks = Ticks::parse("cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1\n").unwrap();
        assert_eq!((ticks.busy, ticks.steal, ticks.all), (19.0, 8.0, 36.0));
        assert!(Ticks::parse("intr 1\n").is_none());
    }
}
