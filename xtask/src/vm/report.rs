//! What a run prints: a line per kernel and check as they come, then the reasons of what failed, a
//! table, and `N passed, N failed`.

use std::fmt::Write as _;

use super::{
    boot,
    outcome::{Check, Ending, Outcome},
};

/// Lines of the kernel's console that a failed run shows.
const CONSOLE_LINES: usize = 25;

/// One check, on one line.
pub(crate) fn line(kernel: &str, check: &Check) -> String {
    let verdict = if check.passed { "ok" } else { "FAILED" };
    let Check { name, seconds, .. } = check;
    let took = if *seconds > 0.0 { format!(" {seconds:.1} s") } else { String::new() };
    format!("{kernel:<18} {verdict:<6} {name}{took}")
}

/// Why things failed, kernel by kernel; empty where nothing did.
pub(crate) fn failures(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        let mut said = "";
        for check in outcome.checks.iter().filter(|check| !check.passed) {
            // What a panic has cut off need not be told a dozen times.
            if check.reason != said {
                let _ = writeln!(text, "\n{}: {}\n{}", outcome.kernel(), check.name, check.reason);
            }
            said = &check.reason;
        }
        if outcome.ending != Ending::Done {
            let console = boot::tail(&outcome.console, CONSOLE_LINES);
            let place = outcome.console.display();
            let _ = writeln!(text, "\n{}: the end of {place}\n{console}", outcome.kernel());
        }
    }
    text
}

/// How each kernel did, and what has failed there.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from("kernel              passed  failed  boot s  seconds  ending\n");
    for outcome in outcomes {
        let (passed, failed) = outcome.tally();
        let Outcome { boot_seconds, seconds, .. } = outcome;
        let ending = ending(&outcome.ending);
        let kernel = outcome.kernel();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{kernel:<18}  {passed:>6}  {failed:>6}  {boot_seconds:>6.1}  {seconds:>7.1}  {ending}"
        );
    }
    for outcome in outcomes {
        for check in outcome.checks.iter().filter(|check| !check.passed) {
            let _ = writeln!(text, "failed: {} {}", outcome.kernel(), check.name);
        }
    }
    text
}

/// The last line of a run: `N passed, N failed`.
pub(crate) fn total(outcomes: &[Outcome]) -> String {
    let tallies = outcomes.iter().map(Outcome::tally);
    let (passed, failed) = tallies.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    format!("{passed} passed, {failed} failed\n")
}

/// How a machine ended, in a word.
pub(crate) fn ending(ending: &Ending) -> &'static str {
    match ending {
        Ending::Done => "done",
        Ending::Panicked(_) => "PANIC",
        Ending::Stopped(_) => "STOPPED",
        Ending::Died(_) => "DIED",
        Ending::NotBooted(_) => "NOT BOOTED",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        let mut outcome = Outcome::new("6.12", "6.12.1-1", PathBuf::from("/no/such/console"));
        for (name, passed, reason) in [("a", true, ""), ("b", false, "why"), ("c", false, "why")] {
            let (name, reason) = (name.to_owned(), reason.to_owned());
            outcome.checks.push(Check { name, passed, seconds: 1.0, reason });
        }
        outcome.ending = ending;
        outcome
    }

    #[test]
    fn a_line_names_kernel_verdict_and_check() {
        let outcome = outcome(Ending::Done);
        assert_eq!(line("6.12.1-1", &outcome.checks[0]), "6.12.1-1           ok     a 1.0 s");
        assert_eq!(line("6.12.1-1", &outcome.checks[1]), "6.12.1-1           FAILED b 1.0 s");
    }

    #[test]
    fn the_last_line_sums_every_kernel_and_the_table_names_each_failure() {
        let panicked = outcome(Ending::Panicked("Kernel panic".to_owned()));
        let outcomes = [outcome(Ending::Done), panicked];
        assert_eq!(total(&outcomes), "2 passed, 4 failed\n");
        let text = table(&outcomes);
        assert_eq!(text.matches("failed: 6.12.1-1 b").count(), 2);
        assert!(text.contains("PANIC"), "{text}");
    }

    #[test]
    fn a_reason_that_many_checks_share_is_told_once() {
        let text = failures(&[outcome(Ending::Done)]);
        assert_eq!(text.matches("why").count(), 1, "{text}");
        assert!(!text.contains("console"), "{text}");
        assert!(failures(&[outcome(Ending::Died(String::new()))]).contains("/no/such/console"));
    }
}
