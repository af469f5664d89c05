//! What a run has come to: a row for each kind of work and way, the targets, and how they are shown
//! on a terminal.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    measured::{Measured, Memory, Sample},
    targets::{self, Bound, Judged},
    way::Way,
    work::{Latency, Work},
};
use crate::bench::compare::Ratio;

const MEBIBYTE: f64 = (1 << 20) as f64;

/// Results, as JSON has them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::bench) struct Outcome {
    pub(super) rows: Vec<Row>,
    pub(super) memory: Vec<Memory>,
    pub(super) targets: Vec<Judged>,
}

/// One kind of work by one way: medians, with quartiles where there is room.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) load: Work,
    pub(super) variant: Way,
    /// Pieces a second.
    pub(super) rate: Ratio,
    /// Microseconds of the whole machine's processors for a piece, and of the rig's processes.
    pub(super) cpu: Ratio,
    pub(super) own_cpu: Ratio,
    /// Both relative to no mesh, round by round; absent where that was not measured.
    pub(super) rate_ratio: Option<Ratio>,
    pub(super) cpu_ratio: Option<Ratio>,
    /// Milliseconds.
    pub(super) latency: Option<Latency>,
    /// Bytes that the mesh's processes occupied.
    pub(super) resident: f64,
    pub(super) failed: u64,
    /// Samples in which somebody else was in the way, and samples.
    pub(super) spoilt: usize,
    pub(super) samples: usize,
}

impl Row {
    fn new(measured: &Measured, load: Work, variant: Way) -> Option<Self> {
        let samples = measured.samples(load, variant);
        let value = |of: fn(&Sample) -> f64| measured.value(load, variant, of);
        let pair = [variant, variant.baseline()];
        let percentile = |of: fn(&Latency) -> f64| {
            measured.value(load, variant, |sample| sample.latency(of)).map(|found| found.median)
        };
        let latency = || {
            Some(Latency {
                p50: percentile(|it| it.p50)?,
                p90: percentile(|it| it.p90)?,
                p99: percentile(|it| it.p99)?,
                p999: percentile(|it| it.p999)?,
            })
        };
        Some(Self {
            load,
            variant,
            rate: value(Sample::rate)?,
            cpu: value(Sample::cpu)?,
            own_cpu: value(Sample::own_cpu)?,
            rate_ratio: measured.ratio(load, pair, Sample::rate),
            cpu_ratio: measured.ratio(load, pair, Sample::cpu),
            latency: latency(),
            resident: value(|sample| sample.resident as f64)?.median,
            failed: samples.iter().map(|sample| sample.failed).sum(),
            spoilt: samples.iter().filter(|sample| sample.cost.is_spoilt()).count(),
            samples: samples.len(),
        })
    }
}

impl Outcome {
    pub(super) fn new(measured: &Measured) -> Self {
        let row = |work| move |way| Row::new(measured, work, way);
        let rows =
            Work::ALL.into_iter().flat_map(|work| Way::ALL.into_iter().filter_map(row(work)));
        Self {
            rows: rows.collect(),
            memory: measured.memory.clone(),
            targets: targets::judge(measured),
        }
    }

    /// Tables.
    pub(in crate::bench) fn text(&self, to: &mut String) {
        for work in Work::ALL {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.load == work).collect();
            if !rows.is_empty() {
                table(to, work, &rows);
            }
        }
        if !self.memory.is_empty() {
            let _ = writeln!(to, "\n  resident memory, from the start");
            let _ = writeln!(
                to,
                "  {:<15}{:>14}{:>12}{:>12}{:>14}",
                "", "MiB, working", "MiB, idle", "connections", "KiB for each"
            );
        }
        for memory in &self.memory {
            let [working, before] = [memory.working, memory.before].map(mebibytes);
            let (name, count) = (memory.variant.name(), memory.connections);
            let each = memory.per_connection() / 1024.0;
            let _ =
                writeln!(to, "  {name:<15}{working:>14.1}{before:>12.1}{count:>12}{each:>14.2}");
        }
        if !self.targets.is_empty() {
            let _ = writeln!(to, "\n  {:<48}{:>10}{:>12}", "target", "bound", "measured");
        }
        for judged in &self.targets {
            let bound = match judged.bound {
                Bound::AtLeast(bound) => format!(">= {bound:.2}"),
                Bound::AtMost(bound) => format!("<= {bound:.2}"),
            };
            let verdict = if judged.met { "met" } else { "MISSED" };
            let _ = writeln!(
                to,
                "  {:<48}{bound:>10}{:>12.3}  {verdict}",
                judged.target, judged.measured
            );
        }
    }
}

fn table(to: &mut String, work: Work, rows: &[&Row]) {
    let _ = writeln!(to, "\n  {}", work.title());
    let _ = writeln!(
        to,
        "  {:<15}{:>10}  {:<20}{:>9}  {:<20}{:>7}{:>8}{:>8}{:>8}{:>8}{:>7}{:>7}  spoilt",
        "",
        format!("{}/s", if work.is_bulk() { "MiB" } else { "req" }),
        "of no mesh",
        "us CPU",
        "of no mesh",
        "rig",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "MiB",
        "failed",
    );
    for row in rows {
        let latency = row.latency.map_or_else(
            || format!("{:>8}{:>8}{:>8}{:>8}", "", "", "", ""),
            |it| format!("{:>8.3}{:>8.3}{:>8.3}{:>8.3}", it.p50, it.p90, it.p99, it.p999),
        );
        let _ = writeln!(
            to,
            "  {:<15}{:>10.0}  {:<20}{:>9.1}  {:<20}{:>7.1}{latency}{:>7.1}{:>7}  {} of {}",
            row.variant.name(),
            row.rate.median,
            shown(row.rate_ratio),
            row.cpu.median,
            shown(row.cpu_ratio),
            row.own_cpu.median,
            row.resident / MEBIBYTE,
            row.failed,
            row.spoilt,
            row.samples,
        );
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MEBIBYTE
}

fn shown(ratio: Option<Ratio>) -> String {
    let show = |it: Ratio| format!("{:.2} [{:.2} {:.2}]", it.median, it.lower, it.upper);
    ratio.map(show).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::mesh::measured::tests::sample;

    #[test]
    fn a_row_says_what_was_measured_and_a_missed_target_is_seen() {
        let mut measured = Measured::default();
        measured.add(Work::KeepAlive32, Way::NoMeshLocal, sample(1000.0, 1.0, 1.0));
        measured.add(Work::KeepAlive32, Way::Local, sample(900.0, 1.0, 1.0));
        let outcome = Outcome::new(&measured);
        assert_eq!(outcome.rows.len(), 2);
        let mut text = String::new();
        outcome.text(&mut text);
        let row = text.lines().find(|line| line.trim_start().starts_with("local ")).unwrap();
        assert!(row.contains("900") && row.contains("0.90 [0.90 0.90]"), "{row}");
        assert!(text.contains("local: rate / no mesh"), "{text}");
        assert!(text.contains("MISSED"), "{text}");
    }
}
