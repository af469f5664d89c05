//! The last lines of a run.

use std::{fmt::Write as _, path::Path};

use super::campaign::Outcome;
use crate::workspace::Workspace;

/// A table, and for each finding what it is and how it is seen again.
pub(super) fn render(workspace: &Workspace, outcomes: &[Outcome]) -> String {
    let width = outcomes.iter().map(|outcome| outcome.target.len()).max().unwrap_or(0).max(6);
    let mut text = format!("{:<width$}  seconds   executions  edges  corpus  findings\n", "target");
    for Outcome { target, seen, took, finding } in outcomes {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{target:<width$}  {:>7}  {:>11}  {:>5}  {:>6}  {:>8}",
            took.as_secs(),
            seen.executions,
            seen.coverage,
            seen.corpus,
            usize::from(finding.is_some()),
        );
    }
    for outcome in outcomes {
        let Some(finding) = &outcome.finding else { continue };
        let _ = writeln!(text, "\n{}: {finding}", outcome.target);
        if let Some(path) = &outcome.seen.reproducer {
            let path = workspace.relative(Path::new(path)).display();
            let _ = writeln!(text, "  input   {path}");
            let _ = writeln!(text, "  replay  cargo xtask fuzz {} --replay {path}", outcome.target);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::output::Seen, *};

    #[test]
    fn a_finding_comes_with_the_command_that_shows_it_again() {
        let mut seen = Seen::default();
        seen.read("#70 NEW cov: 5 corp: 2/9b");
        seen.read("x; Test unit written to /r/target/fuzz/run/jwt/findings/crash-1");
        let finding = Some("it broke".to_owned());
        let took = Duration::from_secs(9);
        let outcomes = [Outcome { target: "jwt".to_owned(), seen, took, finding }];
        let text = render(&Workspace::at(Path::new("/r")), &outcomes);
        let expected = "jwt           9           70      5       2         1\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.ends_with(
            "\njwt: it broke\n  input   target/fuzz/run/jwt/findings/crash-1\n  replay  cargo \
             xtask fuzz jwt --replay target/fuzz/run/jwt/findings/crash-1\n"
        ));
    }
}
