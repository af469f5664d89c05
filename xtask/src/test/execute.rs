//! Runs one test executable, shows its output as it comes, and counts what it says. One that
//! exceeds its deadline is killed; one that dies without a result counts as a failure.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::summary::Tally;
use crate::command;

/// Lines that may wait to be shown; the executable blocks beyond that.
const PENDING_LINES: usize = 1024;

/// Runs `command` for at most `limit`; `label` names it in failures.
pub(crate) fn run(command: &mut Command, label: &str, limit: Duration) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", command::display(command)))?;
    let lines = lines(&mut child)?;
    let mut tally = Tally::default();
    let finished = show(&lines, limit, &mut tally);
    if !finished {
        child.kill().with_context(|| format!("cannot stop {label}"))?;
    }
    let status = child.wait().with_context(|| format!("cannot wait for {label}"))?;
    if !finished {
        tally.fail(format!("{label}: killed, not done after {} s", limit.as_secs()));
    } else if !status.success() && tally.failed() == 0 {
        tally.fail(format!("{label}: ended without a failed test ({status})"));
    } else if status.success() && tally.results() == 0 {
        tally.fail(format!("{label}: ended without a test result"));
    }
    Ok(tally)
}

/// Prints and counts until the output ends; false when `limit` passes first.
fn show(lines: &Receiver<String>, limit: Duration, tally: &mut Tally) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                tally.read(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// The child's output line by line, from a thread, so that waiting for it can have an end.
fn lines(child: &mut Child) -> Result<Receiver<String>> {
    let output = child.stdout.take().context("a test without output")?;
    let (sender, receiver) = sync_channel(PENDING_LINES);
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Tally {
        run(Command::new("sh").args(["-c", script]), "it", limit).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn results_are_counted_from_the_output() {
        let tally = shell(
            "echo 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out'",
            LONG,
        );
        assert_eq!((tally.passed(), tally.failed()), (3, 0));
    }

    #[test]
    fn an_executable_that_dies_without_a_result_is_a_failure_with_its_status() {
        let tally = shell("exit 7", LONG);
        assert_eq!(tally.failed(), 1);
        assert!(tally.failures()[0].contains("exit status: 7"), "{tally:?}");
    }

    #[test]
    fn silence_with_success_is_a_failure_too() {
        assert_eq!(shell("true", LONG).failed(), 1);
    }

    #[test]
    fn an_executable_that_hangs_is_killed_and_counted() {
        let tally = shell("exec sleep 600", Duration::from_millis(50));
        assert_eq!(tally.failed(), 1);
        assert!(tally.failures()[0].contains("killed"), "{tally:?}");
    }
}
