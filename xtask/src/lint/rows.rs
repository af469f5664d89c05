//! Tables of the reference name the test that shows each row. A test that is named and does not exist
//! shows nothing.
//!
//! In the column `test` stand functions, `file::name` or `name`; in the column `end to end` cases of
//! `tests/tests/cases` by file and name, or functions.

use std::{collections::HashSet, path::Path};

use anyhow::Result;

use super::{Finding, tree, tree::File};
use crate::workspace::Workspace;

/// Where tables are.
const REFERENCE: &str = "docs/reference";
/// Where cases are.
const CASES: &str = "tests/tests/cases";
/// Titles of columns that name tests.
const COLUMNS: [&str; 2] = ["test", END_TO_END];
const END_TO_END: &str = "end to end";
/// Stands where there is nothing to run end to end.
const NOTHING: &str = "\u{2014}";

/// Reads the reference, the sources and the cases.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let documents = tree::files(workspace, REFERENCE, "md")?;
    let mut tests = Tests::default();
    for directory in ["agent", "tests", "ebpf-programs/common"] {
        tree::files(workspace, directory, "rs")?.iter().for_each(|file| tests.add_functions(file));
    }
    tree::files(workspace, CASES, "yaml")?.iter().for_each(|file| tests.add_cases(file));
    Ok(documents.iter().flat_map(|document| unknown(document, &tests)).collect())
}

/// Every test that there is.
#[derive(Default)]
struct Tests {
    /// Without the file.
    names: HashSet<String>,
    /// `file::name`.
    full: HashSet<String>,
}

impl Tests {
    fn add_functions(&mut self, file: &File) {
        let mut is_test = false;
        for line in file.text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
                continue;
            }
            let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            let Some((name, _)) = name.and_then(|rest| rest.split_once('(')) else { continue };
            if std::mem::take(&mut is_test) {
                self.add(&file.path, name);
            }
        }
    }

    fn add_cases(&mut self, file: &File) {
        for name in file.text.lines().filter_map(|line| line.strip_prefix("- case: ")) {
            self.add(&file.path, name.trim());
        }
    }

    fn add(&mut self, path: &Path, name: &str) {
        let file = path.file_stem().unwrap_or_default().to_string_lossy();
        self.full.insert(format!("{file}::{name}"));
        self.names.insert(name.to_owned());
    }

    fn knows(&self, name: &str) -> bool {
        let all = if name.contains("::") { &self.full } else { &self.names };
        all.contains(name)
    }
}

/// What the tables of a document name in vain.
fn unknown(document: &File, tests: &Tests) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut titles: Option<Vec<&str>> = None;
    for (number, line) in (1..).zip(document.text.lines()) {
        if !line.starts_with('|') {
            titles = None;
            continue;
        }
        let row = cells(line);
        let Some(titles) = &titles else {
            titles = Some(row);
            continue;
        };
        let mut complain =
            |message: String| found.push(Finding::error(&document.path, Some(number), message));
        for (title, cell) in titles.iter().zip(row) {
            if !COLUMNS.contains(title) || cell.starts_with("---") || cell == NOTHING {
                continue;
            }
            if *title == END_TO_END && cell.is_empty() {
                complain(format!("name a case of {CASES}, or write {NOTHING}"));
            }
            for name in cell.split('`').skip(1).step_by(2).filter(|name| !tests.knows(name)) {
                complain(format!("no test is called `{name}`"));
            }
        }
    }
    found
}

/// The cells of a row. A bar inside of one has a backslash before it.
fn cells(line: &str) -> Vec<&str> {
    let mut cells = Vec::new();
    let inner = line.trim().trim_start_matches('|');
    let (mut begin, mut escaped) = (0, false);
    for (at, character) in inner.char_indices() {
        if character == '|' && !escaped {
            cells.push(inner[begin..at].trim());
            begin = at + 1;
        }
        escaped = character == '\\';
    }
    cells
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: PathBuf::from(path), text: text.to_owned() }
    }

    fn complaints(rows: &str) -> Vec<String> {
        let mut tests = Tests::default();
        tests.add_functions(&file("agent/a/tests/reads.rs", "#[test]\nfn a_field() {}\nfn b() {}"));
        tests.add_functions(&file(
            "x.rs",
            "    #[tokio::test(start_paused = true)]\n    async fn c() {",
        ));
        tests
            .add_cases(&file("tests/tests/cases/dir/plays.yaml", "- case: it_plays\n  objects:\n"));
        let text = format!("| a \\| b | test | end to end |\n|---|---|---|\n{rows}\n");
        let document = file("docs/reference/t.md", &text);
        unknown(&document, &tests).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tests_that_exist_are_found_by_their_names() {
        let rows =
            "| `x` | `reads::a_field`, `a_field` | `plays::it_plays` |\n| y | `c` | \u{2014} |";
        assert_eq!(complaints(rows), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_exist_is_told_with_its_line() {
        let line = "docs/reference/t.md:3";
        for name in ["reads::gone", "plays::a_field", "b"] {
            let complaint = format!("{line}: no test is called `{name}`");
            assert_eq!(complaints(&format!("| x | `{name}` | \u{2014} |")), [complaint]);
        }
    }

    #[test]
    fn a_row_without_a_case_says_so() {
        assert_eq!(complaints("| x | | |").len(), 1);
    }
}
