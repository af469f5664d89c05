//! One virtual machine, from power on to its end, with an eye on the clock.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use undermesh_tests::vm::{Event, PlannedTest};

use super::{
    outcome::{Check, Ending, Outcome},
    ring,
};
use crate::command;

/// From power on to the first word; three seconds, on a machine that is not busy.
const BOOT_WITHIN: Duration = Duration::from_secs(120);
/// What a test may take beyond its limit, for the machine to kill it and say so.
const GRACE: Duration = Duration::from_secs(60);
/// A whole run.
const RUN_WITHIN: Duration = Duration::from_secs(45 * 60);
/// Events that may wait to be read.
const PENDING: usize = 256;

/// A machine to be run.
pub(crate) struct Run<'a> {
    /// QEMU and its arguments.
    pub(crate) command: Command,
    /// Where the kernel's console goes.
    pub(crate) console: &'a Path,
    /// What it will try.
    pub(crate) tests: &'a [PlannedTest],
}

impl Run<'_> {
    /// Runs to the end. Each check is shown as it comes.
    pub(crate) fn finish(
        mut self,
        outcome: &mut Outcome,
        mut show: impl FnMut(&Check),
    ) -> Result<()> {
        let started = Instant::now();
        let qemu_errors = self.console.with_extension("qemu");
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&qemu_errors)?)
            .spawn()
            .with_context(|| format!("cannot start `{}`", command::display(&self.command)))?;
        let events = events(&mut child)?;
        let stopped = follow(&events, started, outcome, &mut show);
        if stopped.is_some() {
            child.kill().context("cannot stop QEMU")?;
        }
        let status = child.wait().context("cannot wait for QEMU")?;
        let ending = match stopped {
            Some(why) => Ending::early(&read(self.console), Ending::Stopped(why)),
            None if status.success() && self.is_whole(outcome) => Ending::Done,
            None => {
                let said = format!("{status} {}", read(&qemu_errors).trim());
                Ending::early(&read(self.console), Ending::Died(said))
            }
        };
        // It is of interest only in the ending.
        let _ = fs::remove_file(&qemu_errors);
        let known = outcome.checks.len();
        outcome.end(ending, self.tests, started.elapsed().as_secs_f64());
        outcome.checks[known..].iter().for_each(show);
        Ok(())
    }

    /// Whether every test has a result.
    fn is_whole(&self, outcome: &Outcome) -> bool {
        let has = |name: String| outcome.checks.iter().any(|check| check.name == name);
        self.tests.iter().all(|test| has(test.name()))
    }
}

/// Takes events until they end; the answer is why the machine has to be stopped, if it has to.
fn follow(
    events: &Receiver<Event>,
    started: Instant,
    outcome: &mut Outcome,
    show: &mut impl FnMut(&Check),
) -> Option<String> {
    let mut patience = BOOT_WITHIN;
    loop {
        let left = (started + RUN_WITHIN).saturating_duration_since(Instant::now());
        match events.recv_timeout(patience.min(left)) {
            Ok(event) => {
                patience = match &event {
                    Event::Started { .. } => ring::limit() + GRACE,
                    _ => GRACE * 2,
                };
                let known = outcome.checks.len();
                outcome.take(event, started.elapsed().as_secs_f64());
                outcome.checks[known..].iter().for_each(&mut *show);
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                return Some(format!("nothing came for {} s", patience.min(left).as_secs()));
            }
        }
    }
}

/// The machine's events, from a thread, so that waiting for one can have an end. What is no event
/// (firmware may greet on any port) is passed over.
fn events(child: &mut Child) -> Result<Receiver<Event>> {
    let output = child.stdout.take().context("QEMU without output")?;
    let (sender, receiver) = sync_channel(PENDING);
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if let Ok(event) = serde_json::from_slice(&line)
                && sender.send(event).is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The last lines of a console.
pub(crate) fn tail(console: &Path, lines: usize) -> String {
    let text = read(console);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests;
