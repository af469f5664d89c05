//! Results, for the terminal, and as JSON.

use std::{fmt::Write as _, fs};

use anyhow::Result;
use serde::Serialize;

use super::{
    compare::{Comparison, Ratio},
    mesh::Outcome,
    micro::Measured,
    rounds::Plan,
};

/// Everything that a run has found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    machine: String,
    plan: Plan,
    findings: Vec<Findings>,
}

/// What one benchmark has found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Findings {
    /// What it is about.
    title: &'static str,
    /// What has been promised.
    goal: Option<Goal>,
    /// Ratios.
    pub(super) comparisons: Vec<Comparison>,
    /// Whole meshes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mesh: Option<Outcome>,
    /// Single steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) micro: Vec<Measured>,
    /// What is no ratio, in words.
    notes: Vec<String>,
}

/// What has been promised about ratios.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Goal {
    /// At least this much work per second.
    pub(super) rate: f64,
    /// At most this much processor time per piece of work.
    pub(super) cpu: f64,
}

impl Findings {
    /// Nothing yet.
    pub(super) fn new(title: &'static str, goal: Option<Goal>) -> Self {
        let (comparisons, micro, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { title, goal, comparisons, mesh: None, micro, notes }
    }

    /// Adds something in words.
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn text(&self, to: &mut String) {
        let _ = writeln!(to, "\n{}", self.title);
        if !self.comparisons.is_empty() {
            let _ = writeln!(
                to,
                "  {:<26}{:<16}{:<16}{:<24}{:<24}{:<24}samples spoilt",
                "", "", "against", "per second", "CPU per unit", "CPU, rig alone"
            );
        }
        for one in &self.comparisons {
            let _ = writeln!(
                to,
                "  {:<26}{:<16}{:<16}{:<24}{:<24}{:<24}{} of {}{}",
                one.load,
                one.variant,
                one.baseline,
                ratio(one.rate),
                ratio(one.cpu),
                ratio(one.own_cpu),
                one.spoilt,
                one.samples,
                self.goal.map_or("", |goal| goal.verdict(one)),
            );
        }
        if let Some(goal) = self.goal {
            let (rate, cpu) = (goal.rate, goal.cpu);
            let _ = writeln!(to, "  goal: at least {rate:.2} per second, at most {cpu:.2} CPU");
        }
        if let Some(outcome) = &self.mesh {
            outcome.text(to);
        }
        for step in &self.micro {
            let _ = writeln!(to, "  {step}");
        }
        for note in &self.notes {
            let _ = writeln!(to, "  {note}");
        }
    }
}

impl Goal {
    fn verdict(self, found: &Comparison) -> &'static str {
        let met = found.rate.median >= self.rate && found.cpu.median <= self.cpu;
        if met { "" } else { "  MISSED" }
    }
}

impl Report {
    /// An empty one about this machine.
    pub(super) fn new(plan: Plan) -> Result<Self> {
        Ok(Self { machine: machine()?, plan, findings: Vec::new() })
    }

    /// Adds the findings of a benchmark.
    pub(super) fn add(&mut self, findings: Findings) {
        self.findings.push(findings);
    }

    /// For a terminal. Ratios are shown as median and quartiles.
    pub(super) fn text(&self) -> String {
        let Plan { rounds, each } = self.plan;
        let mut text = format!(
            "{}\n{rounds} rounds of {each:?} each; median [quartiles] of the rounds' ratios\n",
            self.machine
        );
        for findings in &self.findings {
            findings.text(&mut text);
        }
        text
    }
}

fn ratio(ratio: Ratio) -> String {
    format!("{:.3} [{:.3} {:.3}]", ratio.median, ratio.lower, ratio.upper)
}

/// Processor, memory and kernel.
fn machine() -> Result<String> {
    let line = |file: &str, key: &str| -> Result<String> {
        let text = fs::read_to_string(file)?;
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value);
        Ok(value.trim().to_owned())
    };
    let processors = std::thread::available_parallelism()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{processors} x {}, {} memory, Linux {}",
        line("/proc/cpuinfo", "model name")?,
        line("/proc/meminfo", "MemTotal")?,
        release.trim()
    ))
}
