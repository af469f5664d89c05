//! `docs/reference/kernels.md`: the matrix, written from a run of all of it.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    outcome::{Outcome, Program},
    report,
};

/// The page, for a run on a day (`2026-11-23`) with a QEMU.
pub(crate) fn page(outcomes: &[Outcome], day: &str, qemu: &str) -> String {
    let mut page = format!(
        "# Kernels\n\n\
         <!-- Written by `cargo xtask vm --all --write-docs`; changes by hand are lost. -->\n\n\
         What the kernel ring ([how to run it](../guide/kernels.md)) found on {day}, on Debian's cloud kernels under\n\
         {qemu}. A kernel that fails is listed as one that fails.\n\n"
    );
    kernels(&mut page, outcomes);
    checks(&mut page, outcomes);
    programs(&mut page, outcomes);
    page
}

fn kernels(page: &mut String, outcomes: &[Outcome]) {
    page.push_str(
        "| kernel | package | release | passed | failed | ending |\n|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let (passed, failed) = outcome.tally();
        let Outcome { choice, version, release, .. } = outcome;
        let ending = report::ending(&outcome.ending);
        // Writing to a String cannot fail.
        let _ =
            writeln!(page, "| {choice} | {version} | {release} | {passed} | {failed} | {ending} |");
    }
}

fn checks(page: &mut String, outcomes: &[Outcome]) {
    page.push_str(
        "\n## What is checked\n\n\
         `verifier::PROGRAM`: the kernel takes the program, within its budget. The others are tests in `tests/tests`.\n\n",
    );
    header(page, "check", outcomes);
    let mut seen = BTreeSet::new();
    let names = outcomes.iter().flat_map(|it| &it.checks).map(|check| check.name.as_str());
    for name in names.filter(|name| seen.insert(*name)) {
        row(page, &format!("`{name}`"), outcomes, |outcome| {
            let check = outcome.checks.iter().find(|check| check.name == name);
            check.map(|check| if check.passed { "ok" } else { "**failed**" }.to_owned())
        });
    }
}

fn programs(page: &mut String, outcomes: &[Outcome]) {
    page.push_str(
        "\n## What the programs cost the verifier\n\n\
         Instructions looked at, once per path, and in brackets the states kept. The kernel gives up at a million\n\
         instructions; our budgets are in `xtask/src/vm/budget.rs`.\n\n",
    );
    table_of_programs(page, outcomes, |it| format!("{} ({})", it.processed, it.total_states));
    page.push_str(
        "\n## What becomes of them\n\nInstructions after the verifier, and bytes of machine code.\n\n",
    );
    table_of_programs(page, outcomes, |it| format!("{}, {} B", it.instructions, it.jited_bytes));
}

fn table_of_programs(page: &mut String, outcomes: &[Outcome], cell: impl Fn(&Program) -> String) {
    header(page, "program", outcomes);
    let all = outcomes.iter().flat_map(|it| &it.programs);
    let names: BTreeSet<&str> = all.map(|it| it.name.as_str()).collect();
    for name in names {
        row(page, &format!("`{name}`"), outcomes, |outcome| {
            let program = outcome.programs.iter().find(|it| it.name == name)?;
            Some(if program.refused.is_some() { "refused".to_owned() } else { cell(program) })
        });
    }
}

fn header(page: &mut String, first: &str, outcomes: &[Outcome]) {
    let choices: Vec<&str> = outcomes.iter().map(|it| it.choice.as_str()).collect();
    let _ = writeln!(page, "| {first} | {} |", choices.join(" | "));
    let _ = writeln!(page, "|---|{}", "---|".repeat(outcomes.len()));
}

fn row(
    page: &mut String,
    first: &str,
    outcomes: &[Outcome],
    cell: impl Fn(&Outcome) -> Option<String>,
) {
    let cells: Vec<String> =
        outcomes.iter().map(|it| cell(it).unwrap_or_else(|| "not run".to_owned())).collect();
    let _ = writeln!(page, "| {first} | {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::vm::outcome::Check;

    fn outcome(choice: &str, refused: Option<&str>) -> Outcome {
        let mut outcome = Outcome::new(choice, choice, PathBuf::new());
        outcome.checks.push(Check {
            name: "verifier::p".to_owned(),
            passed: refused.is_none(),
            seconds: 0.0,
            reason: String::new(),
        });
        outcome.programs.push(Program {
            name: "p".to_owned(),
            hook: "sockops".to_owned(),
            refused: refused.map(str::to_owned),
            instructions: 12,
            jited_bytes: 96,
            processed: 345,
            total_states: 6,
            peak_states: 5,
        });
        outcome
    }

    #[test]
    fn the_page_shows_failures_beside_successes_with_day_and_emulator() {
        let outcomes = [outcome("5.10", Some("no")), outcome("6.12", None)];
        let page = page(&outcomes, "2026-11-23", "QEMU 7.2");
        assert!(page.contains("2026-11-23") && page.contains("QEMU 7.2"), "{page}");
        assert!(page.contains("| `verifier::p` | **failed** | ok |\n"), "{page}");
        assert!(page.contains("| `p` | refused | 345 (6) |\n"), "{page}");
        assert!(page.contains("| `p` | refused | 12, 96 B |\n"), "{page}");
    }
}
