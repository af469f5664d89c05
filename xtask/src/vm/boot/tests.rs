//! Machines that are shell scripts: what they say, and how they end.

use super::*;

const FINISHED: &str =
    r#"{"event":"finished","name":"netns_x::one","passed":true,"seconds":1.0,"output":""}"#;

/// Runs a script as a machine whose console shows `console`; the lines that were shown come along.
fn machine(name: &str, script: &str, console: &str) -> (Outcome, Vec<String>) {
    let path = std::env::temp_dir().join(format!("xtask-{}-{name}.log", std::process::id()));
    fs::write(&path, console).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let tests = ["one", "two"].map(|test| ring::planned("netns_x", test));
    let mut outcome = Outcome::new("6.12", "6.12.1-1", path.clone());
    let mut shown = Vec::new();
    let run = Run { command, console: &path, tests: &tests };
    run.finish(&mut outcome, |check| shown.push(check.name.clone())).unwrap();
    fs::remove_file(&path).unwrap();
    (outcome, shown)
}

#[test]
fn a_machine_that_ends_early_is_told_with_what_qemu_says() {
    let script = format!("echo '{FINISHED}'; echo 'no such device' >&2; exit 3");
    let (outcome, shown) = machine("early", &script, "[ 1.0] all well\n");
    assert!(matches!(&outcome.ending, Ending::Died(how) if how.contains("no such device")));
    assert_eq!(shown, ["netns_x::one", "setup", "netns_x::two"]);
    assert_eq!(outcome.tally(), (1, 2));
}

#[test]
fn a_panic_is_told_from_a_failed_test_by_the_console() {
    let console = "[ 2.0] Kernel panic - not syncing: Fatal exception\n";
    let (outcome, _) = machine("panic", "exit 0", console);
    assert!(matches!(&outcome.ending, Ending::Panicked(line) if line.contains("Fatal exception")));
}

#[test]
fn what_is_no_event_is_passed_over() {
    let other = FINISHED.replace("one", "two");
    let script = format!("echo SeaBIOS; echo '{FINISHED}'; printf '\\377\\n'; echo '{other}'");
    let (outcome, _) = machine("noise", &script, "");
    assert_eq!(outcome.ending, Ending::Done);
    // Both tests; but no program was ever reported.
    assert_eq!(outcome.tally(), (2, 1));
}
