//! What a virtual machine's run comes to: put together from its events and from how it ended. Pure;
//! a machine that says nothing has failed everything that it was asked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use undermesh_tests::vm::{Event, PlannedTest};

use super::budget;

/// A run of one kernel.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    /// What has been asked for: `6.12`, `newest`, `rc`.
    pub(crate) choice: String,
    /// Version of the package; empty where none could be had.
    pub(crate) version: String,
    /// What `uname -r` says; empty where it did not get so far.
    pub(crate) release: String,
    /// From power on until the modules are loaded.
    pub(crate) boot_seconds: f64,
    /// From power on to power off.
    pub(crate) seconds: f64,
    /// Everything that has been checked, in order.
    pub(crate) checks: Vec<Check>,
    /// What the verifier has said about each program.
    pub(crate) programs: Vec<Program>,
    /// How it ended.
    pub(crate) ending: Ending,
    /// The kernel's console.
    pub(crate) console: PathBuf,
}

/// One thing that has been checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) passed: bool,
    pub(crate) seconds: f64,
    /// Why it has failed.
    pub(crate) reason: String,
}

/// What the verifier has said about a program, as `undermesh verify` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) hook: String,
    pub(crate) refused: Option<String>,
    pub(crate) instructions: u32,
    pub(crate) jited_bytes: u32,
    pub(crate) processed: u32,
    pub(crate) total_states: u32,
    pub(crate) peak_states: u32,
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "what")]
pub(crate) enum Ending {
    /// It has run everything and powered off.
    Done,
    /// The kernel panicked, with these words.
    Panicked(String),
    /// It was stopped: nothing had come for too long.
    Stopped(String),
    /// It ended by itself, too early.
    Died(String),
    /// It never began.
    NotBooted(String),
}

impl Ending {
    /// Tells a panic from other early ends by the kernel's console.
    pub(crate) fn early(console: &str, otherwise: Self) -> Self {
        let line = console.lines().find(|line| line.contains("Kernel panic - not syncing"));
        line.map_or(otherwise, |line| Self::Panicked(line.trim().to_owned()))
    }

    /// Why what has not been run has not been; `None` where everything was.
    fn reason(&self) -> Option<String> {
        match self {
            Self::Done => None,
            Self::Panicked(line) => Some(format!("the kernel panicked: {line}")),
            Self::Stopped(why) => Some(format!("stopped: {why}")),
            Self::Died(how) => Some(format!("the machine ended early: {how}")),
            Self::NotBooted(why) => Some(format!("not booted: {why}")),
        }
    }
}

impl Outcome {
    /// Nothing yet.
    pub(crate) fn new(choice: &str, version: &str, console: PathBuf) -> Self {
        Self {
            choice: choice.to_owned(),
            version: version.to_owned(),
            release: String::new(),
            boot_seconds: 0.0,
            seconds: 0.0,
            checks: Vec::new(),
            programs: Vec::new(),
            ending: Ending::Done,
            console,
        }
    }

    /// Takes what an event adds, `at` seconds after power on; the new checks are at the end.
    pub(crate) fn take(&mut self, event: Event, at: f64) {
        match event {
            Event::Booted { release } => {
                self.release = release;
                self.boot_seconds = at;
            }
            Event::SetupFailed { reason } => self.fail("setup", reason),
            Event::Programs { programs } => match serde_json::from_value(programs) {
                Ok(programs) => self.take_programs(programs),
                Err(error) => self.fail("setup", format!("undermesh verify: {error}")),
            },
            Event::Finished { name, passed, seconds, output } => {
                self.checks.push(Check { name, passed, seconds, reason: output });
            }
            Event::Started { .. } | Event::Done => {}
        }
    }

    fn take_programs(&mut self, programs: Vec<Program>) {
        if programs.is_empty() {
            self.fail("setup", "undermesh verify names no program".to_owned());
        }
        for program in &programs {
            let complaint = program.refused.clone().or_else(|| budget::crossed(program));
            self.checks.push(Check {
                name: format!("verifier::{}", program.name),
                passed: complaint.is_none(),
                seconds: 0.0,
                reason: complaint.unwrap_or_default(),
            });
        }
        self.programs = programs;
    }

    fn fail(&mut self, name: &str, reason: String) {
        self.checks.push(Check { name: name.to_owned(), passed: false, seconds: 0.0, reason });
    }

    /// Ends the run: what was planned and has no result has failed.
    pub(crate) fn end(&mut self, ending: Ending, planned: &[PlannedTest], seconds: f64) {
        let reason = ending.reason();
        self.seconds = seconds;
        self.ending = ending;
        if self.programs.is_empty() && !self.checks.iter().any(|check| check.name == "setup") {
            self.fail("setup", reason.clone().unwrap_or_else(|| "no program was tried".to_owned()));
        }
        for test in planned.iter().map(PlannedTest::name) {
            if !self.checks.iter().any(|check| check.name == test) {
                self.fail(&test, reason.clone().unwrap_or_else(|| "no result".to_owned()));
            }
        }
    }

    /// Number of checks that have passed, and that have not.
    pub(crate) fn tally(&self) -> (usize, usize) {
        let passed = self.checks.iter().filter(|check| check.passed).count();
        (passed, self.checks.len() - passed)
    }

    /// What to call the kernel in a line.
    pub(crate) fn kernel(&self) -> &str {
        if self.version.is_empty() { &self.choice } else { &self.version }
    }
}

#[cfg(test)]
mod tests;
