//! Relative links in Markdown files lead to files that exist. Links to the web are not followed:
//! a check that needs the network fails for reasons nobody here can mend.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Finding, tree};
use crate::workspace::Workspace;

/// Reads every Markdown file of the repository.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in tree::files(workspace, ".", "md")? {
        let directory = file.path.parent().unwrap_or(Path::new(""));
        for (line, target) in relative_links(&file.text) {
            let path: PathBuf = workspace.root().join(directory).join(target);
            if !path.exists() {
                let message = format!("link to `{target}`, which does not exist");
                findings.push(Finding::error(&file.path, Some(line), message));
            }
        }
    }
    Ok(findings)
}

/// Line and file part of every `[text](target)` and `[name]: target` outside of code, for targets
/// in the repository.
fn relative_links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let targets = inline_targets(line).chain(definition_target(line));
            links.extend(targets.filter_map(file_part).map(|target| (index + 1, target)));
        }
    }
    links
}

/// The text between `](` and `)`, not inside backticks.
fn inline_targets(line: &str) -> impl Iterator<Item = &str> {
    // Every second piece between backticks is code.
    let prose = line.split('`').step_by(2);
    prose.flat_map(|piece| {
        piece.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
    })
}

/// The target of `[name]: target`.
fn definition_target(line: &str) -> Option<&str> {
    let (_, target) = line.strip_prefix('[')?.split_once("]: ")?;
    Some(target)
}

/// A target without title and fragment; `None` when it is not in the repository.
fn file_part(target: &str) -> Option<&str> {
    let target = target.split_whitespace().next()?;
    let file = target.split('#').next()?;
    let elsewhere = file.contains("://") || file.starts_with("mailto:");
    (!file.is_empty() && !elsewhere).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_targets_are_found_with_their_line_and_without_title_or_fragment() {
        let text = "# Title\nSee [a](guide/a.md) and [b](../b.md#part \"B\").\n[c]: c.md\n";
        assert_eq!(relative_links(text), [(2, "guide/a.md"), (2, "../b.md"), (3, "c.md")]);
    }

    #[test]
    fn the_web_mail_fragments_and_code_are_left_alone() {
        let text = "[w](https://example.org/x) [m](mailto:a@example.org) [f](#part) `[c](no.md)`\n\
                    ```\n[d](no.md)\n```\n[e](e.md)\n";
        assert_eq!(relative_links(text), [(5, "e.md")]);
    }

    #[test]
    fn an_image_is_a_link_too() {
        assert_eq!(relative_links("![picture](a.svg)"), [(1, "a.svg")]);
    }
}
