//! Runs test executables, shows their output, and counts what they say. One that exceeds its limits
//! is killed; one that dies without a result counts as a failure.

mod output;

use std::{
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{ring::Ring, summary::Tally};
use crate::command;
use output::Said;

/// How long the last words of an executable that has ended are waited for. What it has left behind may hold its
/// standard error open for longer.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// An executable, and what it is called.
pub(crate) struct Execution {
    /// For headings and failures.
    pub(crate) label: String,
    /// With its arguments.
    pub(crate) command: Command,
}

/// How long one executable may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Without a line of its standard output: each test ends with one, so this is a test's, however many there are.
    pub(crate) silence: Duration,
    /// In all, whatever it says.
    pub(crate) whole: Duration,
}

/// Runs all, so many at a time. What one says that runs alone is shown as it comes; of several, what each has said when
/// it ends, its standard error in its place.
pub(crate) fn run_all(
    executions: Vec<Execution>,
    ring: Ring,
    at_once: usize,
    limits: Limits,
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
            if at_once > 1 {
                command.stderr(Stdio::piped());
            }
            let ran = run(&mut command, &label, limits, &mut say);
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

/// Runs `command`; `label` names it in failures, and `say` takes its lines.
fn run(
    command: &mut Command,
    label: &str,
    limits: Limits,
    say: &mut dyn FnMut(&str),
) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", command::display(command)))?;
    let said = output::of(&mut child)?;
    let mut tally = Tally::default();
    let exceeded = show(&said, limits, &mut tally, say);
    if exceeded.is_some() {
        child.kill().with_context(|| format!("cannot stop {label}"))?;
    }
    let status = child.wait().with_context(|| format!("cannot wait for {label}"))?;
    let deadline = Instant::now() + LAST_WORDS;
    while let Ok(last) = said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Said::Out(line) | Said::Err(line) = last {
            say(&line);
        }
    }
    if let Some(why) = exceeded {
        let why = format!("{label}: killed: {why}");
        say(&why);
        tally.fail(why);
    } else if !status.success() && tally.failed() == 0 {
        tally.fail(format!("{label}: ended without a failed test ({status})"));
    } else if status.success() && tally.results() == 0 {
        tally.fail(format!("{label}: ended without a test result"));
    }
    Ok(tally)
}

/// Shows and counts until the output ends, or until a limit passes, and says which.
fn show(
    said: &Receiver<Said>,
    limits: Limits,
    tally: &mut Tally,
    say: &mut dyn FnMut(&str),
) -> Option<String> {
    let mut heard = Instant::now();
    let end = heard + limits.whole;
    let mut running = None;
    loop {
        let until = end.min(heard + limits.silence);
        match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Said::Out(line)) => {
                say(&line);
                tally.read(&line);
                (heard, running) = (Instant::now(), None);
            }
            Ok(Said::Err(line)) => say(&line),
            Ok(Said::Begun(name)) => running = Some(name),
            Ok(Said::Ended) | Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // What fills standard error is no excuse.
        let now = Instant::now();
        if now < until {
            continue;
        }
        let test = running.map(|name| format!(", in the test {name}")).unwrap_or_default();
        return Some(if now >= end {
            format!("it takes longer than {} s in all{test}", limits.whole.as_secs())
        } else {
            format!("no test has ended for {} s{test}", limits.silence.as_secs())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limits: Limits) -> Tally {
        run(Command::new("sh").args(["-c", script]), "it", limits, &mut |_| {}).unwrap()
    }

    fn executions(scripts: &[&str]) -> Vec<Execution> {
        let execution = |script: &&str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Execution { label: "it".to_owned(), command }
        };
        scripts.iter().map(execution).collect()
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const LONG: Limits = Limits { silence: MINUTE, whole: MINUTE };

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
        let short = Limits { silence: Duration::from_millis(300), whole: MINUTE };
        let script = "printf 'test one ... '; echo ok; printf 'test a::two ... '; exec sleep 600";
        let tally = shell(script, short);
        let failures = ["it: killed: no test has ended for 0 s, in the test a::two"];
        assert_eq!(tally.failures(), failures);
    }

    #[test]
    fn what_goes_on_is_not_silent_but_for_its_errors_and_has_an_end_too() {
        let brief = Duration::from_millis(700);
        let silence = Limits { silence: brief, whole: MINUTE };
        let done = "echo 'test result: ok. 1 passed; 0 failed'";
        let slow = format!("for i in 1 2 3 4 5; do sleep 0.3; echo $i; done; {done}");
        let tally = shell(&slow, silence);
        assert_eq!((tally.passed(), tally.failed()), (1, 0), "{tally:?}");
        let endless = |to: &str| format!("while echo still; do sleep 0.1; done >&{to}");
        let mut command = Command::new("sh");
        command.args(["-c", &endless("2")]).stderr(Stdio::piped());
        let tally = run(&mut command, "it", silence, &mut |_| {}).unwrap();
        assert_eq!(tally.failures(), ["it: killed: no test has ended for 0 s"]);
        let tally = shell(&endless("1"), Limits { silence: MINUTE, whole: brief });
        assert_eq!(tally.failures(), ["it: killed: it takes longer than 0 s in all"]);
    }

    #[test]
    fn errors_of_one_stand_among_what_it_says_and_count_for_nothing() {
        let script =
            "echo one; sleep 0.2; echo 'test result: ok. 9 passed; 0 failed' >&2; sleep 0.2
             echo 'test result: ok. 1 passed; 0 failed'; sleep 0.2; printf last >&2";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stderr(Stdio::piped());
        let mut lines = Vec::new();
        let tally = run(&mut command, "it", LONG, &mut |line| lines.push(line.to_owned())).unwrap();
        assert_eq!((tally.passed(), tally.failed()), (1, 0), "{tally:?}");
        let nine = "test result: ok. 9 passed; 0 failed";
        assert_eq!(lines, ["one", nine, "test result: ok. 1 passed; 0 failed", "last"]);
    }

    #[test]
    fn what_an_executable_leaves_behind_keeps_nobody_waiting() {
        let script = "sleep 30 >/dev/null & echo 'test result: ok. 1 passed; 0 failed'";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stderr(Stdio::piped());
        let began = Instant::now();
        let tally = run(&mut command, "it", LONG, &mut |_| {}).unwrap();
        assert_eq!((tally.passed(), tally.failed()), (1, 0), "{tally:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
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
