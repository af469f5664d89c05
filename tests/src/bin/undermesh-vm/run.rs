//! Runs the agent's own measurement of the programs, and tests, each one in a process of its own
//! and with an end.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use undermesh_tests::{
    vm::{Event, PROGRAMS, PlannedTest},
    wait_for,
};

/// Where a test's output goes until it is known whether somebody wants it.
const OUTPUT: &str = "/tmp/output";
/// Lines of a failed test's output that are told; a serial port is slow.
const OUTPUT_LINES: usize = 60;
/// The same in bytes.
const OUTPUT_BYTES: usize = 16 << 10;
/// How long loading all programs may take.
const VERIFY_WITHIN: Duration = Duration::from_secs(60);

/// What the kernel's verifier says about every program.
pub(crate) fn programs() -> Result<serde_json::Value> {
    let mut command = Command::new(Path::new(PROGRAMS).join("undermesh"));
    command.args(["verify", "-o", "json"]);
    let status = finish(&mut command, VERIFY_WITHIN)?;
    let output = fs::read_to_string(OUTPUT)?;
    // A program that is refused is part of the answer, though it makes the command fail.
    serde_json::from_str(&output)
        .with_context(|| format!("undermesh verify ({status}) said: {}", end_of(&output)))
}

/// Runs a test.
pub(crate) fn test(test: &PlannedTest) -> Event {
    let started = Instant::now();
    let verdict = verdict(test);
    let output = verdict.as_ref().err().map(|error| {
        let written = fs::read(OUTPUT).unwrap_or_default();
        format!("{}\n{error:#}", end_of(&String::from_utf8_lossy(&written)))
    });
    Event::Finished {
        name: test.name(),
        passed: verdict.is_ok(),
        seconds: started.elapsed().as_secs_f64(),
        output: output.unwrap_or_default(),
    }
}

fn verdict(test: &PlannedTest) -> Result<()> {
    let mut command = Command::new(Path::new(PROGRAMS).join(&test.program));
    command.args([&test.test, "--exact", "--nocapture", "--test-threads=1"]);
    let status = finish(&mut command, test.limit())?;
    ensure!(status.success(), "{} ended with {status}", test.name());
    let output = fs::read(OUTPUT)?;
    // A filter that matches nothing is a success to libtest.
    ensure!(
        String::from_utf8_lossy(&output).contains("test result: ok. 1 passed"),
        "{} has no test {}",
        test.program,
        test.test
    );
    Ok(())
}

/// Runs a command to its end, or to that of its time, with all its output in a file.
fn finish(command: &mut Command, within: Duration) -> Result<ExitStatus> {
    let output = File::create(OUTPUT)?;
    let mut child = command
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let ended = wait_for("the end of it", within, || Ok(child.try_wait()?));
    if ended.is_err() {
        kill(&mut child)?;
    }
    ended.with_context(|| format!("killed: {command:?} took too long"))
}

fn kill(child: &mut Child) -> Result<()> {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process_group(group, Signal::KILL).context("cannot kill what took too long")?;
    }
    child.wait()?;
    Ok(())
}

/// The last lines of an output.
fn end_of(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let text = lines[lines.len().saturating_sub(OUTPUT_LINES)..].join("\n");
    let mut start = text.len().saturating_sub(OUTPUT_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}
