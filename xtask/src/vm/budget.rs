//! How much of the verifier's patience each program may take, on whatever kernel. The kernel's own
//! limit is a million instructions looked at; ours is far below, so that a change that makes
//! verification explode is seen when it is made, not when somebody boots another kernel.
//!
//! A budget is about twice what the worst kernel of the matrix needs (docs/reference/kernels.md).
//! Raise one in the commit that needs it, and say there what the program got for it.

use super::outcome::Program;

/// Programs, and instructions that the verifier may look at, once per path.
const PROCESSED: [(&str, u32); 11] = [
    ("undermesh_bind4", 600),
    ("undermesh_bind6", 600),
    ("undermesh_connect4", 16_000),
    ("undermesh_connect6", 16_000),
    ("undermesh_cookie", 600),
    ("undermesh_getpeername4", 1_000),
    ("undermesh_getpeername6", 2_500),
    ("undermesh_probe4", 2_500),
    ("undermesh_probe6", 2_500),
    ("undermesh_publish", 8_500),
    ("undermesh_steer", 40_000),
];

/// States that the verifier may keep for one program; they are its memory.
const TOTAL_STATES: u32 = 1_600;

/// What is wrong with what a program needs, if anything is.
pub(crate) fn crossed(program: &Program) -> Option<String> {
    let Some((name, limit)) = PROCESSED.iter().find(|(name, _)| *name == program.name) else {
        return Some(format!(
            "{} has no budget; give it one in xtask/src/vm/budget.rs",
            program.name
        ));
    };
    if program.processed == 0 {
        return Some(format!("the verifier did not say what {name} has cost"));
    }
    if program.processed > *limit {
        return Some(format!(
            "the verifier looked at {} instructions of {name}, the budget is {limit}",
            program.processed
        ));
    }
    (program.total_states > TOTAL_STATES).then(|| {
        format!(
            "the verifier kept {} states for {name}, the budget is {TOTAL_STATES}",
            program.total_states
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, processed: u32, total_states: u32) -> Program {
        Program {
            name: name.to_owned(),
            hook: "sockops".to_owned(),
            refused: None,
            instructions: 1,
            jited_bytes: 1,
            processed,
            total_states,
            peak_states: total_states,
        }
    }

    #[test]
    fn a_program_within_its_budget_is_fine_and_one_instruction_more_is_not() {
        let (name, limit) = PROCESSED[0];
        assert_eq!(crossed(&program(name, limit, TOTAL_STATES)), None);
        let complaint = crossed(&program(name, limit + 1, 1)).unwrap();
        assert!(complaint.contains(&format!("the budget is {limit}")), "{complaint}");
        assert!(crossed(&program(name, 1, TOTAL_STATES + 1)).unwrap().contains("states"));
    }

    #[test]
    fn a_program_without_a_budget_or_without_a_measurement_is_a_complaint() {
        assert!(crossed(&program("undermesh_new", 1, 1)).unwrap().contains("has no budget"));
        assert!(crossed(&program(PROCESSED[0].0, 0, 0)).unwrap().contains("did not say"));
    }
}
