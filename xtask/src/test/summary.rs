//! Counting: what libtest prints, summed per ring and over all, and the last lines of a run.

use std::{fmt::Write as _, time::Duration};

use super::ring::Ring;

/// Numbers of one or more test executables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// `test result:` lines seen.
    results: usize,
    /// Names of failed tests, or what happened to an executable.
    failures: Vec<String>,
}

impl Tally {
    /// Takes what one line of libtest's output adds.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.results += 1;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// Counts a test that libtest has not told about.
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    /// Counts something that is not a test's own verdict.
    pub(crate) fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// Sums.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.results += other.results;
        self.failures.extend(other.failures);
    }

    /// Tests that failed, and executables that broke.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// `test result:` lines seen.
    pub(crate) fn results(&self) -> usize {
        self.results
    }
}

#[cfg(test)]
impl Tally {
    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; ...`.
fn count(counts: &str, word: &str) -> usize {
    let words: Vec<&str> = counts.split([' ', ';']).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// A whole run.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    rings: Vec<(Ring, Tally, Duration)>,
    not_run: Vec<(Ring, String)>,
}

impl Summary {
    /// Adds a ring that was run.
    pub(crate) fn add(&mut self, ring: Ring, tally: Tally, took: Duration) {
        self.rings.push((ring, tally, took));
    }

    /// Adds a ring that this machine cannot run.
    pub(crate) fn not_run(&mut self, ring: Ring, reason: String) {
        self.not_run.push((ring, reason));
    }

    /// Something was run, nothing failed and, in CI, every ring that was asked for was run.
    pub(crate) fn is_success(&self, in_ci: bool) -> bool {
        let total = self.total();
        total.failed == 0 && total.passed > 0 && (self.not_run.is_empty() || !in_ci)
    }

    /// The last lines of the run; the very last is `N passed, N failed`.
    pub(crate) fn render(&self, in_ci: bool) -> String {
        let total = self.total();
        let mut text = String::from("ring     passed  failed  ignored  seconds\n");
        for (ring, tally, took) in &self.rings {
            let Tally { passed, failed, ignored, .. } = tally;
            let seconds = took.as_secs_f32();
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "{ring:<7}  {passed:>6}  {failed:>6}  {ignored:>7}  {seconds:>7.1}");
        }
        for (ring, reason) in &self.not_run {
            let verdict = if in_ci { ": in CI this is a failure" } else { "" };
            let _ = writeln!(text, "not run here: {ring} ({reason}){verdict}");
        }
        for failure in &total.failures {
            let _ = writeln!(text, "failed: {failure}");
        }
        if total.passed + total.failed == 0 && self.not_run.is_empty() {
            text.push_str("no test ran: does the filter match a name?\n");
        }
        let _ = writeln!(text, "{} passed, {} failed", total.passed, total.failed);
        text
    }

    fn total(&self) -> Tally {
        let mut total = Tally::default();
        for (_, tally, _) in &self.rings {
            total.add(tally.clone());
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        for line in output.lines() {
            tally.read(line);
        }
        tally
    }

    const OK: &str = "running 2 tests\ntest a::b ... ok\ntest result: ok. 2 passed; 0 failed; \
                      0 ignored; 0 measured; 5 filtered out; finished in 0.01s";
    const BAD: &str = "test a::c ... FAILED\ntest result: FAILED. 10 passed; 1 failed; 2 ignored; \
                       0 measured; 0 filtered out; finished in 1.01s";

    #[test]
    fn counts_are_read_from_libtests_result_line_and_names_of_failed_tests_kept() {
        let tally = tally(BAD);
        assert_eq!((tally.passed, tally.failed, tally.ignored), (10, 1, 2));
        assert_eq!(tally.failures, ["a::c"]);
    }

    #[test]
    fn the_last_line_sums_every_ring() {
        let mut summary = Summary::default();
        summary.add(Ring::Unit, tally(OK), Duration::from_secs(1));
        summary.add(Ring::Process, tally(BAD), Duration::from_secs(2));
        let text = summary.render(false);
        assert_eq!(text.lines().last(), Some("12 passed, 1 failed"));
        assert!(text.contains("failed: a::c\n"), "{text}");
        assert!(!summary.is_success(false));
    }

    #[test]
    fn a_ring_that_cannot_run_is_named_and_fails_only_in_ci() {
        let mut summary = Summary::default();
        summary.add(Ring::Unit, tally(OK), Duration::ZERO);
        summary.not_run(Ring::Netns, "needs root".to_owned());
        assert!(summary.render(false).contains("not run here: netns (needs root)\n"));
        assert!(summary.is_success(false));
        assert!(!summary.is_success(true));
        assert!(summary.render(true).contains("in CI this is a failure"));
    }

    #[test]
    fn a_run_without_any_test_is_not_a_success() {
        let mut summary = Summary::default();
        summary.add(Ring::Unit, tally(""), Duration::ZERO);
        assert!(!summary.is_success(false));
        assert!(summary.render(false).contains("no test ran"));
    }
}
