//! Runs the checks, side by side, so that one that hangs or fails does not keep the others from
//! being heard.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    catalogue::Kind,
    finding::{Check, Finding, Row, Severity},
    situation::Situation,
};

/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The rows of all checks, in their order.
pub(super) fn run(checks: &[Check], situation: &Arc<Situation>) -> Vec<Row> {
    run_within(checks, situation, PATIENCE)
}

fn run_within(checks: &[Check], situation: &Arc<Situation>, patience: Duration) -> Vec<Row> {
    let deadline = Instant::now() + patience;
    let started: Vec<_> = checks.iter().map(|check| (check, start(*check, situation))).collect();
    let mut rows = Vec::new();
    for (check, answer) in started {
        let left = deadline.saturating_duration_since(Instant::now());
        rows.extend(self::rows(check, answer.recv_timeout(left), patience));
    }
    rows
}

/// A check on a thread of its own. One that never returns ends with the process.
fn start(check: Check, situation: &Arc<Situation>) -> mpsc::Receiver<Vec<Finding>> {
    let (sender, receiver) = mpsc::channel();
    let situation = Arc::clone(situation);
    thread::spawn(move || {
        // Nobody waits any more? Then nobody wants to know.
        let _ = sender.send((check.run)(&situation));
    });
    receiver
}

fn rows(
    check: &Check,
    answer: Result<Vec<Finding>, mpsc::RecvTimeoutError>,
    patience: Duration,
) -> Vec<Row> {
    let findings = match answer {
        Ok(findings) => findings,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let found = format!("it has not ended after {patience:?}");
            vec![Finding::new(Kind::CheckTimedOut, check.name, found)]
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            vec![Finding::new(Kind::CheckFailed, check.name, "it has ended without an answer")]
        }
    };
    let fine = findings.iter().all(|finding| finding.kind.severity() <= Severity::Note);
    let ok = fine.then(|| Row::ok(check.name));
    ok.into_iter().chain(findings.into_iter().map(|it| Row::of(check.name, it))).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::RawConfig;

    fn situation() -> Arc<Situation> {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            settings: RawConfig,
        }
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let admin = format!("--admin-address={nobody}");
        let flags = <Flags as clap::Parser>::parse_from(["test", admin.as_str()]);
        Arc::new(Situation::find(true, None, flags.settings).unwrap())
    }

    /// A panic that prints its stack takes its time on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(3);

    fn ids(checks: &[Check]) -> Vec<(&'static str, &'static str)> {
        let rows = run_within(checks, &situation(), PATIENCE);
        rows.iter().map(|row| (row.check, row.id)).collect()
    }

    #[test]
    fn a_check_that_hangs_or_fails_is_a_finding_and_keeps_nobody_waiting() {
        let checks = [
            Check {
                name: "hangs",
                run: |_| loop {
                    thread::park();
                },
            },
            Check { name: "fails", run: |_| panic!("on purpose") },
            Check { name: "works", run: |_| Vec::new() },
        ];
        let expected = [("hangs", "check-timed-out"), ("fails", "check-failed"), ("works", "ok")];
        assert_eq!(ids(&checks), expected);
    }

    #[test]
    fn a_check_with_nothing_worse_than_notes_is_fine() {
        let note = |_: &Situation| vec![Finding::new(Kind::CniFound, "x", "y")];
        let warning = |_: &Situation| vec![Finding::new(Kind::JitOff, "x", "y")];
        let checks = [Check { name: "a", run: note }, Check { name: "b", run: warning }];
        assert_eq!(ids(&checks), [("a", "ok"), ("a", "cni-found"), ("b", "jit-off")]);
    }
}
