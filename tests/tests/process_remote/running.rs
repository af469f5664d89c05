//! Commands that go on.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use undermesh_tests::wait_for;

use super::SOON;

/// A command that goes on, and what it says.
pub(super) struct Running {
    process: Child,
    pub(super) out: Arc<Mutex<Vec<String>>>,
    err: Arc<Mutex<Vec<String>>>,
}

fn gather(stream: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            shared.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    lines
}

impl Running {
    pub(super) fn start(mut command: Command) -> Result<Self> {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let out = gather(process.stdout.take().context("no output")?);
        let err = gather(process.stderr.take().context("no errors")?);
        Ok(Self { process, out, err })
    }

    fn wait(lines: &Mutex<Vec<String>>, part: &str) -> Result<String> {
        wait_for(&format!("a line with {part:?}"), SOON, || {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(lines.iter().find(|line| line.contains(part)).cloned())
        })
    }

    pub(super) fn says(&self, part: &str) -> Result<String> {
        Self::wait(&self.out, part)
    }

    pub(super) fn complains(&self, part: &str) -> Result<String> {
        Self::wait(&self.err, part)
    }

    /// Ctrl-C.
    pub(super) fn interrupt(&mut self) -> Result<Option<i32>> {
        kill_process(Pid::from_child(&self.process), Signal::INT)?;
        Ok(self.process.wait()?.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
