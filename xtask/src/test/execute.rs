//! Runs test executables, shows their output, and counts what they say. One that exceeds its deadline
//! is killed; one that dies without a result counts as a failure.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{ring::Ring, summary::Tally};
use crate::command;

/// Lines that may wait to be shown; the executable blocks beyond that.
const PENDING_LINES: usize = 1024;

/// An executable, and what it is called.
pub(crate) struct Execution {
    /// For headings and failures.
    pub(crate) label: String,
    /// With its arguments.
    pub(crate) command: Command,
}

/// Runs all, so many at a time, each for at most `limit`. What one says that runs alone is shown as it
/// comes; of several, what each has said when it ends.
pub(crate) fn run_all(
    executions: Vec<Execution>,
    ring: Ring,
    at_once: usize,
    limit: Duration,
) -> Result<Tally> {
    let queue = Mutex::new(executions.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Tally> {
        let mut total = Tally::default();
        while let Some(Execution { label, mut command }) = next() {
            let mut text = String::new();
            let mut say = |line: &str| match at_once {
                1 => println!("{line}"),
                _ => text.extend([line, "\n"]),
            };
            say(&format!("\n{ring}: {label}"));
            let ran = run(&mut command, &label, limit, &mut say);
            print!("{text}");
            // What cannot be run is a failure, and none of the others'.
            match ran {
                Ok(tally) => total.add(tally),
                Err(error) => total.fail(format!("{label}: {error:#}")),
            }
        }
        Ok(total)
    };
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker has panicked")))
            .collect()
    });
    let mut total = Tally::default();
    for tally in tallies {
        total.add(tally?);
    }
    Ok(total)
}

/// Runs `command` for at most `limit`; `label` names it in failures, and `say` takes its lines.
fn run(
    command: &mut Command,
    label: &str,
    limit: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", command::display(command)))?;
    let lines = lines(&mut child)?;
    let mut tally = Tally::default();
    let finished = show(&lines, limit, &mut tally, say);
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

/// Shows and counts until the output ends; false when `limit` passes first.
fn show(
    lines: &Receiver<String>,
    limit: Duration,
    tally: &mut Tally,
    say: &mut dyn FnMut(&str),
) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                say(&line);
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
        run(Command::new("sh").args(["-c", script]), "it", limit, &mut |_| {}).unwrap()
    }

    fn executions(scripts: &[&str]) -> Vec<Execution> {
        let execution = |script: &&str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Execution { label: "it".to_owned(), command }
        };
        scripts.iter().map(execution).collect()
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

    #[test]
    fn all_are_run_and_counted_however_many_at_once() {
        const ONE: &str = "echo 'test result: ok. 1 passed; 0 failed'";
        for at_once in [1, 2, 5] {
            let all = executions(&[ONE, "exit 7", ONE]);
            let tally = run_all(all, Ring::Unit, at_once, LONG).unwrap();
            assert_eq!((tally.passed(), tally.failed()), (2, 1), "{at_once} at once");
        }
    }

    #[test]
    fn two_at_once_run_at_the_same_time() {
        // Each waits for the other.
        let name = |who: &str| {
            std::env::temp_dir().join(format!("undermesh-xtask-{}-{who}", std::process::id()))
        };
        let script = |own: &str, other: &str| {
            let (own, other) = (name(own), name(other));
            let (own, other) = (own.display(), other.display());
            format!(
                "touch {own}; until test -e {other}; do sleep 0.01; done
                 echo 'test result: ok. 1 passed; 0 failed'"
            )
        };
        let scripts = [script("a", "b"), script("b", "a")];
        let all = executions(&scripts.each_ref().map(String::as_str));
        let tally = run_all(all, Ring::Process, 2, LONG).unwrap();
        assert_eq!((tally.passed(), tally.failed()), (2, 0), "{tally:?}");
        for who in ["a", "b"] {
            std::fs::remove_file(name(who)).unwrap();
        }
    }
}
