//! What runs come to.

use serde_json::json;

use super::*;

fn planned() -> Vec<PlannedTest> {
    ["one", "two"].map(|test| crate::vm::ring::planned("netns_x", test)).into()
}

fn outcome() -> Outcome {
    Outcome::new("6.12", "6.12.1-1", PathBuf::new())
}

fn program(processed: u32, refused: Option<&str>) -> Event {
    Event::Programs {
        programs: json!([{
            "name": "undermesh_connect4", "hook": "cgroup/connect4", "refused": refused,
            "instructions": 10, "jitedBytes": 80, "processed": processed,
            "totalStates": 3, "peakStates": 2,
        }]),
    }
}

fn finished(name: &str, passed: bool) -> Event {
    let output = if passed { "" } else { "assertion failed" };
    Event::Finished { name: name.to_owned(), passed, seconds: 1.5, output: output.to_owned() }
}

#[test]
fn a_run_in_which_everything_passed_has_no_failure() {
    let mut outcome = outcome();
    outcome.take(Event::Booted { release: "6.12.1-cloud".to_owned() }, 3.0);
    outcome.take(program(100, None), 4.0);
    outcome.take(finished("netns_x::one", true), 5.0);
    outcome.take(finished("netns_x::two", true), 6.0);
    outcome.end(Ending::Done, &planned(), 7.0);
    assert_eq!(outcome.tally(), (3, 0));
    assert_eq!((outcome.release.as_str(), outcome.boot_seconds), ("6.12.1-cloud", 3.0));
}

#[test]
fn a_refused_program_is_a_failure_with_the_verifiers_words() {
    let mut outcome = outcome();
    outcome.take(program(100, Some("invalid func")), 1.0);
    assert_eq!(outcome.checks[0].name, "verifier::undermesh_connect4");
    assert_eq!(outcome.checks[0].reason, "invalid func");
    assert_eq!(outcome.tally(), (0, 1));
}

#[test]
fn a_program_beyond_its_budget_is_a_failure() {
    let mut outcome = outcome();
    outcome.take(program(900_000, None), 1.0);
    assert!(outcome.checks[0].reason.contains("900000"), "{:?}", outcome.checks);
}

#[test]
fn what_a_panic_has_cut_off_is_failed_and_says_so() {
    let console = "[ 1.0] booting\n[ 2.0] Kernel panic - not syncing: Attempted to kill init!\n";
    let ending = Ending::early(console, Ending::Died("exit status: 0".to_owned()));
    assert!(matches!(ending, Ending::Panicked(_)));
    let mut outcome = outcome();
    outcome.take(program(100, None), 1.0);
    outcome.take(finished("netns_x::one", true), 2.0);
    outcome.end(ending, &planned(), 3.0);
    assert_eq!(outcome.tally(), (2, 1));
    let last = outcome.checks.last().unwrap();
    assert_eq!(last.name, "netns_x::two");
    assert!(last.reason.contains("Kernel panic - not syncing: Attempted"), "{last:?}");
}

#[test]
fn a_failed_test_is_no_panic() {
    let ending = Ending::early("[ 1.0] all well\n", Ending::Died("exit status: 1".to_owned()));
    assert_eq!(ending, Ending::Died("exit status: 1".to_owned()));
}

#[test]
fn a_machine_that_says_nothing_has_failed_everything() {
    let mut outcome = outcome();
    outcome.end(Ending::Done, &planned(), 3.0);
    assert_eq!(outcome.tally(), (0, 3));
}
