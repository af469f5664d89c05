//! Rules for every Rust file: it says at its head what it is, is short enough to be read in one
//! go, is finished, and stays inside the wall around `unsafe`.

use std::path::Path;

use anyhow::Result;

use super::{Finding, tree};
use crate::workspace::Workspace;

/// More lines than this fail.
const MAX_LINES: usize = 600;
/// More lines than this are a warning: time to split.
const LONG: usize = 450;

/// Marks of unfinished work and of tests that are never run. Spelled in halves, or this file would
/// find itself.
const UNFINISHED: [&str; 5] = [
    concat!("#[ig", "nore"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

/// What lifts the workspace's ban on unsafe code.
const UNSAFE_LINT: &str = concat!("unsafe", "_code");
/// Where that may happen.
const UNSAFE_ALLOWED: [&str; 3] = ["agent/datapath", "ebpf-programs", "agent/src/allocator.rs"];

/// Reads every Rust file of the repository.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let files = tree::files(workspace, ".", "rs")?;
    Ok(files.iter().flat_map(|file| file_findings(&file.path, &file.text)).collect())
}

fn file_findings(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !has_head(text) {
        let message = "say at its head what this file is: open with `//!`";
        findings.push(Finding::error(path, Some(1), message));
    }
    let count = text.lines().count();
    if count > MAX_LINES {
        let message = format!("{count} lines, at most {MAX_LINES}: split it");
        findings.push(Finding::error(path, None, message));
    } else if count > LONG {
        let message = format!("{count} lines: split it before it has {MAX_LINES}");
        findings.push(Finding::warning(path, message));
    }
    for (index, line) in text.lines().enumerate() {
        let number = Some(index + 1);
        if let Some(mark) = UNFINISHED.iter().find(|mark| line.contains(*mark)) {
            let message = format!("`{mark}`: finish it, or leave it out and open an issue");
            findings.push(Finding::error(path, number, message));
        }
        if line.contains(UNSAFE_LINT) && !unsafe_is_allowed(path) {
            let message =
                "unsafe code belongs in agent/datapath, ebpf-programs and allocator.rs only";
            findings.push(Finding::error(path, number, message));
        }
    }
    findings
}

/// A shebang or a file attribute may come first only if it is the `//!` itself.
fn has_head(text: &str) -> bool {
    text.starts_with("//! ")
}

fn unsafe_is_allowed(path: &Path) -> bool {
    UNSAFE_ALLOWED.iter().any(|allowed| path.starts_with(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        file_findings(Path::new(path), text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_with_a_head_and_nothing_else_is_fine() {
        assert_eq!(messages("agent/src/a.rs", "//! Head.\nfn f() {}\n"), Vec::<String>::new());
    }

    #[test]
    fn a_file_without_a_head_is_reported_at_its_first_line() {
        let found = messages("agent/src/a.rs", "use std::fs;\n//! Too late.\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("agent/src/a.rs:1: "), "{found:?}");
    }

    #[test]
    fn length_warns_before_it_fails() {
        let file = |lines: usize| format!("//! Head.\n{}", "\n".repeat(lines - 1));
        let path = Path::new("a.rs");
        assert_eq!(file_findings(path, &file(LONG)), []);
        assert!(file_findings(path, &file(LONG + 1))[0].warning);
        assert!(file_findings(path, &file(MAX_LINES))[0].warning);
        assert!(!file_findings(path, &file(MAX_LINES + 1))[0].warning);
    }

    #[test]
    fn every_mark_of_unfinished_work_is_reported_with_its_line() {
        for mark in UNFINISHED {
            let found = messages("a.rs", &format!("//! Head.\n\n// {mark}\n"));
            assert_eq!(found.len(), 1, "{mark}");
            assert!(found[0].starts_with("a.rs:3: "), "{found:?}");
        }
    }

    #[test]
    fn lifting_the_ban_on_unsafe_is_allowed_only_inside_the_wall() {
        let text = format!("//! Head.\n#![expect({UNSAFE_LINT}, reason = \"bpf(2)\")]\n");
        assert_eq!(messages("agent/datapath/src/sys.rs", &text), Vec::<String>::new());
        assert_eq!(messages("ebpf-programs/common/src/pod.rs", &text), Vec::<String>::new());
        assert_eq!(messages("agent/src/allocator.rs", &text), Vec::<String>::new());
        assert_eq!(messages("agent/src/agent.rs", &text).len(), 1);
        assert_eq!(messages("agent/proxy/src/lib.rs", &text).len(), 1);
        assert_eq!(messages("agent/datapath-tools/src/lib.rs", &text).len(), 1);
    }
}
