//! One target, for so many seconds: libFuzzer as a child, watched line by line.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{build::Fuzzer, output::Seen, targets::Target};
use crate::workspace::Workspace;

/// Longest input, in bytes.
const LONGEST: &str = "-max_len=16384";
/// Memory of a target, in MiB. More is a finding.
const MEMORY: &str = "-rss_limit_mb=2048";
/// Seconds that one input may take. More is a finding.
const PATIENCE: &str = "-timeout=10";
/// How often progress is reported.
const PULSE: Duration = Duration::from_secs(15);

/// What a campaign has brought.
pub(super) struct Outcome {
    pub(super) target: String,
    pub(super) seen: Seen,
    pub(super) took: Duration,
    /// What is wrong, if anything is.
    pub(super) finding: Option<String>,
}

/// Runs a target. Its corpus stays for the next run.
pub(super) fn run(
    workspace: &Workspace,
    fuzzer: &Fuzzer,
    target: &Target,
    each: Duration,
) -> Result<Outcome> {
    let directory = workspace.fuzzing().join("run").join(&target.name);
    let findings = directory.join("findings");
    fs::create_dir_all(&findings)
        .with_context(|| format!("cannot create {}", findings.display()))?;
    fuzzer.prepare(target, &directory)?;
    let mut command = fuzzer.command(target);
    command
        .arg(directory.join("corpus"))
        .arg(format!("-dict={}", directory.join("dictionary").display()))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(format!("-max_total_time={}", each.as_secs()))
        .args([LONGEST, MEMORY, PATIENCE, "-print_final_stats=1"]);
    println!("{}: {} s, at most", target.name, each.as_secs());
    let started = Instant::now();
    let log = directory.join("log");
    let (seen, success) = watch(&mut command, target, &log, started + each)?;
    let finding = (!success).then(|| {
        let wrong = seen.wrong.clone();
        wrong.unwrap_or_else(|| format!("it ended with an error: see {}", log.display()))
    });
    Ok(Outcome { target: target.name.clone(), seen, took: started.elapsed(), finding })
}

/// Follows the child to its end; whether that was a good one.
fn watch(
    command: &mut Command,
    target: &Target,
    log: &Path,
    ends: Instant,
) -> Result<(Seen, bool)> {
    let about = || format!("cannot run {}", target.name);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(about)?;
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let output = child.stderr.take().context("a child without output")?;
    let mut seen = Seen::default();
    let mut told = Instant::now();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(about)?;
        log.write_all(&line).and_then(|()| log.write_all(b"\n")).with_context(about)?;
        seen.read(&String::from_utf8_lossy(&line));
        if told.elapsed() >= PULSE {
            told = Instant::now();
            let left = ends.saturating_duration_since(told).as_secs();
            let Seen { executions, coverage, corpus, .. } = &seen;
            println!(
                "{}: {executions} executions, {coverage} edges, {corpus} inputs kept, {left} s left",
                target.name
            );
        }
    }
    let status = child.wait().with_context(about)?;
    Ok((seen, status.success()))
}
